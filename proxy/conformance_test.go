package proxy

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"gateway/internal/origin"
)

// validating is an origin whose response has the tag "a" and these fields. It
// answers 304 to whoever has it, and 503 while broken.
func validating(t testing.TB, body string, broken *atomic.Bool, fields ...string) *recorder {
	t.Helper()
	o := &recorder{}
	o.Origin = origin.Start(t, func(c *origin.Conn) {
		for {
			q := c.Read()
			o.keep(q)
			switch {
			case broken.Load():
				c.Write("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\ndown")
			case strings.Contains(q.Head, "\r\nIf-None-Match: \"a\"\r\n"):
				c.Write("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n" + lines(fields) + "\r\n")
			case strings.HasPrefix(q.Head, "GET "):
				c.Write(fmt.Sprintf("HTTP/1.1 200 OK\r\nETag: \"a\"\r\n%sContent-Length: %d\r\n\r\n%s", lines(fields), len(body), body))
			default:
				c.Write("HTTP/1.1 204 No Content\r\n\r\n")
			}
		}
	})
	return o
}

func TestValidationAnswersTheClientsOwnConditions(t *testing.T) {
	var broken atomic.Bool
	o := validating(t, "hello", &broken, "Cache-Control: max-age=0")
	r := begin(t, app(o.Address), caching("true"))
	r.get("/").expect(t, 200, "hello", "stored")
	// RFC 9111 section 4.3.2: the origin's 304 is about what is stored, and the
	// client has something else.
	r.get("/", `If-None-Match: "z"`).expect(t, 200, "hello", "fwd=stale; fwd-status=304")
	if got := field(o.last(t).Head, "If-None-Match"); got != `"a"` {
		t.Errorf("validated with %s", got)
	}
	a := r.get("/", `If-None-Match: "z", "a"`)
	a.expect(t, 304, "", "fwd=stale; fwd-status=304")
	r.get("/", "Range: bytes=1-2").expect(t, 206, "el", "fwd-status=304")
	if got := field(o.last(t).Head, "Range"); got != "" {
		t.Errorf("the validation asked for a range: %s", got)
	}
}

func TestStaleResponsesAndFailures(t *testing.T) {
	f := func(control string, status int, body string) {
		t.Helper()
		var broken atomic.Bool
		o := validating(t, "hello", &broken, "Cache-Control: "+control)
		r := begin(t, app(o.Address), caching("true"))
		r.get("/").expect(t, 200, "hello", "stored")
		broken.Store(true)
		r.get("/").expect(t, status, body, "fwd=stale; fwd-status=503")
		broken.Store(false)
		r.get("/").expect(t, 200, "hello", "fwd=stale; fwd-status=304")
	}
	f("max-age=0, stale-if-error=60", 200, "hello")
	f("max-age=0", 503, "down")
	f("max-age=0, must-revalidate, stale-if-error=60", 503, "down")
	f("s-maxage=0, stale-if-error=60", 503, "down")
	f("no-cache, stale-if-error=60", 503, "down")
}

func TestUnsafeMethodsGoThroughAndInvalidate(t *testing.T) {
	var broken atomic.Bool
	o := validating(t, "hello", &broken, "Cache-Control: max-age=60")
	r := begin(t, app(o.Address), caching("true"))
	for i, method := range []string{"POST", "PUT", "DELETE", "PATCH", "FOO"} {
		r.get("/").expect(t, 200, "hello", "stored")
		r.get("/").expect(t, 200, "hello", "hit")
		broken.Store(true) // an error changes nothing
		if a := r.do(method + " / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n"); a.StatusCode != 503 {
			t.Errorf("%s: %d", method, a.StatusCode)
		}
		r.get("/").expect(t, 200, "hello", "hit")
		broken.Store(false)
		if a := r.do(method + " / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n"); a.StatusCode != 204 {
			t.Errorf("%s: %d", method, a.StatusCode)
		}
		if n := o.Requests(); n != 3*(i+1) {
			t.Errorf("%s: %d requests at the origin, want %d", method, n, 3*(i+1))
		}
	}
}

func TestDirectivesArePassedOn(t *testing.T) {
	var broken atomic.Bool
	o := validating(t, "hello", &broken, "Cache-Control: max-age=60, foo=\"bar\"", "CDN-Cache-Control: max-age=60")
	r := begin(t, app(o.Address), caching("true"))
	a := r.get("/", "Cache-Control: max-stale=5, baz", "Pragma: x")
	a.expect(t, 200, "hello", "stored")
	if got := o.last(t).Head; field(got, "Cache-Control") != "max-stale=5, baz" || field(got, "Pragma") != "x" {
		t.Errorf("the origin got %q", got)
	}
	for range 2 { // from the origin and from the cache
		if a.Header.Get("Cache-Control") != `max-age=60, foo="bar"` {
			t.Errorf("fields %v", a.Header)
		}
		a = r.get("/")
	}
	a.expect(t, 200, "hello", "hit")
}

// An origin that declares a range longer than what it sends must not make the
// gateway answer with what else is in its memory.
func TestPartialResponsesOfAnotherLengthGoThroughAsTheyCame(t *testing.T) {
	o := record(t, "HTTP/1.1 206 Partial Content\r\nCache-Control: max-age=60\r\nContent-Range: bytes 4-9/10\r\nContent-Length: 5\r\n\r\n01234")
	r := begin(t, app(o.Address), caching("true"))
	for i, value := range []string{"bytes=-5", "bytes=5-9", "bytes=4-9", "bytes=9-", "bytes=4-4,9-9"} {
		a := r.get("/", "Range: "+value)
		a.expect(t, 206, "01234", "fwd-status=206; detail=range")
		if got := a.Header.Get("Content-Range"); got != "bytes 4-9/10" {
			t.Errorf("%s: Content-Range %q", value, got)
		}
		if n := o.Requests(); int(n) != i+1 {
			t.Errorf("%s: %d requests at the origin", value, n)
		}
	}
}

func TestContentRangeOfCompleteResponses(t *testing.T) {
	o := record(t, cacheable("hello", `ETag: "a"`, "Content-Range: pages 1-3/5"))
	r := begin(t, app(o.Address), caching("true"))
	for _, want := range []string{"stored", "hit"} {
		a := r.get("/")
		a.expect(t, 200, "hello", want)
		if got := a.Header.Values("Content-Range"); len(got) != 1 || got[0] != "pages 1-3/5" {
			t.Errorf("%s: Content-Range %q", want, got)
		}
	}
	f := func(status int, body, want string, field string) {
		t.Helper()
		a := r.get("/", field)
		a.expect(t, status, body, "hit")
		if got := strings.Join(a.Header.Values("Content-Range"), ", "); got != want {
			t.Errorf("%s: Content-Range %q, want %q", field, got, want)
		}
	}
	f(206, "ell", "bytes 1-3/5", "Range: bytes=1-3")
	f(416, "", "bytes */5", "Range: bytes=9-")
	f(304, "", "", `If-None-Match: "a"`)
}
