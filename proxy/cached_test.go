package proxy

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"gateway/internal/mallocs"
	"gateway/internal/origin"
)

// cacheable is a 200 that caches may keep for a minute.
func cacheable(body string, fields ...string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: %d\r\n%s\r\n%s", len(body), lines(fields), body)
}

// caching is a route to the upstream app that caches, with more of its options.
func caching(options string) string {
	return "[cache]\nmemory = \"8MiB\"\n[[route]]\nname = \"r\"\nupstream = \"app\"\ncache = " + options + "\n"
}

// status is what Cache-Status says.
func (a answer) status() string { return strings.Join(a.Header.Values("Cache-Status"), ", ") }

func (a answer) expect(t testing.TB, status int, body, cacheStatus string) {
	t.Helper()
	if a.StatusCode != status || a.body != body || a.err != nil || !strings.Contains(a.status(), cacheStatus) {
		t.Errorf("%d %.100q %v, Cache-Status %q; want %d %.100q, %q", a.StatusCode, a.body, a.err, a.status(), status, body, cacheStatus)
	}
}

func TestSecondRequestIsAnsweredFromTheCache(t *testing.T) {
	o := record(t, cacheable("hello", `ETag: "a"`, "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT", "Content-Type: text/plain"))
	option, read := accessLog(t)
	r := begin(t, option, app(o.Address), caching("true"))
	r.get("/a?b=c").expect(t, 200, "hello", "gateway; fwd=uri-miss; fwd-status=200; stored; ttl=")
	a := r.get("/a?b=c")
	a.expect(t, 200, "hello", "gateway; hit; ttl=")
	if a.Header.Get("Age") == "" || a.Header.Get("ETag") != `"a"` || a.Header.Get("Content-Length") != "5" || a.Header.Get("Date") == "" {
		t.Errorf("fields %v", a.Header)
	}
	r.get("/a").expect(t, 200, "hello", "fwd=uri-miss")
	r.do("HEAD /a HTTP/1.1\r\nHost: test\r\n\r\n").expect(t, 200, "", "hit")
	r.get("/a", `If-None-Match: "b", "a"`).expect(t, 304, "", "hit")
	r.get("/a", "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT").expect(t, 304, "", "hit")
	a = r.get("/a", "Range: bytes=1-3")
	a.expect(t, 206, "ell", "hit")
	if got := a.Header.Get("Content-Range"); got != "bytes 1-3/5" {
		t.Errorf("Content-Range %q", got)
	}
	a = r.get("/a", "Range: bytes=9-")
	a.expect(t, 416, "", "hit")
	if got := a.Header.Get("Content-Range"); got != "bytes */5" {
		t.Errorf("Content-Range %q", got)
	}
	a = r.get("/a", "Range: bytes=0-0,2-3")
	if !strings.HasPrefix(a.Header.Get("Content-Type"), "multipart/byteranges; boundary=") ||
		strings.Count(a.body, "Content-Range: bytes ") != 2 || int64(len(a.body)) != a.ContentLength {
		t.Errorf("%v %q", a.Header, a.body)
	}
	r.get("/none", "Cache-Control: only-if-cached").refused(t, 504, "not_cached")
	if n := o.Requests(); n != 2 {
		t.Errorf("%d requests at the origin, want 2", n)
	}
	r.counts(7, "gateway_cache_requests_total", `route="r"`, `result="hit"`)
	r.counts(2, "gateway_cache_requests_total", `route="r"`, `result="miss"`)
	r.until("the log is written", func() bool { return len(read()) == 10 })
	hits := 0
	for _, line := range read() { // in the order in which they ended
		if line["cache"] == "hit" {
			hits++
			if line["server"] != nil {
				t.Errorf("logged %v", line)
			}
		}
	}
	if hits != 7 {
		t.Errorf("%d hits are logged, want 7", hits)
	}
}

