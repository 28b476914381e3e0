package cache

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"strings"
	"testing"
	"time"

	"gateway/wire"
)

const fresh = "Cache-Control: max-age=60"

func TestRFC9111_3_1_FieldsThatAreStored(t *testing.T) {
	y := newPlay(t, policy())
	y.fill("GET /", nil, 200, "x", "cONTENT-type: text/plain", fresh, "Connection: Foo, close", "Foo: 1", "Keep-Alive: 1",
		"Proxy-Authenticate: x", "Proxy-Authentication-Info: x", "Proxy-Connection: x", "TE: x", "Trailer: x", "Upgrade: x",
		"Content-Length: 1", "Age: 5", "X: 1", "X: 2", `ETag: "a"`)
	y.look("GET /")
	want := "cONTENT-type: text/plain\r\n" + fresh + "\r\nX: 1\r\nX: 2\r\nETag: \"a\"\r\n" + date + "\r\n"
	if got := string(y.l.Entry.Head()); got != want {
		t.Errorf("stored:\n%s", got)
	}
	if string(y.l.Entry.ETag()) != `"a"` || y.l.Terms.Age(y.now) != 5*second {
		t.Errorf("%q, %d", y.l.Entry.ETag(), y.l.Terms.Age(y.now))
	}
	// Content-Range describes a 206 and is made anew; elsewhere it is one of the
	// fields received.
	for _, status := range []int{200, 416} {
		y.fill("GET /r", nil, status, "x", fresh, "Content-Range: bytes */9")
		if y.look("GET /r"); !strings.Contains(string(y.l.Entry.Head()), "Content-Range: bytes */9\r\n") {
			t.Errorf("%d stored:\n%s", status, y.l.Entry.Head())
		}
	}
	y.fill("GET /r", []string{"Range: bytes=0-0"}, 206, "x", fresh, "Content-Range: bytes 0-0/9")
	if y.look("GET /r", "Range: bytes=0-0"); strings.Contains(string(y.l.Entry.Head()), "Content-Range") {
		t.Errorf("206 stored:\n%s", y.l.Entry.Head())
	}
	// RFC 9111 sections 5.2.2.4 and 5.2.2.7.
	y.fill("GET /q", nil, 200, "x", `Cache-Control: max-age=60, no-cache="A,b", private="c"`, "a: 1", "B: 2", "C: 3", "D: 4", date)
	y.look("GET /q")
	if got := string(y.l.Entry.Head()); strings.Contains(got, "a: 1") || strings.Contains(got, "B: 2") || strings.Contains(got, "C: 3") ||
		!strings.Contains(got, "D: 4") || strings.Count(got, "Date") != 1 {
		t.Errorf("stored:\n%s", got)
	}
}

func TestRFC9111_4_3_2_ConditionalRequests(t *testing.T) {
	y := newPlay(t, policy())
	modified := "Last-Modified: Sun, 06 Nov 1994 08:00:00 GMT"
	y.fill("GET /strong", nil, 200, "x", fresh, date, `ETag: "a,b"`, modified)
	y.fill("GET /weak", nil, 200, "x", fresh, date, `ETag: W/"w"`)
	y.fill("GET /none", nil, 200, "x", fresh, date)
	y.fill("GET /404", nil, 404, "x", fresh, date, `ETag: "a"`)
	f := func(want Answer, path string, lines ...string) {
		t.Helper()
		if v := y.look("GET "+path, lines...); v != Hit || y.l.Answer != want {
			t.Errorf("%s %q: verdict %d, answer %d, want %d", path, lines, v, y.l.Answer, want)
		}
	}
	yes, no := AnswerNotModified, AnswerWhole
	f(yes, "/strong", `If-None-Match: "a,b"`)
	f(yes, "/strong", `If-None-Match: "x" , W/"a,b"`)
	f(yes, "/strong", `If-None-Match: "x"`, `If-None-Match: "a,b"`)
	f(yes, "/strong", "If-None-Match: *")
	f(no, "/strong", `If-None-Match: "a"`)
	f(no, "/strong", `If-None-Match: a,b`)
	f(yes, "/weak", `If-None-Match: "w"`)
	f(yes, "/weak", `If-None-Match: W/"w"`)
	f(no, "/none", `If-None-Match: ""`)
	f(yes, "/none", "If-None-Match: *")
	f(no, "/404", `If-None-Match: "a"`)
	same, before := "If-Modified-Since: Sun, 06 Nov 1994 08:00:00 GMT", "If-Modified-Since: Sun, 06 Nov 1994 07:59:59 GMT"
	f(yes, "/strong", same)
	f(no, "/strong", before)
	f(no, "/strong", same, `If-None-Match: "x"`) // the tag goes before
	f(yes, "/strong", before, `If-None-Match: "a,b"`)
	f(no, "/strong", "If-Modified-Since: 0")
	f(yes, "/none", "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT") // Date stands in
	f(no, "/none", same)
	// The others are the origin's.
	for _, line := range []string{`If-Match: "a"`, same[:3] + "Unmodified-Since: Sun, 06 Nov 1994 08:00:00 GMT"} {
		if v := y.look("GET /strong", line); v != Bypass {
			t.Errorf("%s: %d", line, v)
		}
	}
}

