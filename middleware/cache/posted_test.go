package cache

import (
	"testing"

	"gateway/wire"
)

// post is a POST that has reached the origin, and what becomes of the answer.
// meanwhile happens before the origin has answered.
func (y *play) post(line string, asked []string, status int, body string, meanwhile func(), answer ...string) (stored bool) {
	y.Helper()
	q := ask(y, line, asked...)
	if v := y.c.Lookup(&y.l, y.p, q, urlOf(q), nil, y.now); v != Bypass {
		y.Fatalf("%s: verdict %d", line, v)
	}
	if meanwhile != nil {
		l := y.l
		y.l = Lookup{}
		meanwhile()
		y.l = l
	}
	o := y.origin(status, answer...)
	f := y.c.Posted(&y.l, q, urlOf(q), o)
	y.c.Invalidate([]*Policy{y.p}, q.Method, urlOf(q), status, o.Header, f)
	return f != nil && f.Whole(o, []byte(body)) == Storable
}

func TestRFC9110_9_3_3_PostAnswersLaterGets(t *testing.T) {
	const here = "Content-Location: /a?b"
	y := newPlay(t, policy())
	y.fill("GET /a?b", nil, 200, "old", fresh)
	if !y.post("POST /a?b", []string{"Content-Length: 2"}, 200, "new", nil, fresh, here) {
		t.Error("not stored")
	}
	y.expect(Hit, "new", "GET /a?b")
	y.expect(Hit, "new", "HEAD /a?b")
	y.expect(Bypass, "", "POST /a?b") // it is written through
	y.pass(3600)
	if v := y.look("GET /a?b"); v == Hit {
		t.Error("a hit when it is stale")
	}
	y.l.Release()

	f := func(want bool, line string, asked []string, status int, answer ...string) {
		t.Helper()
		y := newPlay(t, policy())
		if got := y.post(line, asked, status, "x", nil, answer...); got != want {
			t.Errorf("%s %q, %d %q: stored %v", line, asked, status, answer, got)
		}
		if v := y.look("GET /a?b"); (v == Hit) != want {
			t.Errorf("%s %q, %d %q: then verdict %d", line, asked, status, answer, v)
		}
		y.l.Release()
	}
	f(true, "POST /a?b", nil, 200, fresh, "Content-Location: http://example.com/a?b")
	f(true, "POST /a?b", nil, 200, date, "Expires: Sun, 06 Nov 1994 08:50:37 GMT", here)
	f(true, "POST /a?b", nil, 200, "CDN-Cache-Control: max-age=60", here)
	f(true, "POST /a?b", []string{"Authorization: Basic x"}, 200, "Cache-Control: s-maxage=60", here)
	// It may be something else than the resource.
	f(false, "POST /a?b", nil, 200, fresh)
	f(false, "POST /a?b", nil, 200, fresh, "Content-Location: /a")
	f(false, "POST /a?b", nil, 200, fresh, "Content-Location: /a?b&c")
	f(false, "POST /a?b", nil, 200, fresh, "Content-Location: https://example.com/a?b")
	f(false, "POST /a?b", nil, 200, fresh, "Content-Location: http://other/a?b")
	f(false, "POST /a?b", nil, 200, fresh, "Content-Location: ")
	f(false, "POST /a?b", nil, 200, fresh, here, here)
	f(false, "POST /a", nil, 200, fresh, here)
	f(false, "POST /a?b", nil, 201, fresh, here)
	f(false, "POST /a?b", nil, 404, fresh, here)
	for _, method := range []string{"PUT", "PATCH", "DELETE", "FOO"} {
		f(false, method+" /a?b", nil, 200, fresh, here)
	}
	// The lifetime is not the origin's, or there is none, or it may not be shared.
	f(false, "POST /a?b", nil, 200, here)
	f(false, "POST /a?b", nil, 200, `ETag: "a"`, here)
	f(false, "POST /a?b", nil, 200, "Cache-Control: max-age=0", `ETag: "a"`, here)
	f(false, "POST /a?b", nil, 200, "Cache-Control: max-age=60, no-cache", `ETag: "a"`, here)
	f(false, "POST /a?b", nil, 200, "Cache-Control: max-age=60, private", here)
	f(false, "POST /a?b", nil, 200, "Cache-Control: max-age=60, no-store", here)
	f(false, "POST /a?b", nil, 200, fresh, "Set-Cookie: a=b", here)
	f(false, "POST /a?b", nil, 200, fresh, "Vary: Accept", here)
	f(false, "POST /a?b", []string{"Authorization: Basic x"}, 200, fresh, here)
	f(false, "POST /a?b", []string{"Cache-Control: no-store"}, 200, fresh, here)
	implied := newPlay(t, policy(func(o *RouteOptions) { o.TTL = 60e9 }))
	if implied.post("POST /a?b", nil, 200, "x", nil, here) {
		t.Error("stored with a lifetime of the route")
	}
}

func TestPostedResponsesThatAreOvertakenAreNotStored(t *testing.T) {
	const here = "Content-Location: /a"
	f := func(want bool, what string, meanwhile func(y *play)) {
		t.Helper()
		y := newPlay(t, policy())
		if got := y.post("POST /a", nil, 200, "x", func() { meanwhile(y) }, fresh, here, "Cache-Tag: t"); got != want {
			t.Errorf("%s: stored %v", what, got)
		}
		y.expect(map[bool]Verdict{true: Hit, false: Miss}[want], "x", "GET /a")
	}
	u := &URL{Host: []byte("example.com"), Path: []byte("/a")}
	f(true, "nothing", func(*play) {})
	f(false, "another change", func(y *play) {
		y.c.Invalidate([]*Policy{y.p}, wire.MethodPut, u, 204, fields(t), nil)
	})
	f(false, "a tag", func(y *play) { y.c.PurgeTag("t", false) })
	f(false, "a prefix", func(y *play) { y.c.PurgePrefix("example.com", "/", true) })
	f(false, "the URL", func(y *play) { y.c.PurgeURL([]*Policy{y.p}, u, false) })
	f(false, "another POST", func(y *play) { y.post("POST /a", nil, 200, "y", nil, fresh) })
}