func TestManyMissesAreOneRequest(t *testing.T) {
	for name, answer := range map[string]string{
		"whole":    cacheable(strings.Repeat("x", 1000)),
		"streamed": cacheable(origin.Filler(300_000)),
		"chunked":  strings.Replace(origin.Chunked(origin.Filler(100_000), "b"), "\r\n", "\r\nCache-Control: max-age=60\r\n", 1),
	} {
		t.Run(name, func(t *testing.T) {
			release := make(chan struct{})
			o := origin.Start(t, func(c *origin.Conn) {
				for {
					c.Read()
					c.Wait(release)
					c.Write(answer)
				}
			})
			r := begin(t, app(o.Address), caching("true"))
			const n = 100
			bodies := make(chan string, n)
			var all sync.WaitGroup
			for range n {
				all.Go(func() {
					a := r.get("/")
					if a.err != nil || a.StatusCode != 200 {
						t.Error(a.StatusCode, a.err)
					}
					bodies <- a.body
				})
			}
			r.until("all wait", func() bool { return r.counters.inFlight.Value() == n && o.Requests() > 0 })
			close(release)
			all.Wait()
			close(bodies)
			first := <-bodies
			for b := range bodies {
				if b != first {
					t.Fatalf("bodies of %d and %d bytes", len(first), len(b))
				}
			}
			if len(first) < 1000 || o.Requests() != 1 {
				t.Errorf("%d requests, %d bytes", o.Requests(), len(first))
			}
			r.get("/").expect(t, 200, first, "hit")
		})
	}
}

func TestPrivateResponsesAreAskedForSideBySide(t *testing.T) {
	const n = 100
	together := make(chan struct{})
	var mu sync.Mutex
	here := 0
	o := origin.Start(t, func(c *origin.Conn) {
		for {
			c.Read()
			mu.Lock()
			here++
			if here == n+1 { // the one that was to be shared, and the next wave, all at the same time
				close(together)
			}
			first := here == 1
			mu.Unlock()
			if !first {
				c.Wait(together)
			}
			c.Write("HTTP/1.1 200 OK\r\nCache-Control: private\r\nContent-Length: 4\r\n\r\nmine")
		}
	})
	r := begin(t, app(o.Address), caching("true"))
	r.get("/").expect(t, 200, "mine", "detail=private")
	var all sync.WaitGroup
	for range n {
		all.Go(func() { r.get("/").expect(t, 200, "mine", "fwd=uri-miss") })
	}
	all.Wait()
	if o.Requests() != n+1 {
		t.Errorf("%d requests, want %d", o.Requests(), n+1)
	}
}

func TestLeaderMayLeave(t *testing.T) {
	body := origin.Filler(200_000)
	for name, waitFor := range map[string]int{"before the head": 0, "in the body": 100} {
		t.Run(name, func(t *testing.T) {
			release := make(chan struct{})
			o := origin.Start(t, func(c *origin.Conn) {
				for {
					c.Read()
					if waitFor == 0 {
						c.Wait(release)
					}
					c.Write(fmt.Sprintf("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: %d\r\n\r\n", len(body)))
					c.Write(body[:100_000])
					if waitFor > 0 {
						c.Wait(release)
					}
					c.Write(body[100_000:])
				}
			})
			r := begin(t, app(o.Address), caching("true"))
			leader := r.dial()
			leader.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
			r.until("the origin is asked", func() bool { return o.Requests() == 1 })
			var all sync.WaitGroup
			for range 10 {
				all.Go(func() { r.get("/").expect(t, 200, body, "collapsed") })
			}
			r.until("all wait", func() bool { return r.counters.inFlight.Value() == 11 })
			if waitFor > 0 {
				leader.head()
				leader.next(waitFor)
			}
			r.until("all are readers", func() bool { return waiting(r) >= 10 })
			leader.reset()
			if waitFor == 0 {
				// The sweeper has looked at it at least once.
				r.until("the gateway knows", func() bool { return orphaned(r) })
			}
			close(release)
			all.Wait()
			r.get("/").expect(t, 200, body, "hit")
			if o.Requests() != 1 {
				t.Errorf("%d requests", o.Requests())
			}
		})
	}
}

func TestTruncatedResponsesAreNeverStored(t *testing.T) {
	release := make(chan struct{})
	o := origin.Start(t, func(c *origin.Conn) {
		c.Read()
		c.Write("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 200000\r\n\r\n" + origin.Filler(100_000))
		c.Wait(release)
		c.Reset()
	})
	r := begin(t, app(o.Address)+"retry = { attempts = 1 }\n", caching("true"))
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			if a := r.get("/"); a.StatusCode == 200 && a.err == nil {
				t.Errorf("a body of %d bytes looks whole", len(a.body))
			}
		})
	}
	r.until("all wait", func() bool { return r.counters.inFlight.Value() == 10 })
	close(release)
	all.Wait()
	before := o.Requests()
	if a := r.get("/"); a.err == nil || strings.Contains(a.status(), "hit") {
		t.Errorf("%v, %s", a.err, a.status())
	}
	if o.Requests() <= before {
		t.Error("it was stored")
	}
}

