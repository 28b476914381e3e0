package proxy

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"gateway/internal/mallocs"
	"gateway/internal/origin"
	"gateway/internal/testenv"
)

// echoing is an origin whose responses, cacheable for a minute, repeat the
// target; tagged with its first segment.
func echoing(t testing.TB) *recorder {
	t.Helper()
	o := &recorder{}
	o.Origin = origin.Start(t, func(c *origin.Conn) {
		for {
			q := c.Read()
			o.keep(q)
			segment, _, _ := strings.Cut(strings.TrimPrefix(q.Target, "/"), "/")
			c.Write(cacheable(q.Target, "Content-Type: text/plain", `ETag: "a"`, "Surrogate-Key: "+segment))
		}
	})
	return o
}

// tiered is a gateway with a Redis tier whose purges arrive.
func tiered(t *testing.T, o *recorder, url, options string) *running {
	t.Helper()
	r := begin(t, app(o.Address), "[redis]\nurl = \""+url+"\"\n", strings.Replace(caching("true"), "[cache]\n", "[cache]\nredis = true\n"+options, 1))
	r.until("the tier is up", func() bool { return r.metric("gateway_cache_tier_up") == 1 })
	return r
}

const patientTier = "redis_timeout = \"1s\"\n"

func TestGatewaysShareResponsesAndPurges(t *testing.T) {
	server := testenv.StartRedis(t)
	o := echoing(t)
	a, b := tiered(t, o, server.URL(), patientTier), tiered(t, o, server.URL(), patientTier)
	a.get("/x/1").expect(t, 200, "/x/1", "fwd=uri-miss; fwd-status=200; stored")
	a.get("/y/1").expect(t, 200, "/y/1", "stored")
	a.until("they are in Redis", func() bool { return a.metric("gateway_cache_tier_writes_total", `result="stored"`) == 2 })
	b.get("/x/1").expect(t, 200, "/x/1", "gateway; hit; ttl=")
	b.get("/x/1").expect(t, 200, "/x/1", "gateway; hit; ttl=")
	b.get("/y/1").expect(t, 200, "/y/1", "gateway; hit; ttl=")
	if n := o.Requests(); n != 2 {
		t.Errorf("%d requests at the origin, want 2", n)
	}
	b.counts(2, "gateway_cache_requests_total", `result="hit"`, `tier="redis"`)
	b.counts(1, "gateway_cache_requests_total", `result="hit"`, `tier="memory"`)

	begun := time.Now()
	a.cache.PurgeTag("x", false)
	b.until("the purge is heard", func() bool { return b.metric("gateway_cache_shared_purges_total", `way="received"`) == 1 })
	t.Logf("the purge took %v at most", time.Since(begun))
	b.get("/x/1").expect(t, 200, "/x/1", "fwd=uri-miss")
	b.get("/y/1").expect(t, 200, "/y/1", "hit")
	if n := o.Requests(); n != 3 {
		t.Errorf("%d requests at the origin after the purge, want 3", n)
	}
	// The other gets what is new.
	b.until("it is in Redis", func() bool { return b.metric("gateway_cache_tier_writes_total", `result="stored"`) == 1 })
	a.get("/x/1").expect(t, 200, "/x/1", "hit")
	if n := o.Requests(); n != 3 {
		t.Errorf("%d requests at the origin, want 3", n)
	}
}

func TestTierOutagesFailNothing(t *testing.T) {
	const deadline = 100 * time.Millisecond
	for name, took := range tierOutages(t, deadline) {
		if took > 30*deadline {
			t.Errorf("%s: a request took %v", name, took)
		}
	}
}

// tierOutages kills and freezes a cache's Redis under load, and fills it with
// garbage. No request may fail; it returns how long the slowest took, by what
// was done.
func tierOutages(t *testing.T, deadline time.Duration) map[string]time.Duration {
	server := testenv.StartRedis(t)
	o := echoing(t)
	r := tiered(t, o, server.URL(), fmt.Sprintf("redis_timeout = \"%v\"\n", deadline))
	slowestOf := map[string]time.Duration{}
	up := func(want float64) func() bool {
		return func() bool { return r.metric("gateway_cache_tier_up") == want }
	}
	phase := 0
	load := func(name string) {
		t.Helper()
		phase++
		var slowest atomic.Int64
		var all sync.WaitGroup
		for worker := range 4 {
			c := r.dial()
			all.Go(func() {
				for i := range 60 {
					path := fmt.Sprintf("/%d/%d/%d", phase, worker, i/2) // misses and hits
					begun := time.Now()
					c.send("GET " + path + " HTTP/1.1\r\nHost: test\r\n\r\n")
					if a := c.receive("GET"); a.StatusCode != 200 || a.body != path || a.err != nil {
						t.Errorf("%s: %s: %d %q %v", name, path, a.StatusCode, a.body, a.err)
						return
					}
					took := int64(time.Since(begun))
					for old := slowest.Load(); took > old && !slowest.CompareAndSwap(old, took); old = slowest.Load() {
					}
				}
			})
		}
		all.Wait()
		t.Logf("%s: the slowest of 240 took %v", name, time.Duration(slowest.Load()))
		slowestOf[name] = max(slowestOf[name], time.Duration(slowest.Load()))
	}
	load("well")
	server.Freeze()
	load("frozen")
	r.until("the tier is down", up(0))
	load("frozen")
	server.Thaw()
	r.until("the tier is up", up(1))
	load("thawed")
	server.Kill()
	load("killed")
	r.until("the tier is down", up(0))
	load("killed")
	server.Restart()
	r.until("the tier is up", up(1))
	load("restarted")
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer client.Close()
	garbage := func() {
		for _, key := range client.Keys(context.Background(), "gateway:*").Val() {
			client.Set(context.Background(), key, "\xffgarbage", 0)
		}
	}
	garbage()
	phase-- // what is asked for has been asked for
	r.cache.PurgeAll(false)
	load("garbage")
	garbage()
	load("garbage")
	if n := r.metric("gateway_panics_total"); n != 0 {
		t.Errorf("%v panics", n)
	}
	return slowestOf
}

