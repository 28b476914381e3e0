package middleware

import (
	"sync"
	"testing"
	"time"

	"gateway/exchange"
	"gateway/internal/unit"
	"gateway/metrics"
	"gateway/middleware/cache"
	"gateway/middleware/compress"
	"gateway/wire"
)

// store is a cache with one response, and the way to find it.
type store struct {
	*cache.Cache
	policy *cache.Policy
}

func newStore(t *testing.T, body []byte) *store {
	t.Helper()
	c, err := cache.New(cache.Options{Memory: 64 * unit.MiB, MaxObject: 4 * unit.MiB, UncacheableTTL: time.Second, CollapseTimeout: time.Second, Identifier: "gateway"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	s := &store{c, cache.NewPolicy(cache.RouteOptions{Query: "keep"}, "r")}
	s.fill(t, body)
	return s
}

// fill stores a body in place of the one before.
func (s *store) fill(t *testing.T, body []byte) {
	t.Helper()
	x := ask(t, "", "GET a /")
	var l cache.Lookup
	now := time.Now().UnixNano()
	s.Invalidate([]*cache.Policy{s.policy}, wire.MethodPost, &cache.URL{Host: []byte("a"), Path: []byte("/")}, 200, x.Own(200), nil)
	s.Lookup(&l, s.policy, &x.Request, &cache.URL{Host: []byte("a"), Path: []byte("/")}, nil, now)
	_, f, _ := s.Begin(&l, &x.Request, now, true)
	h := x.Own(200)
	h.AddString("Cache-Control", "max-age=3600")
	if why := f.Whole(&cache.Origin{Status: 200, Header: h, Requested: now, Received: now}, body); why != cache.Storable {
		t.Fatalf("not stored: %v", why)
	}
	l.Release()
}

// find looks the response up and answers with it.
func (s *store) find(t testing.TB, x *exchange.Exchange, l *cache.Lookup, u *cache.URL, a *Asked) {
	if v := s.Lookup(l, s.policy, &x.Request, u, nil, time.Now().UnixNano()); v != cache.Hit {
		t.Fatalf("verdict %v", v)
	}
	h := x.Respond(200, l.Entry.Body())
	h.AddString("Content-Type", "text/plain")
	h.AddString("ETag", `"x"`)
	a.Stored = Stored{Cache: s.Cache, Lookup: l, Entry: &l.Entry}
}

func TestStoredBodiesAreCodedOnce(t *testing.T) {
	registry := metrics.New()
	s := NewCompress(compressOptions(), compress.NewEngine(registry), "r", nil)
	made := func(coding string) uint64 {
		return registry.Counter("gateway_compress_responses_total", "Responses that were coded.", "coding", coding).Value()
	}
	codings := []string{"zstd", "br", "gzip"}
	st := newStore(t, users(30<<10))
	for round, body := range [][]byte{users(30 << 10), users(40 << 10)} {
		if round > 0 {
			st.fill(t, body)
		}
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 5 {
					for _, coding := range codings {
						x := ask(t, "192.0.2.1", "GET a /", "Accept-Encoding: "+coding)
						a := s.Before(x)
						var l cache.Lookup
						st.find(t, x, &l, &cache.URL{Host: []byte("a"), Path: []byte("/")}, &a)
						s.After(x, a)
						h := x.Response.Header
						length := x.Response.Length
						coded, err := received(x)
						if err != nil || values(h, "Content-Encoding") != coding || values(h, "ETag") != `"x-`+coding+`"` ||
							length != int64(len(coded)) || decodedBody(t, h, coded) != string(body) {
							t.Errorf("%v, %d bytes: %q", err, len(coded), h.AppendTo(nil))
						}
						l.Release()
					}
				}
			})
		}
		all.Wait()
		for _, coding := range codings {
			if n := made(coding); n != uint64(round+1) {
				t.Errorf("body %d was coded %d times with %s", round, n, coding)
			}
		}
	}
}

func TestLargeStoredBodiesAreCodedInTheBackground(t *testing.T) {
	registry := metrics.New()
	s := NewCompress(compressOptions(), compress.NewEngine(registry), "r", nil)
	body := users(1 << 20)
	st := newStore(t, body)
	get := func() (coding string) {
		x := ask(t, "192.0.2.1", "GET a /", "Accept-Encoding: gzip")
		a := s.Before(x)
		var l cache.Lookup
		defer l.Release()
		st.find(t, x, &l, &cache.URL{Host: []byte("a"), Path: []byte("/")}, &a)
		s.After(x, a)
		h := x.Response.Header
		coded, err := received(x)
		if err != nil || decodedBody(t, h, coded) != string(body) {
			t.Errorf("another body: %v", err)
		}
		return values(h, "Content-Encoding")
	}
	if got := get(); got != "" {
		t.Errorf("the first answer waited for its coding, %q", got)
	}
	for end := time.Now().Add(30 * time.Second); get() != "gzip"; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the coded form is never there")
		}
	}
	if n := registry.Counter("gateway_compress_responses_total", "Responses that were coded.", "coding", "gzip").Value(); n != 1 {
		t.Errorf("coded %d times", n)
	}
}

func TestWhatStaysLargeIsRemembered(t *testing.T) {
	registry := metrics.New()
	s := NewCompress(compressOptions(), compress.NewEngine(registry), "r", nil)
	noise := make([]byte, 300)
	for i := range noise {
		noise[i] = byte(i * i * 7919 >> 3)
	}
	st := newStore(t, noise)
	for range 3 {
		x := ask(t, "192.0.2.1", "GET a /", "Accept-Encoding: gzip")
		a := s.Before(x)
		var l cache.Lookup
		st.find(t, x, &l, &cache.URL{Host: []byte("a"), Path: []byte("/")}, &a)
		s.After(x, a)
		if got, err := received(x); err != nil || string(got) != string(noise) {
			t.Errorf("another body: %v", err)
		}
		coded, found := st.Coded(&l, &l.Entry, "gzip", time.Now().UnixNano())
		if !found || len(coded.Body()) > 0 {
			t.Error("it will be tried again")
		}
		coded.Release()
		l.Release()
	}
}

func TestStoredFormsAllocateNothing(t *testing.T) {
	o := compressOptions()
	o.Dictionary, o.MaxDictionary = "origin", 256<<10
	e := compress.NewEngine(metrics.New())
	s := NewCompress(o, e, "r", nil)
	body := users(30 << 10)
	st := newStore(t, body)
	dictionary := users(20 << 10)
	e.Dictionaries("r").Learn(dictionary)
	for _, accept := range []string{"zstd", "br", "gzip", "dcz"} {
		t.Run(accept, func(t *testing.T) {
			section := []byte("Host: a\r\nAccept-Encoding: " + accept + "\r\n" + has(string(dictionary)) + "\r\n\r\n")
			verb, target, version := []byte("GET"), []byte("/"), []byte("HTTP/1.1")
			u := &cache.URL{Host: []byte("a"), Path: []byte("/")}
			var l cache.Lookup
			codingAllocations(t, func() {
				x := exchange.Acquire()
				if x.Request.ParseParts(verb, target, version, section, &wire.Limits{}) != wire.NoFault {
					t.Fatal("the request is not valid")
				}
				a := s.Before(x)
				st.find(t, x, &l, u, &a)
				s.After(x, a)
				if string(x.Response.Header.Get(wire.ContentEncoding)) != accept {
					t.Fatalf("%q", x.Response.Header.AppendTo(nil))
				}
				x.ReleaseBody()
				l.Release()
				exchange.Release(x)
			})
		})
	}
}