// waiting is the number of requests that wait in flights.
func waiting(r *running) int {
	_, n, _ := r.cache.Flying()
	return n
}

// orphaned reports whether a leader's client is known to have left.
func orphaned(r *running) bool {
	_, _, n := r.cache.Flying()
	return n > 0
}

// scripted is an origin whose answer a test changes.
type scripted struct {
	*recorder
	mu     sync.Mutex
	answer string
}

func (o *scripted) set(answer string) {
	o.mu.Lock()
	o.answer = answer
	o.mu.Unlock()
}

// respond starts an origin that answers as it was told last; "" is a reset.
func respondWith(t testing.TB, answer string) *scripted {
	o := &scripted{recorder: &recorder{}, answer: answer}
	o.Origin = origin.Start(t, func(c *origin.Conn) {
		for {
			o.keep(c.Read())
			o.mu.Lock()
			answer := o.answer
			o.mu.Unlock()
			if answer == "" {
				c.Reset()
			}
			c.Write(answer)
		}
	})
	return o
}

func TestStaleResponsesStandInAndAreValidated(t *testing.T) {
	stale := func(control, body string) string {
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nCache-Control: %s\r\nAge: 1000\r\nETag: \"a\"\r\nContent-Length: %d\r\n\r\n%s", control, len(body), body)
	}
	t.Run("validated", func(t *testing.T) {
		o := respondWith(t, stale("max-age=10", "old"))
		r := begin(t, app(o.Address), caching("true"))
		r.get("/").expect(t, 200, "old", "fwd=uri-miss")
		o.set("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nCache-Control: max-age=60\r\nX-New: 1\r\n\r\n")
		a := r.get("/", `If-None-Match: "other"`, "Range: bytes=0-1")
		a.expect(t, 206, "ol", "fwd=stale; fwd-status=304; stored")
		if q := o.last(t); q.Field("If-None-Match") != `"a"` || q.Field("Range") != "" || a.Header.Get("X-New") != "1" {
			t.Errorf("asked %q, answered %v", q.Head, a.Header)
		}
		r.get("/", `If-None-Match: "a"`).expect(t, 304, "", "hit")
	})
	t.Run("error", func(t *testing.T) {
		o := respondWith(t, stale("max-age=10, stale-if-error=10000", "old"))
		r := begin(t, app(o.Address)+"retry = { attempts = 1 }\neject = false\n", caching("true"))
		r.get("/").expect(t, 200, "old", "fwd=uri-miss")
		o.set("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nsick")
		r.get("/").expect(t, 200, "old", "fwd=stale; fwd-status=503")
		o.set("")
		r.get("/").expect(t, 200, "old", "fwd=stale")
		r.counts(2, "gateway_cache_requests_total", `result="stale_error"`)
		r.get("/other").refused(t, 502, "origin_reset")
	})
	t.Run("no answer", func(t *testing.T) {
		o := respondWith(t, "HTTP/1.1 200 OK\r\nCache-Control: max-age=10\r\nAge: 15\r\nETag: \"a\"\r\nContent-Length: 3\r\n\r\nold")
		r := begin(t, app(o.Address)+"retry = { attempts = 1 }\neject = false\n", "[[route]]\npath = \"/off\"\nupstream = \"app\"\ncache = { stale_if_disconnected = \"0s\" }\n", caching("true"))
		r.get("/").expect(t, 200, "old", "fwd=uri-miss")
		r.get("/off").expect(t, 200, "old", "fwd=uri-miss")
		o.set("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nsick")
		r.get("/").expect(t, 503, "sick", "fwd=stale; fwd-status=503") // it is an answer
		o.set("")
		r.get("/").expect(t, 200, "old", "fwd=stale")
		r.get("/off").refused(t, 502, "origin_reset")
		r.get("/", "Cache-Control: max-age=60").refused(t, 502, "origin_reset")
		if err := r.Purge(Purge{All: true, Soft: true}); err != nil {
			t.Fatal(err)
		}
		r.get("/").refused(t, 502, "origin_reset")
		r.counts(1, "gateway_cache_requests_total", `result="stale_error"`)
	})
	t.Run("refresh", func(t *testing.T) {
		o := respondWith(t, stale("max-age=10, stale-while-revalidate=10000", "old"))
		r := begin(t, app(o.Address), caching("true"))
		r.get("/").expect(t, 200, "old", "fwd=uri-miss")
		o.set(cacheable("new"))
		r.get("/").expect(t, 200, "old", "gateway; hit; ttl=-")
		r.until("it is renewed", func() bool { return r.metric("gateway_cache_refreshes_total", `result="stored"`) == 1 })
		r.get("/").expect(t, 200, "new", "hit")
		if n := o.Requests(); n != 2 {
			t.Errorf("%d requests", n)
		}
	})
}