func TestRFC9111_4_3_1_AppendConditions(t *testing.T) {
	y := newPlay(t, policy())
	y.fill("GET /", nil, 200, "x", "Cache-Control: max-age=0", `ETag: W/"a"`, "Last-Modified: Sunday, 06-Nov-94 08:00:00 GMT")
	if v := y.look("GET /"); v != Validate {
		t.Fatal(v)
	}
	want := "If-None-Match: W/\"a\"\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:00:00 GMT\r\n"
	if got := string(y.l.Entry.AppendConditions(nil)); got != want {
		t.Error(got)
	}
}

func TestEntriesRememberHowLongTheOriginTook(t *testing.T) {
	y := newPlay(t, policy())
	lead := func(took time.Duration, asked []string) (*Flight, func(status int, answer ...string) *Origin) {
		q := ask(t, "GET /", asked...)
		y.c.Lookup(&y.l, y.p, q, urlOf(q), nil, y.now)
		_, f, _ := y.c.Begin(&y.l, q, y.now, true)
		return f, func(status int, answer ...string) *Origin {
			o := y.origin(status, append(answer, fresh, `ETag: "a"`)...)
			o.Requested = o.Received - int64(took)
			return o
		}
	}
	want := func(what string, want time.Duration) {
		t.Helper()
		y.look("GET /")
		if got := y.l.Entry.Took(); got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
		y.l.Release()
	}
	part := func(took time.Duration, span, body string) {
		t.Helper()
		f, o := lead(took, []string{"Range: bytes=" + span})
		if reason := f.Whole(o(206, "Content-Range: bytes "+span+"/6"), []byte(body)); reason != Storable {
			t.Fatal(reason)
		}
	}
	part(2*time.Second, "0-2", "abc")
	part(3*time.Second, "3-5", "def")
	y.expect(Hit, "abcdef", "GET /")
	want("two parts", 5*time.Second)

	// What a validation takes says nothing about the response.
	y.pass(100)
	f, o := lead(time.Minute, nil)
	e, _, ok := f.NotModified(&y.l.Entry, o(304))
	e.Release()
	y.l.Release()
	if !ok {
		t.Fatal("not validated")
	}
	want("validated", 5*time.Second)

	for took, remembered := range map[time.Duration]time.Duration{
		-time.Second: 0, 1500 * time.Nanosecond: time.Microsecond, time.Hour: time.Hour, 1000 * time.Hour: time.Hour,
	} {
		y.c.PurgeAll(false)
		f, o := lead(took, nil)
		if reason := f.Whole(o(200, "X: 1"), []byte("x")); reason != Storable {
			t.Fatal(reason)
		}
		want(took.String(), remembered)
	}
}

