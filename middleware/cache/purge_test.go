package cache

import (
	"fmt"
	"testing"

	"gateway/wire"
)

func TestPurges(t *testing.T) {
	f := func(name string, hit string, purge func(c *Cache, p []*Policy, soft bool)) {
		t.Helper()
		for _, soft := range []bool{false, true} {
			y := newPlay(t, policy())
			paths := []string{"/a", "/a?q", "/a/b", "/c"}
			for i, path := range paths {
				y.fill("GET "+path, nil, 200, path, fresh, fmt.Sprintf("Surrogate-Key: x%d  y", i), `ETag: "a"`)
			}
			purge(y.c, []*Policy{y.p}, soft)
			check := func(when string) {
				t.Helper()
				for i, path := range paths {
					want := Hit
					if hit[i] == '-' {
						if want = Miss; soft {
							want = Validate
						}
					}
					if got := y.look("GET " + path); got != want {
						t.Errorf("%s, soft %v, %s: %s is %d, want %d", name, soft, when, path, got, want)
					}
				}
				y.l.Release()
			}
			check("at once")
			await(t, "the walk", func() bool { return !y.c.purges.active.Load() })
			check("after the walk")
			for _, path := range paths { // what comes afterwards stays
				y.fill("GET "+path, nil, 200, path, fresh, `ETag: "a"`)
				if got := y.look("GET " + path); got != Hit {
					t.Errorf("%s: new %s is %d", name, path, got)
				}
			}
			y.l.Release()
		}
	}
	f("all", "----", func(c *Cache, p []*Policy, soft bool) { c.PurgeAll(soft) })
	f("host", "----", func(c *Cache, p []*Policy, soft bool) { c.PurgeHost("example.com", soft) })
	f("other host", "++++", func(c *Cache, p []*Policy, soft bool) { c.PurgeHost("example.co", soft) })
	f("prefix", "---+", func(c *Cache, p []*Policy, soft bool) { c.PurgePrefix("example.com", "/a", soft) })
	f("prefix below", "++-+", func(c *Cache, p []*Policy, soft bool) { c.PurgePrefix("example.com", "/a/", soft) })
	f("tag", "+-++", func(c *Cache, p []*Policy, soft bool) { c.PurgeTag("x1", soft) })
	f("tag of all", "----", func(c *Cache, p []*Policy, soft bool) { c.PurgeTag("y", soft) })
	f("no tag", "++++", func(c *Cache, p []*Policy, soft bool) { c.PurgeTag("x", soft) })
	f("url", "-+++", func(c *Cache, p []*Policy, soft bool) {
		c.PurgeURL(p, &URL{Host: []byte("example.com"), Path: []byte("/a")}, soft)
	})
	f("url with query", "+-++", func(c *Cache, p []*Policy, soft bool) {
		c.PurgeURL(p, &URL{Host: []byte("example.com"), Path: []byte("/a"), Query: []byte("q")}, soft)
	})
}

func TestPurgedVariantsDoNotComeBack(t *testing.T) {
	y := newPlay(t, policy())
	u := urlOf(ask(t, "GET /"))
	y.fill("GET /", []string{"Foo: 1"}, 200, "one", fresh, "Vary: Foo")
	y.fill("GET /", []string{"Foo: 2"}, 200, "two", fresh, "Vary: Foo")
	y.c.PurgeURL([]*Policy{y.p}, u, false)
	y.expect(Miss, "", "GET /", "Foo: 1")
	y.fill("GET /", []string{"Foo: 1"}, 200, "new", fresh, "Vary: Foo")
	y.expect(Hit, "new", "GET /", "Foo: 1")
	y.expect(Miss, "", "GET /", "Foo: 2")
}

func TestSoftPurgesReachWhatIsBeingReceived(t *testing.T) {
	y := newPlay(t, policy())
	q := ask(t, "GET /")
	y.look("GET /")
	_, f, _ := y.c.Begin(&y.l, q, y.now, true)
	y.c.PurgeTag("a", true)
	await(t, "the walk", func() bool {
		y.c.purges.mu.RLock()
		defer y.c.purges.mu.RUnlock()
		return y.c.purges.swept == y.c.purges.sequence.Load()
	})
	f.Whole(y.origin(200, fresh, "Surrogate-Key: a"), []byte("old"))
	await(t, "the record to be forgotten", func() bool { return !y.c.purges.active.Load() })
	y.expect(Validate, "old", "GET /")
}

func TestManyPurges(t *testing.T) {
	y := newPlay(t, policy())
	y.c.purges.most = 256
	y.fill("GET /", nil, 200, "x", fresh)
	q := ask(t, "GET /slow")
	y.look("GET /slow")
	_, f, _ := y.c.Begin(&y.l, q, y.now, true) // keeps records from being forgotten
	for i := range 3 * y.c.purges.most {
		y.c.PurgePrefix("example.com", fmt.Sprintf("/p%d", i), false)
	}
	if reason := f.Whole(y.origin(200, fresh), []byte("x")); reason != NoMemory {
		t.Errorf("a fill that began before what is forgotten: %s", reason)
	}
	y.expect(Hit, "x", "GET /")
}