func TestChangesAndPurgesRemoveWhatIsStored(t *testing.T) {
	o := respondWith(t, cacheable("x", "Surrogate-Key: a b"))
	r := begin(t, app(o.Address), caching("true"), "[[route]]\nname = \"w\"\nmethods = [\"POST\"]\nupstream = \"app\"\n")
	f := func(what string, change func()) {
		t.Helper()
		r.get("/p/1?q").expect(t, 200, "x", "")
		r.get("/p/1?q").expect(t, 200, "x", "hit")
		change()
		if a := r.get("/p/1?q"); strings.Contains(a.status(), "hit") {
			t.Errorf("%s: %s", what, a.status())
		}
	}
	purge := func(p Purge) func() {
		return func() {
			t.Helper()
			if err := r.Purge(p); err != nil {
				t.Error(err)
			}
		}
	}
	f("POST", func() { r.do("POST /p/1?q HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n") })
	f("url", purge(Purge{URL: "http://TEST/%70/1?q"}))
	f("prefix", purge(Purge{Prefix: "test/p/"}))
	f("host", purge(Purge{Host: "test"}))
	f("tag", purge(Purge{Tag: "b"}))
	f("all", purge(Purge{All: true}))
	f("soft", purge(Purge{All: true, Soft: true}))
	for _, p := range []Purge{{}, {All: true, Tag: "a"}, {URL: "nonsense"}, {Prefix: "a/b?c"}, {Host: "a/b"}} {
		if err := r.Purge(p); err == nil {
			t.Errorf("%+v is no mistake", p)
		}
	}
}

func TestPartsAreCompleted(t *testing.T) {
	part := func(first, total int, body, etag string) string {
		return fmt.Sprintf("HTTP/1.1 206 Partial Content\r\nCache-Control: max-age=60\r\nETag: %s\r\nContent-Range: bytes %d-%d/%d\r\nContent-Length: %d\r\n\r\n%s",
			etag, first, first+len(body)-1, total, len(body), body)
	}
	long := origin.Filler(500_000)
	for name, c := range map[string]struct {
		whole string
		rest  []string // answers, in turn
		want  string
		asked string // Range of the last request
		later string // in Cache-Status of the next request
	}{
		"small":    {"abcdef", []string{part(3, 6, "def", `"a"`)}, "abcdef", "bytes=3-", "hit"},
		"streamed": {long, []string{part(3, len(long), long[3:], `"a"`)}, long, "bytes=3-", "hit"},
		"private": {"abcdef", []string{strings.Replace(part(3, 6, "def", `"a"`), "max-age=60", "private", 1)}, "abcdef",
			"bytes=3-", "fwd=partial"},
		"changed":      {"abcdef", []string{cacheable("new", `ETag: "b"`)}, "new", "bytes=3-", "hit"},
		"another":      {"abcdef", []string{part(3, 6, "xyz", `"b"`), cacheable("uvwxyz", `ETag: "b"`)}, "uvwxyz", "", "hit"},
		"another part": {"abcdef", []string{part(2, 6, "cdef", `"a"`), cacheable("abcdef", `ETag: "a"`)}, "abcdef", "", "hit"},
		"shorter": {"abcdef", []string{"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */2\r\nContent-Length: 0\r\n\r\n",
			cacheable("ab", `ETag: "c"`)}, "ab", "", "hit"},
	} {
		t.Run(name, func(t *testing.T) {
			answers := append([]string{part(0, len(c.whole), c.whole[:3], `"a"`)}, c.rest...)
			answers = append(answers, cacheable("once more"))
			o := &recorder{}
			o.Origin = origin.Start(t, func(c *origin.Conn) {
				for {
					o.keep(c.Read())
					c.Write(answers[len(o.all())-1])
				}
			})
			r := begin(t, app(o.Address), caching("true"))
			r.get("/", "Range: bytes=0-2").expect(t, 206, c.whole[:3], "fwd=uri-miss; fwd-status=206; stored")
			a := r.get("/", `If-None-Match: "x"`)
			a.expect(t, 200, c.want, "fwd=partial")
			if a.Header.Get("Content-Range") != "" || a.Header.Get("ETag") == "" || a.Header.Get("Cache-Control") == "" || a.ContentLength != int64(len(c.want)) {
				t.Errorf("fields %v", a.Header)
			}
			q := o.last(t)
			if got := q.Field("Range"); got != c.asked || (got != "") != (q.Field("If-Range") == `"a"`) || q.Field("If-None-Match") != "" {
				t.Errorf("asked %q", q.Head)
			}
			r.until("it is received", func() bool { n, _, _ := r.cache.Flying(); return n == 0 })
			if a := r.get("/"); !strings.Contains(a.status(), c.later) {
				t.Errorf("then Cache-Status %q", a.status())
			}
		})
	}
}

