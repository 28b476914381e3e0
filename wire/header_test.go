package wire

import (
	"strings"
	"testing"
)

func parseHeader(t *testing.T, raw string) *Header {
	t.Helper()
	h := new(Header)
	if f := h.ParseFields([]byte(raw), 0); f != NoFault {
		t.Fatalf("ParseFields(%q): %s", raw, f)
	}
	return h
}

func TestParseFieldsKeepsOrderSpellingAndRepeats(t *testing.T) {
	raw := "hOsT: a\r\nX-One:1\r\nX-One: \t2 , 3\t \r\nEmpty:\r\nBlank: \t\r\nText: \"\xe9\x80\xff\"\ttab\r\n"
	h := parseHeader(t, raw)
	want := []struct {
		name, value string
		id          FieldID
	}{
		{"hOsT", "a", Host}, {"X-One", "1", Unknown}, {"X-One", "2 , 3", Unknown},
		{"Empty", "", Unknown}, {"Blank", "", Unknown}, {"Text", "\"\xe9\x80\xff\"\ttab", Unknown},
	}
	if h.Len() != len(want) {
		t.Fatalf("Len = %d, want %d", h.Len(), len(want))
	}
	for i, w := range want {
		name, value, id, ok := h.Field(i)
		if string(name) != w.name || string(value) != w.value || id != w.id || !ok || value == nil {
			t.Errorf("field %d is %q: %q (%q, %v), want %q: %q", i, name, value, id, ok, w.name, w.value)
		}
	}
	if got := string(h.AppendTo(nil)); got != raw {
		t.Errorf("AppendTo gives %q, want %q", got, raw)
	}
}

var fieldFaults = []struct {
	name, raw string
	want      Fault
}{
	{"bare LF after the value", "A: b\nC: d\r\n", BareLF},
	{"bare LF after the name", "A\nC: d\r\n", BareLF},
	{"bare LF as a line", "A: b\r\n\nC: d\r\n", BareLF},
	{"bare LF directly after CRLF at the end", "A: b\r\n\n", BareLF},
	{"bare CR in the value", "A: b\rC: d\r\n", BareCR},
	{"bare CR in the name", "A\rB: d\r\n", BareCR},
	{"two CR before LF", "A: b\r\r\n", BareCR},
	{"bare CR that pretends a new line", "A: b\r Transfer-Encoding: chunked\r\n", BareCR},
	{"NUL in the value", "A: b\x00c\r\n", ControlByte},
	{"NUL in the name", "A\x00B: c\r\n", ControlByte},
	{"escape byte in the value", "A: \x1b[31m\r\n", ControlByte},
	{"DEL in the value", "A: b\x7f\r\n", ControlByte},
	{"vertical tab before the value", "Transfer-Encoding:\x0bchunked\r\n", ControlByte},
	{"form feed after the name", "Content-Length\x0c: 5\r\n", ControlByte},
	{"control byte late in a long value", "A: " + strings.Repeat("x", 61) + "\x01\r\n", ControlByte},
	{"obsolete fold with space", "A: b\r\n c\r\n", ObsoleteFold},
	{"obsolete fold with tab", "A: b\r\n\tc: d\r\n", ObsoleteFold},
	{"white space before the first field", " A: b\r\n", ObsoleteFold},
	{"line of white space", "A: b\r\n \r\n", ObsoleteFold},
	{"space before the colon", "Content-Length : 5\r\n", SpaceBeforeColon},
	{"tab before the colon", "Transfer-Encoding\t: chunked\r\n", SpaceBeforeColon},
	{"space in the name", "Content Length: 5\r\n", BadFieldName},
	{"empty name", ": b\r\n", BadFieldName},
	{"only a colon", ":\r\n", BadFieldName},
	{"parenthesis in the name", "A(b): c\r\n", BadFieldName},
	{"text beyond ASCII in the name", "Tr\xc3\xa4nsfer: c\r\n", BadFieldName},
	{"slash in the name", "A/b: c\r\n", BadFieldName},
	{"no colon", "Content-Length\r\n", MissingColon},
	{"request line among the fields", "GET /evil HTTP/1.1\r\n", BadFieldName},
	{"no colon at the end", "A: b\r\nX\r\n", MissingColon},
	{"blank line among the fields", "A: b\r\n\r\nGET / HTTP/1.1\r\n", MissingColon},
	{"last line without line end", "A: b\r\nC: d", BareLF},
	{"last line with CR only", "A: b\r\nC: d\r", BareLF},
}

