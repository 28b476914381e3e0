package accesslog

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"gateway/internal/clock"
)

// example is a record with every field set.
func example() *Record {
	start := clock.Mono()
	ms := int64(time.Millisecond)
	return &Record{
		Start: start, Forwarded: start + ms, FirstByte: start + 3*ms, Ended: start + 7*ms + 499,
		Route: "users", Method: []byte("GET"), Host: []byte("api.example.com"), Path: []byte("/users"), Query: []byte("page=2"),
		Protocol: "HTTP/1.1", UserAgent: []byte("curl/8.0"), Referer: []byte("https://example.com/"),
		Status: 200, Reason: "done", Client: netip.MustParseAddr("203.0.113.9"), Peer: netip.MustParseAddrPort("[2001:db8::1]:5123"),
		Secure: true, Server: "10.0.0.2:8080", Attempts: 2, BytesIn: 11, BytesOut: 512,
		ID: []byte("r-1"), TraceID: []byte("4bf92f3577b34da6a3ce929d0e0e4736"),
	}
}

var complete = &Logger{query: true}

func TestJSONLine(t *testing.T) {
	r := example()
	line := string(complete.appendJSONLine(nil, r))
	var head struct{ Time time.Time }
	if err := json.Unmarshal([]byte(line), &head); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	if off := time.Since(head.Time); off < -time.Second || off > time.Minute {
		t.Errorf("time is %v", head.Time)
	}
	_, rest, _ := strings.Cut(line, `Z",`)
	if want := `"route":"users","method":"GET","host":"api.example.com","path":"/users","query":"page=2",` +
		`"protocol":"HTTP/1.1","status":200,"reason":"done","client":"203.0.113.9","peer":"[2001:db8::1]:5123","tls":true,` +
		`"server":"10.0.0.2:8080","attempts":2,"duration":0.007000,"duration_before":0.001000,"duration_origin":0.002000,` +
		`"duration_body":0.004000,"bytes_in":11,"bytes_out":512,"request_id":"r-1",` +
		`"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","user_agent":"curl/8.0","referer":"https://example.com/"}` + "\n"; rest != want {
		t.Errorf("got\n%s\nwant\n%s", rest, want)
	}

	line = string(complete.appendJSONLine(nil, &Record{}))
	_, rest, _ = strings.Cut(line, `Z",`)
	if want := `"status":0,"tls":false,"attempts":0,"duration":0.000000,"bytes_in":0,"bytes_out":0}` + "\n"; `"`+strings.TrimPrefix(rest, `"`) != want {
		t.Errorf("empty record: got\n%s\nwant\n%s", rest, want)
	}
	if line = string(complete.appendJSONLine(nil, &Record{Reason: "rate_limited", Limit: "api"})); !strings.Contains(line, `"reason":"rate_limited","limit":"api",`) {
		t.Errorf("the policy that refused is missing: %s", line)
	}
	if line = string((&Logger{}).appendJSONLine(nil, r)); strings.Contains(line, "page=2") {
		t.Errorf("the query is written although that is off: %s", line)
	}
}