func TestRFC9111_4_3_4_NotModifiedUpdatesWhatIsStored(t *testing.T) {
	y := newPlay(t, policy())
	y.fill("GET /", nil, 200, "body", fresh, date, `ETag: "a"`, "X: old", "X: older", "Y: stays", "Content-Encoding: gzip")
	y.pass(100)
	validate := func(answer ...string) (Entry, NoStoreReason, bool) {
		t.Helper()
		q := ask(t, "GET /")
		if v := y.look("GET /"); v != Validate {
			t.Fatal("verdict", v)
		}
		_, f, _ := y.c.Begin(&y.l, q, y.now, true)
		e, reason, ok := f.NotModified(&y.l.Entry, y.origin(304, answer...))
		if !ok {
			f.Fail(io.ErrUnexpectedEOF)
		}
		y.l.Entry.Release()
		return e, reason, ok
	}
	if _, _, ok := validate(`ETag: "b"`); ok {
		t.Error("a 304 with another tag validated")
	}
	e, reason, ok := validate(`ETag: "a"`, "X: new", "X: newer", "Z: 1", "Content-Length: 9", "Content-Encoding: br", "Connection: Z")
	head := string(e.Head())
	if !ok || reason != Storable || string(e.Body()) != "body" || !strings.Contains(head, "X: new\r\nX: newer\r\n") ||
		strings.Contains(head, "old") || !strings.Contains(head, "Y: stays") || !strings.Contains(head, "gzip") {
		t.Errorf("%v %s:\n%s", ok, reason, head)
	}
	if !strings.Contains(head, "Date: Sun, 06 Nov 1994 08:51:17 GMT") {
		t.Errorf("without a Date in the 304:\n%s", head)
	}
	e.Release()
	y.expect(Hit, "body", "GET /")
	y.pass(100)
	e, reason, _ = validate("Cache-Control: no-store")
	if reason != ResponseNoStore || string(e.Body()) != "body" {
		t.Error(reason)
	}
	e.Release()
	y.expect(Miss, "", "GET /")
}

func TestRFC9111_4_3_5_HeadUpdatesWhatIsStored(t *testing.T) {
	y := newPlay(t, policy())
	f := func(want Verdict, declared int64, answer ...string) {
		t.Helper()
		y.fill("GET /", nil, 200, "body", fresh, `ETag: "a"`, "X: old")
		y.pass(100)
		q := ask(t, "HEAD /")
		if v := y.look("HEAD /"); v != Validate {
			t.Fatal("verdict", v)
		}
		_, fl, _ := y.c.Begin(&y.l, q, y.now, true)
		fl.Head(&y.l.Entry, y.origin(200, answer...), declared)
		y.l.Entry.Release()
		y.expect(want, "body", "GET /")
		y.pass(100)
		y.c.PurgeURL([]*Policy{y.p}, urlOf(q), false)
	}
	f(Hit, 4, fresh, `ETag: "a"`, "X: new")
	f(Hit, -1, fresh, `ETag: "a"`)
	f(Miss, 5, fresh, `ETag: "a"`)
	f(Miss, 4, fresh, `ETag: "b"`)
	f(Miss, 4, fresh)
	y.fill("GET /", nil, 200, "body", fresh)
	y.expect(Hit, "body", "HEAD /")
}

func TestRFC9110_14_RangesOfWholeResponses(t *testing.T) {
	y := newPlay(t, policy())
	y.fill("GET /", nil, 200, "0123456789", fresh, date, `ETag: "a"`, "Last-Modified: Sun, 06 Nov 1994 08:00:00 GMT", "Content-Type: text/plain")
	f := func(want string, lines ...string) {
		t.Helper()
		if v := y.look("GET /", lines...); v != Hit {
			t.Fatal("verdict", v)
		}
		got := ""
		switch y.l.Answer {
		case AnswerWhole:
			got = "whole"
		case AnswerUnsatisfied:
			got = "416"
		case AnswerNotModified:
			got = "304"
		case AnswerRanges:
			for _, s := range y.l.Ranges.List() {
				got += string(y.l.Entry.Part(s)) + " "
			}
		}
		if strings.TrimSpace(got) != want {
			t.Errorf("%q: %s, want %s", lines, got, want)
		}
	}
	f("012", "Range: bytes=0-2")
	f("012", "Range: BYTES=0-2")
	f("789", "Range: bytes=-3")
	f("0123456789", "Range: bytes=-30")
	f("56789", "Range: bytes=5-")
	f("56789", "Range: bytes=5-99999999999999999999999")
	f("01 89", "Range: bytes= 0-1 , -2,")
	f("89 01", "Range: bytes=8-9,0-1")
	f("01", "Range: bytes=0-1,99-")
	f("416", "Range: bytes=10-")
	f("416", "Range: bytes=10-11,-0")
	for _, value := range []string{"bytes=", "bytes=a-b", "bytes=2-1", "bytes=1", "bytes=-", "bytes 0-1", "items=0-1", "bytes=0-1,x",
		"bytes=0-9,0-9", "bytes=" + strings.Repeat("0-0,", 17)} {
		f("whole", "Range: "+value)
	}
	f("whole", "Range: bytes=0-1", "Range: bytes=0-1")
	f("01", "Range: bytes=0-1", `If-Range: "a"`)
	f("whole", "Range: bytes=0-1", `If-Range: "b"`)
	f("whole", "Range: bytes=0-1", `If-Range: W/"a"`)
	f("01", "Range: bytes=0-1", "If-Range: Sun, 06 Nov 1994 08:00:00 GMT")
	f("whole", "Range: bytes=0-1", "If-Range: Sun, 06 Nov 1994 08:00:01 GMT")
	f("304", "Range: bytes=0-1", `If-None-Match: "a"`)

	y.look("GET /", "Range: bytes=0-1,5-")
	m := y.l.Entry.Multipart(&y.l.Ranges, []byte("text/plain"))
	var all []byte
	want := m.Len()
	for {
		piece, err := m.Next()
		if err == io.EOF {
			break
		}
		all = append(all, piece...)
	}
	if int64(len(all)) != want {
		t.Errorf("%d bytes, %d announced", len(all), want)
	}
	_, params, err := mime.ParseMediaType(MultipartType)
	if err != nil {
		t.Fatal(err)
	}
	r := multipart.NewReader(bytes.NewReader(all), params["boundary"])
	for _, part := range []struct{ body, span string }{{"01", "bytes 0-1/10"}, {"56789", "bytes 5-9/10"}} {
		p, err := r.NextPart()
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(p)
		if string(body) != part.body || p.Header.Get("Content-Range") != part.span || p.Header.Get("Content-Type") != "text/plain" {
			t.Errorf("%q, %v", body, p.Header)
		}
	}
	if _, err := r.NextPart(); err != io.EOF {
		t.Error(err)
	}
	if got := string(AppendUnsatisfied(nil, 10)); got != "bytes */10" {
		t.Error(got)
	}
}