func TestPostedResponsesAnswerGets(t *testing.T) {
	for name, body := range map[string]string{"whole": "new", "streamed": origin.Filler(300_000)} {
		t.Run(name, func(t *testing.T) {
			o := respondWith(t, cacheable("old"))
			r := begin(t, app(o.Address), "[[route]]\npath = \"/moved/*\"\nupstream = \"app\"\ncache = true\nstrip_prefix = \"/moved\"\n", caching("true"))
			r.get("/a").expect(t, 200, "old", "fwd=uri-miss")
			o.set(cacheable(body, "Content-Location: /a"))
			post := func(path string) string {
				return "POST " + path + " HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nhi"
			}
			r.do(post("/a")).expect(t, 200, body, "gateway; fwd=method; fwd-status=200; stored; ttl=")
			r.until("it is stored", func() bool { n, _, _ := r.cache.Flying(); return n == 0 })
			r.get("/a").expect(t, 200, body, "gateway; hit")
			r.get("/a", "Range: bytes=0-1").expect(t, 206, body[:2], "gateway; hit")
			o.set(cacheable("by origin's name", "Content-Location: /moved/a"))
			r.do(post("/moved/a")).expect(t, 200, "by origin's name", "fwd-status=200")
			r.get("/moved/a").expect(t, 200, "by origin's name", "fwd=uri-miss")
			o.set(cacheable("changed"))
			r.do(post("/a")).expect(t, 200, "changed", "fwd=method; fwd-status=200")
			r.get("/a").expect(t, 200, "changed", "fwd=uri-miss")
		})
	}
}

func TestStoredResponsesOutliveTheGateway(t *testing.T) {
	o := respondWith(t, cacheable("kept"))
	path := t.TempDir() + "/cache.saved"
	config := strings.Replace(caching("true"), "[cache]\n", "[cache]\nsave = \""+path+"\"\n", 1)
	r := begin(t, app(o.Address), config)
	r.get("/").expect(t, 200, "kept", "fwd=uri-miss")
	r.stop()
	within(t, "the gateway stops", r.ended)
	again := begin(t, app(o.Address), config)
	again.get("/").expect(t, 200, "kept", "hit")
	if o.Requests() != 1 {
		t.Errorf("%d requests", o.Requests())
	}
}