func TestTextLine(t *testing.T) {
	r := example()
	line := string(complete.appendTextLine(nil, r))
	want := `203.0.113.9 - - [` + clock.WallAt(r.Start).Format("02/Jan/2006:15:04:05 +0000") +
		`] "GET /users?page=2 HTTP/1.1" 200 512 "https://example.com/" "curl/8.0" time=0.007000/0.001000/0.002000/0.004000` +
		` reason="done" route="users" host="api.example.com" server="10.0.0.2:8080" attempts=2 in=11 tls=on` +
		` peer="[2001:db8::1]:5123" id="r-1" trace="4bf92f3577b34da6a3ce929d0e0e4736"` + "\n"
	if line != want {
		t.Errorf("got\n%s\nwant\n%s", line, want)
	}
	line = string(complete.appendTextLine(nil, &Record{}))
	if !strings.HasPrefix(line, "- - - [") || !strings.HasSuffix(line, `] "-" 0 0 "-" "-" time=0.000000/-/-/- reason="-" route="-"`+
		` host="-" server="-" attempts=0 in=0 tls=off peer="-" id="-" trace="-"`+"\n") {
		t.Errorf("empty record: %s", line)
	}
	if line = string(complete.appendTextLine(nil, &Record{Reason: "rate_limited", Limit: "api"})); !strings.Contains(line, ` reason="rate_limited" limit="api" route=`) {
		t.Errorf("the policy that refused is missing: %s", line)
	}
	if line = string((&Logger{}).appendTextLine(nil, r)); strings.Contains(line, "page=2") {
		t.Errorf("the query is written although that is off: %s", line)
	}
}

func TestPhasesAddUpToTheWhole(t *testing.T) {
	f := func(r Record, whole, before, origin, body time.Duration) {
		t.Helper()
		if w, b, o, d := r.phases(); w != whole || b != before || o != origin || d != body {
			t.Errorf("%+v: %d %d %d %d; want %d %d %d %d", r, w, b, o, d, whole, before, origin, body)
		}
	}
	f(Record{Start: 10, Forwarded: 11, FirstByte: 13, Ended: 17}, 7, 1, 2, 4)
	f(Record{Start: 10, Forwarded: 11, Ended: 17}, 7, 1, 6, -1)
	f(Record{Start: 10, Ended: 17}, 7, -1, -1, -1)
	f(Record{Start: 10, Ended: 9}, 0, -1, -1, -1)
	f(Record{Start: 10, Forwarded: 9, FirstByte: 8, Ended: 7}, 0, 0, 0, 2)
}

func TestZonesOfAddressesAreNotWritten(t *testing.T) {
	r := &Record{Client: netip.MustParseAddr(`fe80::1%"},{`), Peer: netip.AddrPortFrom(netip.MustParseAddr(`fe80::1%"},{`), 5)}
	for _, line := range [][]byte{complete.appendJSONLine(nil, r), complete.appendTextLine(nil, r)} {
		if bytes.Contains(line, []byte("%")) || !bytes.Contains(line, []byte(`"[fe80::1]:5"`)) {
			t.Errorf("got %s", line)
		}
	}
}

func TestTextsOfClientsAreCutAtTheirLimit(t *testing.T) {
	f := func(s string, limit int, want string) {
		t.Helper()
		if got := string(appendJSON(nil, s, limit)); got != want {
			t.Errorf("appendJSON(%q, %d) = %s; want %s", s, limit, got, want)
		}
	}
	f("abcdef", 6, `"abcdef"`)
	f("abcdefg", 6, `"abcdef..."`)
	f("abcdeü", 6, `"abcde..."`)
	f("abcd\U0001F600", 7, `"abcd..."`)
	f("abcd\x80\x80\x80\x80\x80", 8, `"abcd\uFFFD\uFFFD\uFFFD\uFFFD..."`)

	long := bytes.Repeat([]byte{0}, 100_000)
	r := &Record{Method: long, Host: long, Path: long, Query: long, UserAgent: long, Referer: long, ID: long, TraceID: long}
	for _, line := range [][]byte{complete.appendJSONLine(nil, r), complete.appendTextLine(nil, r)} {
		if len(line) > 40_000 {
			t.Errorf("a line has %d bytes", len(line))
		}
	}
}

// replaced is s as a reader of JSON sees it: every byte that is not UTF-8
// becomes U+FFFD.
func replaced(s string) string { return string([]rune(s)) }