func TestParseFieldsRefuses(t *testing.T) {
	for _, c := range fieldFaults {
		var h Header
		if got := h.ParseFields([]byte(c.raw), 0); got != c.want {
			t.Errorf("%s: %q gives %q, want %q", c.name, c.raw, got, c.want)
		}
	}
}

// The eight-byte test for control bytes must see each of them at each place,
// whatever stands around it.
func TestEveryControlByteIsFoundEverywhere(t *testing.T) {
	for _, around := range []byte{'a', ' ', '~', 0x80, 0xff, '!', 0xa0, 0x9f} {
		for size := 1; size <= 24; size++ {
			for at := range size {
				for c := range 256 {
					s := []byte(strings.Repeat(string([]byte{around}), size))
					s[at] = byte(c)
					want := size
					if c < 0x20 || c == 0x7f {
						want = at
					}
					if got := visibleLen(s); got != want {
						t.Fatalf("visibleLen(%q) = %d, want %d", s, got, want)
					}
				}
			}
		}
	}
}

func TestParseFieldsBoundsTheirNumber(t *testing.T) {
	var h Header
	raw := []byte(strings.Repeat("A: b\r\n", 100))
	if f := h.ParseFields(raw, 100); f != NoFault {
		t.Errorf("100 of 100 fields: %s", f)
	}
	if f := h.ParseFields(append(raw, "A: b\r\n"...), 100); f != TooManyFields {
		t.Errorf("101 of 100 fields: %s", f)
	}
	if f := h.ParseFields([]byte(strings.Repeat("a", 65536)+": b\r\n"), 0); f != HeaderTooLarge {
		t.Errorf("name of 64 KiB: %s", f)
	}
}

func TestGetHasNextFind(t *testing.T) {
	h := parseHeader(t, "Via: 1\r\nx-thing: 2\r\nVIA: 3\r\nAccept:\r\n")
	if got := string(h.Get(Via)); got != "1" {
		t.Errorf("Get(Via) = %q", got)
	}
	if got := h.Get(Accept); got == nil || len(got) > 0 {
		t.Errorf("Get of an empty value = %v, want empty and not nil", got)
	}
	if h.Get(Host) != nil || h.Has(Host) || !h.Has(Via) {
		t.Error("Get or Has finds what is not there, or not what is there")
	}
	var found []int
	for i := h.Next(Via, 0); i >= 0; i = h.Next(Via, i+1) {
		found = append(found, i)
	}
	if len(found) != 2 || found[0] != 0 || found[1] != 2 {
		t.Errorf("Next walks over %v, want [0 2]", found)
	}
	if got := string(h.Find("X-THING")); got != "2" {
		t.Errorf("Find(X-THING) = %q", got)
	}
	if got := string(h.Find("via")); got != "1" {
		t.Errorf("Find(via) = %q", got)
	}
	if h.Find("x-thin") != nil {
		t.Error("Find finds a part of a name")
	}
	h.DelAt(0)
	if got := string(h.Get(Via)); got != "3" || h.Next(Via, 0) != 2 {
		t.Errorf("Get(Via) after DelAt(0) = %q", got)
	}
	h.DelAt(2)
	if h.Has(Via) {
		t.Error("Has(Via) after both were deleted")
	}
}