func TestRFC9111_3_3_And_3_4_PartialResponses(t *testing.T) {
	y := newPlay(t, policy())
	part := func(first, last int, etag string) {
		t.Helper()
		span := fmt.Sprintf("bytes %d-%d/10", first, last)
		if got := y.fill("GET /", []string{fmt.Sprintf("Range: bytes=%d-%d", first, last)}, 206, "0123456789"[first:last+1],
			fresh, "Content-Range: "+span, "ETag: "+etag); got != Storable {
			t.Fatal(got)
		}
	}
	has := func(want Verdict, value string) {
		t.Helper()
		if got := y.look("GET /", "Range: "+value); got != want {
			t.Errorf("%s: %d, want %d", value, got, want)
		}
		if want == Hit && y.l.Answer != AnswerRanges {
			t.Errorf("%s: answer %d", value, y.l.Answer)
		}
	}
	for _, body := range []string{"234", "23456"} {
		if got := y.fill("GET /", []string{"Range: bytes=2-5"}, 206, body, fresh, "Content-Range: bytes 2-5/10"); got != BadRange {
			t.Errorf("%d bytes of four: %s", len(body), got)
		}
	}
	part(2, 5, `"a"`)
	has(Hit, "bytes=2-5")
	has(Hit, "bytes=3-4")
	has(Miss, "bytes=0-3")
	if y.l.Forward != ForwardPartial {
		t.Error(y.l.Forward)
	}
	has(Miss, "bytes=-1")
	y.expect(Miss, "", "GET /") // a part is not the whole
	y.expect(Miss, "", "HEAD /")
	part(5, 7, `"a"`) // overlaps
	has(Hit, "bytes=2-7")
	part(0, 1, `"a"`) // touches
	has(Hit, "bytes=0-7")
	part(0, 7, `"a"`) // again
	part(8, 9, `"a"`) // the whole is there
	y.expect(Hit, "0123456789", "GET /")
	has(Hit, "bytes=-1")
	y.c.PurgeURL([]*Policy{y.p}, urlOf(ask(t, "GET /")), false)
	part(2, 5, `"a"`)
	part(6, 7, `"b"`) // another version
	has(Miss, "bytes=2-5")
	has(Hit, "bytes=6-7")
	part(2, 5, `W/"c"`)
	part(6, 7, `W/"c"`) // weak tags do not combine
	has(Miss, "bytes=2-5")
	part(0, 1, `W/"c"`)
	part(4, 5, `W/"c"`) // a gap
	has(Miss, "bytes=0-1")
}