func TestRFC9111_4_4_Invalidation(t *testing.T) {
	f := func(want string, method wire.Method, status int, answer ...string) {
		t.Helper()
		y := newPlay(t, policy())
		paths := []string{"/a", "/b", "/c?x=1"}
		for _, path := range paths {
			y.fill("GET "+path, nil, 200, path, fresh)
		}
		y.c.Invalidate([]*Policy{y.p}, method, urlOf(ask(t, "GET /a")), status, fields(t, answer...), nil)
		got := ""
		for _, path := range paths {
			if y.look("GET "+path) == Hit {
				got += "+"
			} else {
				got += "-"
			}
		}
		y.l.Release()
		if got != want {
			t.Errorf("%s %d %q: %s, want %s", method, status, answer, got, want)
		}
	}
	f("-++", wire.MethodPost, 200)
	f("-++", wire.MethodPut, 204)
	f("-++", wire.MethodDelete, 302)
	f("-++", wire.MethodPatch, 200)
	f("-++", wire.MethodOther, 200) // whose safety is not known
	f("+++", wire.MethodPost, 404)
	f("+++", wire.MethodPost, 500)
	for _, safe := range []wire.Method{wire.MethodGet, wire.MethodHead, wire.MethodOptions, wire.MethodQuery} {
		f("+++", safe, 200)
	}
	f("--+", wire.MethodPost, 201, "Location: /b")
	f("--+", wire.MethodPost, 201, "Location: b")
	f("--+", wire.MethodPost, 201, "Location: http://EXAMPLE.com/x/../b")
	f("--+", wire.MethodPost, 201, "Location: http://example.com:80/b#f")
	f("---", wire.MethodPost, 201, "Location: /b", "Content-Location: /c?x=1")
	f("-+-", wire.MethodPost, 201, "Content-Location: c?x=1")
	f("-++", wire.MethodPost, 201, "Location: http://other.example/b")
	f("-++", wire.MethodPost, 201, "Location: https://example.com/b")
	f("-++", wire.MethodPost, 201, "Location: //other.example/b")
	f("-++", wire.MethodPost, 201, "Location: ://")
}

func TestRFC9875_CacheGroups(t *testing.T) {
	f := func(want Verdict, groups, invalidation string) {
		t.Helper()
		y := newPlay(t, policy())
		y.fill("GET /", nil, 200, "x", fresh, `ETag: "a"`, "Cache-Groups: "+groups)
		u := urlOf(ask(t, "GET /other"))
		y.c.Invalidate([]*Policy{y.p}, wire.MethodPost, u, 200, fields(t, "Cache-Group-Invalidation: "+invalidation), nil)
		if got := y.look("GET /"); got != want {
			t.Errorf("%s, %s: %d, want %d", groups, invalidation, got, want)
		}
		y.l.Release()
	}
	f(Validate, `"a", "b"`, `"b"`)
	f(Validate, `"a";x=1`, `"c", "a"`)
	f(Validate, `"a\"b"`, `"a\"b"`)
	f(Hit, `"a"`, `"A"`)
	f(Hit, `"a"`, `"b"`)
	f(Hit, `a`, `"a"`)  // a token is no string
	f(Hit, `"a"`, `"a`) // broken
	f(Hit, `"a`, `"a"`)
	// A group belongs to its origin, and safe methods invalidate nothing.
	y := newPlay(t, policy())
	y.fill("GET /", nil, 200, "x", fresh, `Cache-Groups: "a"`)
	h := fields(t, `Cache-Group-Invalidation: "a"`)
	y.c.Invalidate(nil, wire.MethodPost, &URL{Host: []byte("other"), Path: []byte("/")}, 200, h, nil)
	y.c.Invalidate(nil, wire.MethodPost, &URL{Secure: true, Host: []byte("example.com"), Path: []byte("/")}, 200, h, nil)
	y.c.Invalidate(nil, wire.MethodGet, urlOf(ask(t, "GET /")), 200, h, nil)
	y.expect(Hit, "x", "GET /")
	// 128 groups (section 2), and more than can be kept: not stored.
	many := func(n int) string {
		s := `Cache-Groups: "0"`
		for i := 1; i < n; i++ {
			s += fmt.Sprintf(`, "%032d"`, i)
		}
		return s
	}
	if reason := y.fill("GET /many", nil, 200, "x", fresh, many(128)); reason != Storable {
		t.Error(reason)
	}
	if reason := y.fill("GET /more", nil, 200, "x", fresh, many(maxTags+1)); reason != TooManyTags {
		t.Error(reason)
	}
}

func TestRFC9211_CacheStatus(t *testing.T) {
	f := func(want string, r Report) {
		t.Helper()
		if got := string(r.AppendStatus(nil, "gateway")); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	f("gateway; hit; ttl=30", Report{HasTTL: true, TTL: 30*second + 1})
	f("gateway; hit; ttl=-3", Report{HasTTL: true, TTL: -2*second - 1})
	f("gateway; fwd=uri-miss; fwd-status=200; stored", Report{Forward: ForwardURIMiss, Status: 200, Stored: true})
	f("gateway; fwd=stale; fwd-status=304; collapsed; ttl=0", Report{Forward: ForwardStale, Status: 304, Collapsed: true, HasTTL: true})
	f("gateway; fwd=bypass; detail=private", Report{Forward: ForwardBypass, Detail: ResponsePrivate})
	h := fields(t, "Cache-Status: origin; hit")
	(&Report{}).AddStatus(h, "gateway")
	if got := string(h.AppendTo(nil)); got != "Cache-Status: origin; hit\r\nCache-Status: gateway; hit\r\n" {
		t.Error(got)
	}
	for r := range noStoreReasons {
		d := dictionary{rest: append([]byte("a="), r.String()...)}
		if _, v, ok := d.next(); !ok || v.kind != kindToken {
			t.Errorf("%s is no token", r)
		}
	}
}