func TestWhileRedisIsAwayOldResponsesAreValidated(t *testing.T) {
	server := testenv.StartRedis(t)
	o := echoing(t)
	r := tiered(t, o, server.URL(), "purge_lag = \"1s\"\n")
	r.get("/a").expect(t, 200, "/a", "stored")
	r.get("/a").expect(t, 200, "/a", "hit")
	server.Kill()
	r.until("it counts as stale", func() bool { return strings.Contains(r.get("/a").status(), "fwd=stale") })
	server.Restart()
	r.until("the tier is up", func() bool { return r.metric("gateway_cache_tier_up") == 1 })
	r.get("/a").expect(t, 200, "/a", "hit")
}

func TestStoredBodiesAreCodedOnce(t *testing.T) {
	body := strings.Repeat("a body that is worth it, ", 400)
	o := record(t, cacheable(body, "Content-Type: text/plain", `ETag: "a"`))
	r := begin(t, app(o.Address), caching("true\ncompress = [\"zstd\", \"br\", \"gzip\"]"))
	r.get("/").expect(t, 200, body, "stored")
	for _, coding := range []string{"gzip", "br", "zstd"} {
		responses := func() float64 {
			return r.metric("gateway_compress_responses_total", `coding="`+coding+`"`)
		}
		var last answer
		r.until("the form is made", func() bool {
			before := responses()
			last = r.get("/", "Accept-Encoding: "+coding)
			return responses() == before // nothing was coded for this one
		})
		if last.StatusCode != 200 || last.Header.Get("Content-Encoding") != coding || last.Header.Get("ETag") != `"a-`+coding+`"` ||
			!strings.Contains(last.Header.Get("Vary"), "Accept-Encoding") || !strings.Contains(last.status(), "hit") ||
			int64(len(last.body)) != last.ContentLength || len(last.body) > len(body)/10 {
			t.Errorf("%s: %v, %d bytes", coding, last.Header, len(last.body))
		}
		if coding == "gzip" {
			z, err := gzip.NewReader(bytes.NewReader([]byte(last.body)))
			if err != nil {
				t.Fatal(err)
			}
			if plain, err := io.ReadAll(z); err != nil || string(plain) != body {
				t.Errorf("decodes to %d bytes, %v", len(plain), err)
			}
		}
		a := r.get("/", "Accept-Encoding: "+coding, `If-None-Match: "a-`+coding+`"`)
		if a.StatusCode != 304 || a.Header.Get("ETag") != `"a-`+coding+`"` {
			t.Errorf("%s: %d, ETag %s", coding, a.StatusCode, a.Header.Get("ETag"))
		}
	}
	r.get("/").expect(t, 200, body, "hit")
	a := r.get("/", "Accept-Encoding: gzip", "Range: bytes=2-5")
	a.expect(t, 206, body[2:6], "hit")
	if n := o.Requests(); n != 1 {
		t.Errorf("%d requests at the origin, want 1", n)
	}
	r.counts(4, "gateway_cache_entries")
	// A new body has forms of its own.
	r.cache.PurgeAll(false)
	r.get("/").expect(t, 200, body, "stored")
}

func TestCodedHitsAllocNothing(t *testing.T) {
	if mallocs.Race {
		t.Skip("the race detector allocates")
	}
	body := strings.Repeat("a body that is worth it, ", 640) // 16 kB
	o := record(t, cacheable(body, "Content-Type: text/plain", `ETag: "a"`))
	r := begin(t, app(o.Address), caching("true\ncompress = [\"zstd\", \"br\", \"gzip\"]"))
	r.get("/")
	for _, coding := range []string{"gzip", "br", "zstd"} {
		r.until("the form is made", func() bool {
			before := r.metric("gateway_compress_responses_total", `coding="`+coding+`"`)
			r.get("/", "Accept-Encoding: "+coding)
			return r.metric("gateway_compress_responses_total", `coding="`+coding+`"`) == before
		})
		request := "GET / HTTP/1.1\r\nHost: test\r\nAccept-Encoding: " + coding + "\r\n"
		newSteady(r, request+"\r\n").allocatesNothing("a hit in " + coding)
		newSteady(r, request+`If-None-Match: "a-`+coding+`"`+"\r\n\r\n").allocatesNothing("304 in " + coding)
	}
}