func TestEdits(t *testing.T) {
	raw := "Host: a\r\nX-A: 1\r\nVia: v\r\nx-a: 2 \r\nX-B: 3\r\n"
	f := func(name string, edit func(h *Header), want string) {
		t.Helper()
		h := parseHeader(t, raw)
		edit(h)
		if got := string(h.AppendTo([]byte("> "))); got != "> "+want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		var c Header
		c.CopyFrom(h)
		h.Reset()
		if got := string(c.AppendTo(nil)); got != want {
			t.Errorf("%s: the copy is %q, want %q", name, got, want)
		}
	}
	f("nothing", func(h *Header) {}, raw)
	f("delete the first", func(h *Header) { h.Del(Host) }, raw[9:])
	f("delete the last", func(h *Header) { h.DelName([]byte("x-b")) }, strings.TrimSuffix(raw, "X-B: 3\r\n"))
	f("delete a known one by name", func(h *Header) { h.DelName([]byte("VIA")) }, "Host: a\r\nX-A: 1\r\nx-a: 2 \r\nX-B: 3\r\n")
	f("delete all of a name", func(h *Header) { h.DelName([]byte("X-a")) }, "Host: a\r\nVia: v\r\nX-B: 3\r\n")
	f("delete by index", func(h *Header) { h.DelAt(2) }, "Host: a\r\nX-A: 1\r\nx-a: 2 \r\nX-B: 3\r\n")
	f("delete what is not there", func(h *Header) { h.Del(Accept); h.DelName([]byte("nope")) }, raw)
	f("add", func(h *Header) { h.AddString("X-C", "4") }, raw+"X-C: 4\r\n")
	f("add, delete, add", func(h *Header) {
		h.AddString("X-C", "4")
		h.AddString("Via", "w")
		h.Del(Via)
		h.AddString("Via", "x")
	}, "Host: a\r\nX-A: 1\r\nx-a: 2 \r\nX-B: 3\r\nX-C: 4\r\nVia: x\r\n")
	f("set an unknown one", func(h *Header) { h.SetString("X-A", "") }, "Host: a\r\nVia: v\r\nX-B: 3\r\nX-A: \r\n")
	f("set from its own value", func(h *Header) { h.Set("Host", h.Get(Host)) }, raw[9:]+"Host: a\r\n")
	f("set twice", func(h *Header) { h.SetString("Via", "1"); h.SetString("Via", "2") },
		"Host: a\r\nX-A: 1\r\nx-a: 2 \r\nX-B: 3\r\nVia: 2\r\n")
	f("delete everything", func(h *Header) {
		for i := range h.Len() {
			h.DelAt(i)
		}
	}, "")
}

func TestAddedFieldsAreFound(t *testing.T) {
	var h Header
	h.AddString("X-Thing", "1")
	h.AddString("Retry-After", "2")
	if got := string(h.Get(RetryAfter)); got != "2" {
		t.Errorf("Get = %q", got)
	}
	if got := string(h.Find("x-thing")); got != "1" {
		t.Errorf("Find = %q", got)
	}
	h.Reset()
	if h.Len() != 0 || h.Has(RetryAfter) || len(h.AppendTo(nil)) != 0 {
		t.Error("Reset leaves fields behind")
	}
}

func TestAddPanicsOnWhatWouldSplitTheMessage(t *testing.T) {
	for _, c := range [][2]string{
		{"A", "b\r\nC: d"}, {"A", "b\n"}, {"A", "\r"}, {"A", "b\x00"}, {"", "b"}, {"A:", "b"}, {"A b", "c"}, {"A\r\nB", "c"},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Add(%q, %q) did not panic", c[0], c[1])
				}
			}()
			new(Header).AddString(c[0], c[1])
		}()
	}
	defer func() {
		if recover() == nil {
			t.Error("Del(Unknown) did not panic")
		}
	}()
	new(Header).Del(Unknown)
}

func TestWhatBreaksALineIsFoundEverywhere(t *testing.T) {
	for _, around := range []byte{'a', ' ', '\t', 0x0e, 0x80, 0xff} {
		for size := 1; size <= 24; size++ {
			for at := range size {
				for c := range 256 {
					s := []byte(strings.Repeat(string([]byte{around}), size))
					s[at] = byte(c)
					if got, want := breaksLine(s), c == '\r' || c == '\n' || c == 0; got != want {
						t.Fatalf("breaksLine(%q) = %v", s, got)
					}
				}
			}
		}
	}
}