func FuzzClientsCannotForgeLines(f *testing.F) {
	for _, s := range []string{"", "/users", `"},{"status":200`, "a\r\nb", "\x00\x1b[2J\x7f", "\xff\xfe\xc3", "\u2028\u202e", "\U0001F600", `\u0000\`, "\xed\xa0\x80", strings.Repeat("ü", 300)} {
		f.Add(s, s, s)
	}
	f.Fuzz(func(t *testing.T, path, agent, name string) {
		r := &Record{
			Method: []byte(agent), Host: []byte(path), Path: []byte(path), Query: []byte(agent), UserAgent: []byte(agent), Referer: []byte(path),
			Route: name, Reason: name, Server: name, Protocol: name, ID: []byte(agent), TraceID: []byte(path),
		}
		line := complete.appendJSONLine(nil, r)
		wantPrintableLine(t, line)
		var got map[string]any
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		for key, want := range map[string]struct {
			text  string
			limit int
		}{"path": {path, maxPath}, "user_agent": {agent, maxAgent}, "host": {path, maxHost}, "query": {agent, maxQuery},
			"method": {agent, maxMethod}, "referer": {path, maxReferer}, "server": {name, maxName}, "request_id": {agent, maxID}} {
			text, wasCut := cut(want.text, want.limit)
			if text = replaced(text); wasCut {
				text += "..."
			}
			if found, _ := got[key].(string); found != text {
				t.Fatalf("%s is %q; want %q", key, found, text)
			}
		}

		line = complete.appendTextLine(nil, r)
		wantPrintableLine(t, line)
		if quotes := bytes.Count(line, []byte{'"'}); quotes != 2*10 {
			t.Fatalf("%d quotes: %s", quotes, line)
		}
	})
}

func wantPrintableLine(t *testing.T, line []byte) {
	t.Helper()
	for i, c := range line {
		if last := i == len(line)-1; last != (c == '\n') || !last && (c < ' ' || c > '~') {
			t.Fatalf("byte %d is %q: %q", i, c, line)
		}
	}
}

func TestSampleIsTheShareThatWasAskedForAndDependsOnTheID(t *testing.T) {
	f := func(sample float64, byID bool) {
		t.Helper()
		l := &Logger{sample: uint64(sample * (1 << 32))}
		const n = 20000
		kept := 0
		for i := range n {
			r := &Record{Start: int64(i) * 1_000_003, Status: 200}
			if byID {
				r.ID = []byte("0190a6c2-4e00-7000-8000-" + time.Duration(i).String())
			}
			if l.wants(r) {
				kept++
			}
			if again := l.wants(&Record{Start: r.Start, ID: r.ID, Status: 404}); byID && again != (hash(r) < l.sample) {
				t.Fatal("two records with the same id are treated differently")
			}
		}
		if share := float64(kept) / n; share < sample-0.02 || share > sample+0.02 {
			t.Errorf("sample %v, by id %v: %v was kept", sample, byID, share)
		}
	}
	for _, byID := range []bool{true, false} {
		f(0, byID)
		f(0.1, byID)
		f(0.5, byID)
		f(1, byID)
	}
	l := &Logger{sample: 0}
	if l.wants(&Record{Status: 499}) || !l.wants(&Record{Status: 500}) || !l.wants(&Record{Status: 200, Failed: true}) {
		t.Error("failures, and failures only, are written whatever the sample")
	}
}

func TestOptionsReadAnOutputOrATable(t *testing.T) {
	var o Options
	if err := o.UnmarshalTOML("off"); err != nil || o.Output != "off" || o.Sample != 100 || o.Queue != 8192 || o.Format != "json" || !o.Query {
		t.Errorf("got %+v, %v", o, err)
	}
	if err := o.UnmarshalTOML(map[string]any{"format": "text"}); err != nil {
		t.Errorf("table: %v", err)
	}
	if err := o.UnmarshalTOML(int64(5)); err == nil {
		t.Error("a number is accepted")
	}
	problems := 0
	(&Options{}).Check(func(key, problem string) { problems++ })
	if problems != 1 {
		t.Errorf("%d problems with an empty output", problems)
	}
}