func TestHitsAllocNothing(t *testing.T) {
	if mallocs.Race {
		t.Skip("the race detector allocates")
	}
	// Of an age whose digits do not become more meanwhile.
	stored := func(body, kind string) string {
		return "HTTP/1.1 200 OK\r\nCache-Control: max-age=50000\r\nAge: 1000\r\nETag: \"a\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n" +
			fmt.Sprintf("Content-Type: %s\r\nContent-Length: %d\r\n\r\n%s", kind, len(body), body)
	}
	small := origin.StartFast(t, stored(origin.Filler(1<<10), "text/plain"))
	large := origin.StartFast(t, stored(origin.Filler(16<<10), "image/png"))
	text := origin.StartFast(t, stored(records(16<<10), "application/json"))
	r := begin(t, app(small.Address), "[upstream.large]\nservers = [\""+large.Address+"\"]\n[upstream.text]\nservers = [\""+text.Address+"\"]\n", `
[cache]
memory = "64MiB"
[[route]]
path = "/large"
upstream = "large"
cache = true
[[route]]
path = "/text"
upstream = "text"
cache = true
compress = ["zstd", "br", "gzip", "deflate"]
[[route]]
upstream = "app"
cache = true
`)
	// f asks until the answer comes from the cache, and in the form that is
	// wanted, which then allocates nothing.
	f := func(what, request, status string, length int, wanted ...string) {
		t.Helper()
		var s *steady
		r.until(what+" is a hit", func() bool {
			coded := r.metric("gateway_compress_responses_total")
			s = newSteady(r, request)
			for _, part := range append(wanted, "HTTP/1.1 "+status+" ", "Cache-Status: gateway; hit; ttl=4") {
				if !strings.Contains(string(s.answer), part) {
					return false
				}
			}
			return r.metric("gateway_compress_responses_total") == coded // nothing was coded for this one
		})
		_, body, _ := strings.Cut(string(s.answer), "\r\n\r\n")
		if length >= 0 && len(body) != length || length < 0 && (len(body) == 0 || len(body) > 8<<10) {
			t.Errorf("%s: a body of %d bytes", what, len(body))
		}
		hits := r.metric("gateway_cache_requests_total", `result="hit"`, `tier="memory"`)
		s.allocatesNothing(what)
		if n := r.metric("gateway_cache_requests_total", `result="hit"`, `tier="memory"`) - hits; n < 10_000 {
			t.Errorf("%s: %v of 10,000 requests were hits", what, n)
		}
		if s.client.t.Failed() {
			return
		}
		for _, part := range wanted {
			if !strings.Contains(string(s.answer), part) {
				t.Errorf("%s: the last answer has no %q: %.300q", what, part, s.answer)
			}
		}
	}
	const fields = " HTTP/1.1\r\nHost: test\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: */*\r\n"
	f("1 KiB", "GET /small"+fields+"\r\n", "200", 1<<10)
	f("16 KiB", "GET /large"+fields+"\r\n", "200", 16<<10)
	f("HEAD", "HEAD /small"+fields+"\r\n", "200", 0, "Content-Length: 1024\r\n")
	f("304", "GET /small"+fields+"If-None-Match: \"a\"\r\n\r\n", "304", 0)
	f("304 by date", "GET /small"+fields+"If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n", "304", 0)
	f("Range", "GET /large"+fields+"Range: bytes=100-9000\r\n\r\n", "206", 8901, "Content-Range: bytes 100-9000/16384\r\n")
	f("416", "GET /large"+fields+"Range: bytes=20000-\r\n\r\n", "416", 0, "Content-Range: bytes */16384\r\n")
	for _, coding := range []string{"zstd", "br", "gzip", "deflate"} {
		accept := "Accept-Encoding: " + coding + "\r\n"
		f(coding, "GET /text"+fields+accept+"\r\n", "200", -1, "Content-Encoding: "+coding+"\r\n", "ETag: \"a-"+coding+"\"\r\n")
		f("304 in "+coding, "GET /text"+fields+accept+"If-None-Match: \"a-"+coding+"\"\r\n\r\n", "304", 0, "ETag: \"a-"+coding+"\"\r\n")
	}
	f("identity", "GET /text"+fields+"\r\n", "200", 16<<10)
}

func TestHitsSaveTheTimeOfTheOrigin(t *testing.T) {
	const slow = 30 * time.Millisecond
	o := origin.Start(t, func(c *origin.Conn) {
		for {
			c.Read()
			c.Sleep(slow)
			c.Write(cacheable("x"))
		}
	})
	r := begin(t, app(o.Address), caching("true"))
	saved := func() float64 { return r.metric("gateway_cache_saved_seconds_total", `route="r"`) }
	begun := time.Now()
	r.get("/").expect(t, 200, "x", "stored")
	most := time.Since(begun).Seconds()
	if s := saved(); s != 0 {
		t.Errorf("a miss saves %v s", s)
	}
	r.get("/").expect(t, 200, "x", "hit")
	r.until("it is counted", func() bool { return saved() > 0 })
	one := saved()
	if one < slow.Seconds() || one > most {
		t.Errorf("a hit saves %v s, the origin took from %v to %v s", one, slow.Seconds(), most)
	}
	for range 4 {
		r.get("/", "Range: bytes=0-").expect(t, 206, "x", "hit")
	}
	r.counts(5, "gateway_cache_requests_total", `result="hit"`)
	if s := saved(); math.Abs(s-5*one) > 1e-9 {
		t.Errorf("5 hits save %v s, one %v s", s, one)
	}
}