func TestAddByIDAndAddAll(t *testing.T) {
	var common Header
	common.AddIDString(CacheControl, "no-store")
	common.AddString("X-Policy", "a;q=1")
	h := parseHeader(t, "Via: 1.0 a\r\n")
	h.AddIDString(Traceparent, "00-1")
	h.AddAll(&common)
	h.AddID(Via, []byte("1.1 b"))
	want := "Via: 1.0 a\r\ntraceparent: 00-1\r\nCache-Control: no-store\r\nX-Policy: a;q=1\r\nVia: 1.1 b\r\n"
	if got := string(h.AppendTo(nil)); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for name, value := range map[string]string{"via": "1.0 a", "cache-control": "no-store", "x-policy": "a;q=1"} {
		if got := string(h.Find(name)); got != value {
			t.Errorf("%s is %q, want %q", name, got, value)
		}
	}
	h.Del(CacheControl)
	if got := string(common.AppendTo(nil)); got != "Cache-Control: no-store\r\nX-Policy: a;q=1\r\n" {
		t.Errorf("the common fields have become %q", got)
	}
	f := func(what string, do func()) {
		defer func() {
			if recover() == nil {
				t.Error(what + " did not panic")
			}
		}()
		do()
	}
	f("AddID(Unknown)", func() { h.AddIDString(Unknown, "a") })
	f("AddID of a value with a line end", func() { h.AddIDString(Via, "a long enough value\r\nX: y") })
	f("AddAll of received fields", func() { new(Header).AddAll(parseHeader(t, "A: b\r\n")) })
	f("AddAll of deleted fields", func() { new(Header).AddAll(h) })
}

func TestDelHopByHop(t *testing.T) {
	f := func(name, raw, want string) {
		t.Helper()
		h := parseHeader(t, raw)
		h.DelHopByHop()
		if got := string(h.AppendTo(nil)); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	f("all of them", "Connection: close\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\n"+
		"Trailer: X\r\nTransfer-Encoding: chunked\r\nUpgrade: websocket\r\nProxy-Authenticate: Basic\r\n"+
		"Proxy-Authorization: Basic eA==\r\nProxy-Authentication-Info: x\r\nContent-Length: 5\r\nX: y\r\n", "X: y\r\n")
	f("named ones", "X-Hop: 1\r\nConnection: keep-alive, X-HOP ,, x-two\r\nX-Two: 2\r\nX-Three: 3\r\n", "X-Three: 3\r\n")
	f("two Connection fields", "Connection: a\r\nA: 1\r\nB: 2\r\nConnection: b\r\n", "")
	f("named known one", "Connection: Referer\r\nReferer: x\r\nHost: a\r\n", "Host: a\r\n")
	f("h2c settings", "Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: x\r\nUpgrade: h2c\r\n", "")
	f("empty Connection", "Connection:\r\nX: y\r\n", "X: y\r\n")
	kept := "Host: a\r\nContent-Type: b\r\nContent-Encoding: c\r\nAuthorization: d\r\nCache-Control: e\r\nCookie: f\r\n" +
		"Set-Cookie: g\r\nX-Forwarded-For: h\r\nX-Forwarded-Proto: i\r\nForwarded: j\r\nVia: k\r\nIf-None-Match: l\r\n" +
		"Range: m\r\nOrigin: n\r\nX-Request-Id: o\r\n"
	f("end-to-end ones stay", "Connection: Host, Content-Type, content-encoding, Authorization, Cache-Control, Cookie, "+
		"Set-Cookie, X-Forwarded-For, X-Forwarded-Proto, Forwarded, Via, If-None-Match, Range, Origin, X-Request-Id\r\n"+kept, kept)

	h := parseHeader(t, "Connection: X-User\r\nX-User: forged\r\n")
	h.AddString("X-User", "alice")
	h.DelHopByHop()
	if got := string(h.AppendTo(nil)); got != "X-User: alice\r\n" {
		t.Errorf("a client named an added field: %q is left", got)
	}
}

func TestHasToken(t *testing.T) {
	f := func(value, token string, want bool) {
		t.Helper()
		if got := HasToken([]byte(value), token); got != want {
			t.Errorf("HasToken(%q, %q) = %v", value, token, got)
		}
	}
	f("close", "close", true)
	f("Close", "close", true)
	f("keep-alive, Upgrade", "upgrade", true)
	f(" ,\t, a ,close\t", "close", true)
	f("closed", "close", false)
	f("clos e", "close", false)
	f("close;x", "close", false)
	f("", "close", false)
	f(",,,", "close", false)
}

func TestResetDropsWhatOneLargeMessageNeeded(t *testing.T) {
	var r Request
	r.AddString("A", strings.Repeat("x", keptBytes+1))
	for range keptFields + 1 {
		r.AddString("A", "b")
	}
	r.norm = make([]byte, 0, keptBytes+1)
	r.Reset()
	if cap(r.added) > keptBytes || cap(r.fields) > keptFields || cap(r.norm) > keptBytes {
		t.Errorf("kept %d bytes, %d fields, %d bytes", cap(r.added), cap(r.fields), cap(r.norm))
	}
}
