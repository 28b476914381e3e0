package cache

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"gateway/internal/redisclient"
	"gateway/internal/testenv"
	"gateway/wire"
)

// patient is a time limit that a busy machine keeps.
const patient = 10 * time.Second

// joined is a gateway's cache with a tier in the Redis of this URL, whose
// purges arrive.
func joined(t testing.TB, url string, change ...func(*Options)) *play {
	t.Helper()
	y := &play{TB: t, c: newCache(t), p: policy(), now: time.Now().UnixNano()}
	join(t, y.c, url, change...)
	await(t, "the subscription", func() bool { return y.c.tier.Load().Ready() })
	return y
}

func join(t testing.TB, c *Cache, url string, change ...func(*Options)) {
	t.Helper()
	o := Options{Redis: true, RedisTimeout: patient, RedisQueue: 1000, PurgeLag: 5 * time.Second}
	for _, f := range change {
		f(&o)
	}
	tier, err := NewTier(redisclient.Options{URL: url, PoolSize: 16, Prefix: "test:"}, o, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	c.Join(tier)
}

// written waits until n responses are in Redis.
func (y *play) written(n uint64) {
	y.Helper()
	await(y, "the write", func() bool { return y.c.counts.writes[writeStored].Load() >= n })
}

// recall is a request that misses in memory and whose leader asks the tier; if
// that has nothing the flight is given up. The entry stays in y.l.
func (y *play) recall(line string, lines ...string) Verdict {
	y.Helper()
	v, f := y.lead(line, lines...)
	if f != nil {
		f.Pass()
	}
	return v
}

// lead is recall whose flight goes on when it is not nil.
func (y *play) lead(line string, lines ...string) (Verdict, *Flight) {
	y.Helper()
	q := ask(y, line, lines...)
	if v := y.c.Lookup(&y.l, y.p, q, urlOf(q), nil, y.now); v != Miss && v != Validate {
		return v, nil
	}
	role, f, _ := y.c.Begin(&y.l, q, y.now, true)
	if f == nil {
		y.Fatalf("%s: role %d", line, role)
	}
	if f.Recall(&y.l, q, y.now) {
		return y.l.Verdict, nil
	}
	return y.l.Verdict, f
}

func TestResponsesOfOneGatewayServeAnother(t *testing.T) {
	server := testenv.StartRedis(t)
	a, b := joined(t, server.URL()), joined(t, server.URL())
	f := func(want Verdict, body, line string, lines ...string) {
		t.Helper()
		if got := b.recall(line, lines...); got != want {
			t.Errorf("%s %q: verdict %d, want %d", line, lines, got, want)
		} else if want == Hit && (string(b.l.Entry.Body()) != body || !b.l.Recalled) {
			t.Errorf("%s %q: body %q, recalled %v", line, lines, b.l.Entry.Body(), b.l.Recalled)
		}
		b.l.Release()
	}
	big := strings.Repeat("compressible ", 5000)
	a.fill("GET /a", nil, 200, "small", fresh, `ETag: "a"`)
	a.fill("GET /big", nil, 200, big, fresh, "Content-Type: text/plain")
	a.fill("GET /v", []string{"Foo: 1"}, 200, "one", fresh, "Vary: Foo")
	a.fill("GET /v", []string{"Foo: 2"}, 200, "two", fresh, "Vary: Foo")
	a.fill("GET /v", []string{"Foo: 2", "Bar: 1"}, 200, "three", fresh, "Vary: Foo, Bar")
	a.fill("GET /404", nil, 404, "none", fresh)
	a.fill("GET /part", []string{"Range: bytes=0-3"}, 206, "part", fresh, `ETag: "p"`, "Content-Range: bytes 0-3/10")
	a.written(9)
	f(Hit, "small", "GET /a")
	f(Hit, big, "GET /big")
	f(Hit, "one", "GET /v", "Foo: 1")
	f(Hit, "three", "GET /v", "Foo: 2", "Bar: 1")
	f(Hit, "two", "GET /v", "Foo: 2", "Bar: 2")
	f(Miss, "", "GET /v", "Foo: 3")
	f(Hit, "none", "GET /404")
	f(Miss, "", "GET /part", "Range: bytes=0-3")
	f(Miss, "", "GET /other")
	f(Miss, "", "GET /a?x")
	// It is in memory now.
	for _, line := range []string{"GET /a", "GET /big", "GET /404"} {
		if got := b.look(line); got != Hit || b.l.Recalled {
			t.Errorf("%s: verdict %d, recalled %v", line, got, b.l.Recalled)
		}
	}
	if got := b.look("GET /v", "Foo: 1"); got != Hit || string(b.l.Entry.Body()) != "one" {
		t.Errorf("the variant: verdict %d", got)
	}
	// A new variant lives beside those that were recalled.
	b.fill("GET /v", []string{"Foo: 4"}, 200, "four", fresh, "Vary: Foo")
	b.expect(Hit, "one", "GET /v", "Foo: 1")
	b.expect(Hit, "four", "GET /v", "Foo: 4")

	// Who asks for something of his own does not ask Redis, nor is a stale
	// response anything that the other does not have.
	asked := b.c.counts.tier[TierHit].Load() + b.c.counts.tier[TierMiss].Load()
	f(Validate, "", "GET /a", "Cache-Control: no-cache")
	if got := b.c.counts.tier[TierHit].Load() + b.c.counts.tier[TierMiss].Load(); got != asked {
		t.Error("no-cache has asked Redis")
	}
	b.pass(3601)
	f(Validate, "", "GET /a")
	// The other has validated it.
	a.pass(3602)
	q := ask(t, "GET /a")
	a.look("GET /a")
	_, flight, _ := a.c.Begin(&a.l, q, a.now, true)
	n := a.c.counts.writes[writeStored].Load()
	e, reason, ok := flight.NotModified(&a.l.Entry, a.origin(304, fresh, `ETag: "a"`))
	e.Release()
	a.l.Release()
	if !ok || reason != Storable {
		t.Fatal(reason)
	}
	a.written(n + 1)
	b.pass(2)
	f(Hit, "small", "GET /a")
}

func TestLeadersBringWhatRedisHasToTheirWaiters(t *testing.T) {
	server := testenv.StartRedis(t)
	a, b := joined(t, server.URL()), joined(t, server.URL())
	a.fill("GET /", nil, 200, "body", fresh)
	a.written(1)
	q := ask(t, "GET /")
	b.look("GET /")
	_, f, _ := b.c.Begin(&b.l, q, b.now, true)
	var other Lookup
	b.c.Lookup(&other, b.p, q, urlOf(q), nil, b.now)
	role, _, r := b.c.Begin(&other, q, b.now, true)
	if role != Wait {
		t.Fatal(role)
	}
	defer r.Close()
	if !f.Recall(&b.l, q, b.now) || b.l.Verdict != Hit {
		t.Fatal(b.l.Verdict)
	}
	if got := r.Wait(&other, q, b.now); got != ShareAgain {
		t.Errorf("the waiter: %d", got)
	}
	if v := b.c.Lookup(&other, b.p, q, urlOf(q), nil, b.now); v != Hit {
		t.Errorf("looking again: %d", v)
	}
	other.Release()
	b.l.Release()
	if n := b.c.flights.oldest(); n != 1<<64-1 {
		t.Error("the flight has not ended")
	}
}

func TestRefreshesTakeWhatIsFreshOnly(t *testing.T) {
	server := testenv.StartRedis(t)
	a, b := joined(t, server.URL()), joined(t, server.URL())
	refresh := func(stored uint64, ended bool, want Verdict, body string) {
		t.Helper()
		a.written(stored)
		q := ask(t, "GET /")
		if v := b.look("GET /"); v != HitRefresh {
			t.Fatal(v)
		}
		f, begun := b.c.Refresh(&b.l, q)
		if !begun {
			t.Fatal("no flight")
		}
		if got := f.Recall(&b.l, q, b.now); got != ended || b.l.Verdict != want || string(b.l.Entry.Body()) != body {
			t.Errorf("ended %v, verdict %d, body %q", got, b.l.Verdict, b.l.Entry.Body())
		}
		if !ended {
			f.Pass()
		}
		b.l.Release()
	}
	const control = "Cache-Control: max-age=60, stale-while-revalidate=600"
	b.fill("GET /", nil, 200, "old", control)
	b.written(1)
	a.pass(60)
	a.fill("GET /", nil, 200, "new", control)
	b.pass(121)
	refresh(1, false, HitRefresh, "new") // newer, and stale too
	a.pass(30)
	a.fill("GET /", nil, 200, "newest", control)
	refresh(2, true, Hit, "newest")
}

func TestForeignValuesAreMisses(t *testing.T) {
	server := testenv.StartRedis(t)
	a, b := joined(t, server.URL()), joined(t, server.URL())
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer client.Close()
	ctx := t.Context()
	body := strings.Repeat("some body, ", 100)
	a.fill("GET /a", nil, 200, body, fresh)
	a.fill("GET /b", nil, 200, body, fresh)
	a.written(2)
	names := client.Keys(ctx, "test:cache:*").Val()
	if len(names) != 2 {
		t.Fatalf("keys %q", names)
	}
	for _, name := range names {
		if ttl := client.PTTL(ctx, name).Val(); ttl <= time.Hour || ttl > 2*time.Hour {
			t.Errorf("the value lives for %v; want its freshness and an hour", ttl)
		}
		if n := client.StrLen(ctx, name).Val(); n > int64(len(body))/2 {
			t.Errorf("%d bytes for a body of %d", n, len(body))
		}
	}
	good := client.Get(ctx, names[0]).Val()
	f := func(name string, write func(key string)) {
		t.Helper()
		for _, key := range names {
			client.Del(ctx, key)
			write(key)
		}
		before := b.c.counts.tier[TierInvalid].Load()
		for _, line := range []string{"GET /a", "GET /b"} {
			if v := b.recall(line); v != Miss {
				t.Errorf("%s: verdict %d", name, v)
			}
		}
		if got := b.c.counts.tier[TierInvalid].Load(); got != before+2 {
			t.Errorf("%s: not seen as such", name)
		}
	}
	set := func(value string) func(string) {
		return func(key string) { client.Set(ctx, key, value, 0) }
	}
	f("empty", set(""))
	f("text", set("hello"))
	f("cut", set(good[:len(good)-1]))
	f("longer", set(good+"x"))
	f("header only", set(good[:valueHeader]))
	f("flipped", func(key string) {
		value := []byte(good)
		value[rand.IntN(len(value))] ^= 1 << rand.IntN(8)
		client.Set(ctx, key, value, 0)
	})
	f("list", func(key string) { client.RPush(ctx, key, good) })
	f("hash", func(key string) { client.HSet(ctx, key, "a", good) })
	// A value under the name of another is not taken for it.
	client.Del(ctx, names...)
	client.Set(ctx, names[0], good, 0)
	client.Set(ctx, names[1], good, 0)
	if one, other := b.recall("GET /a"), b.recall("GET /b"); (one == Hit) == (other == Hit) {
		t.Errorf("verdicts %d and %d", one, other)
	}
	b.l.Release()
}

func TestTierFailures(t *testing.T) {
	server := testenv.StartRedis(t)
	const deadline = 100 * time.Millisecond
	y := joined(t, server.URL(), func(o *Options) { o.RedisTimeout = deadline })
	for i := range 20 {
		y.fill(fmt.Sprintf("GET /%d", i), nil, 200, "body", fresh)
	}
	y.written(20)
	n := 0
	// Many gateways' worth of misses, none of which may fail or wait longer
	// than its deadline and what a busy machine adds.
	load := func(name string) {
		t.Helper()
		var slowest atomic.Int64
		var all sync.WaitGroup
		for worker := range 8 {
			all.Go(func() {
				mine := &play{TB: t, c: y.c, p: y.p, now: y.now}
				for i := range 50 {
					begun := time.Now()
					if v := mine.recall(fmt.Sprintf("GET /%s-%d-%d-%d", name, n, worker, i)); v != Miss {
						t.Errorf("%s: verdict %d", name, v)
					}
					if took := int64(time.Since(begun)); took > slowest.Load() {
						slowest.Store(took)
					}
				}
				mine.l.Release()
			})
		}
		all.Wait()
		n++
		t.Logf("%s: the slowest of 400 took %v", name, time.Duration(slowest.Load()))
		if took := time.Duration(slowest.Load()); took > 30*deadline {
			t.Errorf("%s: a lookup took %v", name, took)
		}
	}
	load("well")
	server.Freeze()
	load("frozen")
	await(t, "the breaker", func() bool { load("frozen"); return !y.c.tier.Load().Ready() })
	skipped := y.c.counts.tier[TierSkipped].Load()
	load("frozen")
	if got := y.c.counts.tier[TierSkipped].Load(); got != skipped+400 {
		t.Errorf("%d of 400 went past the breaker", 400-(got-skipped))
	}
	server.Thaw()
	await(t, "the thaw", func() bool { return y.c.tier.Load().Ready() })
	load("thawed")
	server.Kill()
	load("killed")
	await(t, "the breaker", func() bool { return !y.c.tier.Load().Ready() })
	load("killed")
	if reason := y.fill("GET /while-dead", nil, 200, "x", fresh); reason != Storable {
		t.Error(reason)
	}
	y.expect(Hit, "x", "GET /while-dead")
	server.Restart()
	await(t, "the restart", func() bool { return y.c.tier.Load().Ready() })
	load("restarted")

	// Garbage everywhere, in what gateways share about purges too.
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer client.Close()
	ctx := context.Background()
	for _, key := range append(client.Keys(ctx, "test:*").Val(), y.c.tier.Load().keys()...) {
		client.Set(ctx, key, "\x00garbage", 0)
	}
	load("garbage")
	client.Publish(ctx, y.c.tier.Load().channel(), "garbage")
	client.Publish(ctx, y.c.tier.Load().channel(), "18446744073709551615 x y")
	sent := y.c.counts.purges[purgeSent].Load()
	y.c.PurgeTag("a", false)
	await(t, "a purge through garbage", func() bool { return y.c.counts.purges[purgeSent].Load() == sent+1 })
	load("garbage")
}

func TestTierWithCluster(t *testing.T) {
	url := testenv.StartRedisCluster(t).URL()
	a, b := joined(t, url), joined(t, url)
	a.fill("GET /", nil, 200, "body", fresh, "Surrogate-Key: x")
	a.written(1)
	if v := b.recall("GET /"); v != Hit {
		t.Fatal(v)
	}
	b.l.Release()
	a.c.PurgeTag("x", false)
	await(t, "the purge", func() bool { v := b.look("GET /"); b.l.Release(); return v == Miss })
}

func TestPurgesSurviveARestartOfTheGateway(t *testing.T) {
	server := testenv.StartRedis(t)
	later := time.Now().Add(time.Minute)
	path := filepath.Join(t.TempDir(), "cache")
	a, b := joined(t, server.URL()), joined(t, server.URL())
	b.c.PurgeTag("other", false)
	await(t, "the purge", func() bool { return a.c.known.Load() > 0 && a.c.known.Load() == b.c.known.Load() })
	a.fill("GET /x", nil, 200, "x", fresh, "Surrogate-Key: x")
	a.fill("GET /y", nil, 200, "y", fresh, "Surrogate-Key: y")
	a.c.Join(nil)
	if _, err := a.c.Save(path, a.now, later); err != nil {
		t.Fatal(err)
	}
	b.c.PurgeTag("x", false)
	await(t, "the purge", func() bool { return b.c.counts.purges[purgeSent].Load() == 2 })
	a.c = newCache(t)
	if n, err := a.c.Load(path, a.now, later); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	join(t, a.c, server.URL())
	await(t, "the subscription", func() bool { return a.c.tier.Load().Ready() })
	a.expect(Miss, "", "GET /x")
	a.expect(Hit, "y", "GET /y")
}

func FuzzDecodeValue(f *testing.F) {
	y := newPlay(f, policy())
	y.fill("GET /v", []string{"Foo: 1"}, 200, strings.Repeat("body ", 100), fresh, "Vary: Foo", `ETag: "a"`, "Surrogate-Key: a b")
	enc := newEncoder()
	y.look("GET /v", "Foo: 1")
	f.Add(append([]byte(nil), enc.encode(&y.l.Entry, 7)...))
	lists, _ := y.c.store.lookup(y.l.hash, y.l.key[:y.l.primary], y.now, false)
	f.Add(append([]byte(nil), enc.encode(&lists, 7)...))
	lists.Release()
	y.l.Release()
	d := newDecoder(1 << 20)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= valueHeader { // or nothing but the hash would be looked at
			le.PutUint64(b[atHashOfValue:], hashOf(b[:atHashOfValue], b[valueHeader:]))
		}
		e, _, ok := d.decode(b)
		if !ok {
			return
		}
		// What decodes can be used in every way.
		var h wire.Header
		if h.ParseFields(e.Head(), 0) != wire.NoFault {
			t.Fatal("fields")
		}
		e.Terms()
		variantOf(&e)
		var r records
		for _, kind := range []target{{kind: kindAll}, tagTarget(1), urlTarget(nil), hostTarget(nil), prefixTarget(nil, []byte("/"))} {
			r.add(kind, 5, true)
		}
		r.fate(e, 1)
		again, _, ok := d.decode(newEncoder().encode(&e, 9))
		if !ok || string(again.blob) != string(e.blob) {
			t.Fatal("does not encode to itself")
		}
	})
}