func TestRFC9111_5_2_1_7_OnlyIfCached(t *testing.T) {
	y := newPlay(t, policy())
	y.fill("GET /", nil, 200, "x", fresh, `ETag: "a"`)
	y.expect(Hit, "x", "GET /", "Cache-Control: only-if-cached")
	y.expect(Unavailable, "", "GET /other", "Cache-Control: only-if-cached")
	y.pass(100)
	y.expect(Unavailable, "x", "GET /", "Cache-Control: only-if-cached")
	y.expect(HitStale, "x", "GET /", "Cache-Control: only-if-cached, max-stale")
}

func TestRFC10008_QueryIsKeyedByItsBody(t *testing.T) {
	y := newPlay(t, policy())
	one, two := [DigestSize]byte{1}, [DigestSize]byte{2}
	q := ask(t, "QUERY /", "Content-Length: 5")
	look := func(d *[DigestSize]byte) Verdict {
		return y.c.Lookup(&y.l, y.p, q, urlOf(q), d, y.now)
	}
	if v := look(&one); v != Miss {
		t.Fatal(v)
	}
	_, f, _ := y.c.Begin(&y.l, q, y.now, true)
	if reason := f.Whole(y.origin(200, fresh), []byte("answer")); reason != Storable {
		t.Fatal(reason)
	}
	if v := look(&one); v != Hit {
		t.Error(v)
	}
	if v := look(&two); v != Miss {
		t.Error(v)
	}
	if v := look(nil); v != Bypass {
		t.Error(v)
	}
	y.expect(Miss, "", "GET /")
	y.c.Invalidate([]*Policy{y.p}, wire.MethodPost, urlOf(q), 204, fields(t), nil)
	if v := look(&one); v != Miss {
		t.Error("after an unsafe method:", v)
	}
}

func FuzzRange(f *testing.F) {
	for _, s := range []string{"bytes=0-1", "bytes=-5,3-", "bytes=0-0,-1", "bytes=5-1", "items=0-1"} {
		f.Add(s, "bytes 0-1/3", int64(10))
	}
	f.Fuzz(func(t *testing.T, s, span string, total int64) {
		if total < -1 || total > 1<<40 {
			return
		}
		var r Ranges
		if parseRange(&r, []byte(s), total) == RangeSatisfied {
			for _, got := range r.List() {
				if got.First < 0 || got.Last < got.First || total >= 0 && got.Last >= total {
					t.Fatalf("%q of %d: %v", s, total, r.List())
				}
			}
		}
		h := new(wire.Header)
		if h.ParseFields([]byte("Content-Range: "+span+"\r\n"), 0) == wire.NoFault {
			if c, ok := contentRange(h); ok && (c.First < 0 || c.Last < c.First || c.Total >= 0 && c.Last >= c.Total) {
				t.Fatalf("%q: %v", span, c)
			}
		}
	})
}

func FuzzDecodeEntry(f *testing.F) {
	y := &play{TB: f, c: newCache(f), p: policy(), now: epoch}
	y.fill("GET /", []string{"Foo: 1"}, 200, "body", fresh, `ETag: "a"`, "Vary: foo", "Surrogate-Key: a b")
	y.look("GET /", "Foo: 1")
	f.Add(bytes.Clone(y.l.Entry.blob))
	y.fill("GET /p", []string{"Range: bytes=0-3"}, 206, "body", fresh, `ETag: "a"`, "Content-Range: bytes 0-3/9")
	y.look("GET /p", "Range: bytes=0-3")
	f.Add(bytes.Clone(y.l.Entry.blob))
	y.l.Release()
	f.Fuzz(func(t *testing.T, b []byte) {
		decodeLists(b)
		e, ok := DecodeEntry(b)
		if !ok {
			return
		}
		// Whatever was accepted can be used.
		h := fields(t, `If-None-Match: "x"`, "Range: bytes=0-1,-1")
		e.NotModified(h)
		var r Ranges
		if e.Ranges(&r, h) == RangeSatisfied {
			for _, s := range r.List() {
				e.Part(s)
			}
		}
		terms := e.Terms()
		terms.Dead()
		var q RequestControl
		terms.May(&q, epoch, false)
		var p purges
		p.active.Store(true)
		p.outdated(e)
		e.AppendConditions(nil)
		appendVariant(nil, e.vary(), h)
	})
}
