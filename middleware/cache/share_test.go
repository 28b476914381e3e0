package cache

import (
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"gateway/internal/testenv"
	"gateway/wire"
)

// cable is a way to a server that can be cut and held up.
type cable struct {
	t        testing.TB
	listener net.Listener
	to       string
	mu       sync.Mutex
	ends     []net.Conn
	severed  bool
	held     chan struct{} // closed while bytes pass
}

// lay lays a cable to a server until the test ends.
func lay(t testing.TB, to string) *cable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{t: t, listener: l, to: to, held: make(chan struct{})}
	close(c.held)
	t.Cleanup(func() {
		l.Close()
		c.sever()
		c.release()
	})
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				near.Close()
				continue
			}
			c.mu.Lock()
			if c.severed {
				near.Close()
				far.Close()
			}
			c.ends = append(c.ends, near, far)
			c.mu.Unlock()
			go c.pass(near, far)
			go c.pass(far, near)
		}
	}()
	return c
}

func (c *cable) pass(to, from net.Conn) {
	defer to.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		c.mu.Lock()
		held := c.held
		c.mu.Unlock()
		<-held
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
		if err != nil {
			return
		}
	}
}

func (c *cable) url() string { return "redis://" + c.listener.Addr().String() }

// sever closes all connections, and new ones at once.
func (c *cable) sever() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.severed = true
	for _, end := range c.ends {
		end.Close()
	}
	c.ends = nil
}

// mend undoes sever.
func (c *cable) mend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.severed = false
}

// hold lets nothing pass, without a word.
func (c *cable) hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = make(chan struct{})
}

// release undoes hold.
func (c *cable) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.held:
	default:
		close(c.held)
	}
}

func (y *play) ready() bool { return y.c.tier.Load().Ready() }

// verdict is a lookup that holds nothing.
func (y *play) verdict(line string, lines ...string) Verdict {
	defer y.l.Release()
	return y.look(line, lines...)
}

func TestPurgesReachOtherGateways(t *testing.T) {
	server := testenv.StartRedis(t)
	a, b := joined(t, server.URL()), joined(t, server.URL())
	n := 0
	f := func(name string, purge func(c *Cache, path string, soft bool)) {
		t.Helper()
		for _, soft := range []bool{false, true} {
			n++
			path := fmt.Sprintf("/%d/x", n)
			for _, y := range []*play{a, b} {
				y.fill("GET "+path, nil, 200, "x", fresh, `ETag: "a"`, fmt.Sprintf("Surrogate-Key: t%d", n))
				y.fill(fmt.Sprintf("GET /other%d", n), nil, 200, "x", fresh)
			}
			purge(a.c, path, soft)
			want := Miss
			if soft {
				want = Validate
			}
			if got := a.verdict("GET " + path); got != want {
				t.Errorf("%s: %d here, want %d", name, got, want)
			}
			await(t, name, func() bool { return b.verdict("GET "+path) == want })
			if got := b.verdict(fmt.Sprintf("GET /other%d", n)); got != Hit && name != "all" && name != "host" {
				t.Errorf("%s: others are %d", name, got)
			}
		}
	}
	f("tag", func(c *Cache, path string, soft bool) { c.PurgeTag(fmt.Sprintf("t%d", n), soft) })
	f("url", func(c *Cache, path string, soft bool) {
		c.PurgeURL([]*Policy{a.p}, &URL{Host: []byte("example.com"), Path: []byte(path)}, soft)
	})
	f("prefix", func(c *Cache, path string, soft bool) { c.PurgePrefix("example.com", path[:len(path)-1], soft) })
	f("host", func(c *Cache, path string, soft bool) { c.PurgeHost("example.com", soft) })
	f("all", func(c *Cache, path string, soft bool) { c.PurgeAll(soft) })

	// How long it takes, at rest.
	var times []time.Duration
	for i := range 30 {
		b.fill("GET /timed", nil, 200, "x", fresh, fmt.Sprintf("Surrogate-Key: timed%d", i))
		heard := b.c.counts.purges[purgeReceived].Load()
		begun := time.Now()
		a.c.PurgeTag(fmt.Sprintf("timed%d", i), false)
		for b.c.counts.purges[purgeReceived].Load() == heard {
			if time.Since(begun) > patient {
				t.Fatal("a purge does not arrive")
			}
			time.Sleep(100 * time.Microsecond)
		}
		times = append(times, time.Since(begun))
		if got := b.verdict("GET /timed"); got != Miss {
			t.Errorf("verdict %d after the purge", got)
		}
	}
	slices.Sort(times)
	t.Logf("a purge takes %v to the other gateway (median of 30), %v at most", times[len(times)/2], times[len(times)-1])
}

func TestGroupsAreInvalidatedOnOtherGateways(t *testing.T) {
	server := testenv.StartRedis(t)
	a, b := joined(t, server.URL()), joined(t, server.URL())
	b.fill("GET /", nil, 200, "x", fresh, `ETag: "a"`, `Cache-Groups: "g"`)
	b.fill("GET /posted", nil, 200, "x", fresh, `ETag: "a"`)
	b.fill("GET /other", nil, 200, "x", fresh, `ETag: "a"`)
	a.c.Invalidate([]*Policy{a.p}, wire.MethodPost, urlOf(ask(t, "GET /posted")), 200, fields(t, `Cache-Group-Invalidation: "g"`), nil)
	await(t, "the group", func() bool { return b.verdict("GET /") == Validate })
	await(t, "the target", func() bool { return b.verdict("GET /posted") == Miss })
	b.expect(Hit, "x", "GET /other")
}

func TestPurgedValuesInRedisAreMisses(t *testing.T) {
	server := testenv.StartRedis(t)
	a := joined(t, server.URL())
	paths := []string{"/a", "/b", "/c", "/d"}
	for i, path := range paths {
		a.fill("GET "+path, nil, 200, path, fresh, `ETag: "a"`, fmt.Sprintf("Surrogate-Key: t%d", i))
	}
	a.written(4)
	a.c.PurgeTag("t0", false)
	a.c.PurgeTag("t1", true)
	a.c.PurgeURL([]*Policy{a.p}, &URL{Host: []byte("example.com"), Path: []byte("/c")}, false)
	await(t, "the purges", func() bool { return a.c.counts.purges[purgeSent].Load() == 3 })
	if v := a.recall("GET /a"); v != Miss {
		t.Errorf("purged here: verdict %d", v)
	}
	b := joined(t, server.URL()) // which learns of them afterwards
	for i, want := range []Verdict{Miss, Validate, Miss, Hit} {
		if v := b.recall("GET " + paths[i]); v != want {
			t.Errorf("%s: verdict %d, want %d", paths[i], v, want)
		}
	}
	b.l.Release()
	// What comes after the purge is fine.
	a.fill("GET /a", nil, 200, "new", fresh, "Surrogate-Key: t0")
	a.written(5)
	if v := b.recall("GET /a"); v != Hit {
		t.Errorf("after the purge: verdict %d", v)
	}
	b.l.Release()
	// What was asked for before a purge and comes after it is not.
	q := ask(t, "GET /slow")
	a.look("GET /slow")
	_, f, _ := a.c.Begin(&a.l, q, a.now, true)
	b.c.PurgeTag("slow", false)
	await(t, "the purge", func() bool { return a.c.counts.purges[purgeReceived].Load() == 1 })
	if reason := f.Whole(a.origin(200, fresh, "Surrogate-Key: slow"), []byte("old")); reason != NoMemory {
		t.Errorf("stored what was purged meanwhile: %s", reason)
	}
}

func TestWhileTheSubscriptionIsCut(t *testing.T) {
	server := testenv.StartRedis(t)
	for _, silent := range []bool{false, true} {
		cable := lay(t, server.Addr())
		a, b := joined(t, cable.url()), joined(t, server.URL())
		a.fill("GET /purged", nil, 200, "x", fresh, `ETag: "a"`, "Surrogate-Key: p")
		a.fill("GET /kept", nil, 200, "x", fresh, `ETag: "a"`, "Surrogate-Key: k")
		a.fill("GET /swr", nil, 200, "x", fresh+", stale-while-revalidate=60")
		a.pass(6)
		a.fill("GET /young", nil, 200, "x", fresh)
		a.expect(Hit, "x", "GET /kept")
		if silent {
			cable.hold()
		} else {
			cable.sever()
		}
		await(t, "the cut", func() bool { return !a.c.tier.Load().connected.Load() })
		b.c.PurgeTag("p", false)
		a.expect(Validate, "x", "GET /purged")
		a.expect(Validate, "x", "GET /kept")
		a.expect(HitRefresh, "x", "GET /swr")
		a.expect(Hit, "x", "GET /young")
		await(t, "the purge", func() bool { return b.c.counts.purges[purgeSent].Load() == 1 })
		if silent {
			cable.sever() // what is under way must not arrive
			cable.release()
		}
		cable.mend()
		await(t, "the subscription", a.ready)
		a.expect(Miss, "", "GET /purged")
		a.expect(Hit, "x", "GET /kept")
		a.expect(Hit, "x", "GET /swr")
		if n := a.c.counts.purges[purgeMissed].Load(); n != 1 {
			t.Errorf("%d missed purges", n)
		}
	}
}

func TestMorePurgesThanRedisRemembers(t *testing.T) {
	server := testenv.StartRedis(t)
	cable := lay(t, server.Addr())
	a, b := joined(t, cable.url()), joined(t, server.URL())
	b.c.tier.Load().most = 8
	a.fill("GET /", nil, 200, "x", fresh)
	a.written(1)
	cable.sever()
	await(t, "the cut", func() bool { return !a.c.tier.Load().connected.Load() })
	for i := range 30 {
		b.c.PurgeTag(fmt.Sprint(i), false)
	}
	await(t, "the purges", func() bool { return b.c.counts.purges[purgeSent].Load() == 30 })
	cable.mend()
	await(t, "the subscription", a.ready)
	a.expect(Miss, "", "GET /")
	if v := a.recall("GET /"); v != Miss { // nor is the value in Redis to be trusted
		t.Errorf("verdict %d", v)
	}
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer client.Close()
	keys := b.c.tier.Load().keys()
	if n := client.HLen(t.Context(), keys[1]).Val() + client.HLen(t.Context(), keys[2]).Val(); n > 20 {
		t.Errorf("Redis holds %d records", n)
	}
	// The gateway that hears all loses nothing.
	b.fill("GET /b", nil, 200, "x", fresh)
	b.expect(Hit, "x", "GET /b")
}

func TestRedisThatForgets(t *testing.T) {
	server := testenv.StartRedis(t)
	a, b := joined(t, server.URL()), joined(t, server.URL())
	a.fill("GET /", nil, 200, "x", fresh, `ETag: "a"`, "Surrogate-Key: t")
	a.written(1)
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer client.Close()
	before := a.c.known.Load()
	value := client.Get(t.Context(), client.Keys(t.Context(), "test:cache:*").Val()[0]).Val()
	key := client.Keys(t.Context(), "test:cache:*").Val()[0]
	if err := client.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	await(t, "the new history", func() bool { return a.c.known.Load() > before && b.c.known.Load() > before })
	await(t, "the mark", func() bool { return a.verdict("GET /") == Validate })
	client.Set(t.Context(), key, value, 0) // from before
	if v := b.recall("GET /"); v != Miss {
		t.Errorf("verdict %d", v)
	}
	a.c.PurgeTag("t", false)
	await(t, "the purge", func() bool { return b.c.counts.purges[purgeReceived].Load() == 1 })
	a.expect(Miss, "", "GET /")
}

func TestPurgesWaitForRedis(t *testing.T) {
	server := testenv.StartRedis(t)
	cable := lay(t, server.Addr())
	a, b := joined(t, cable.url()), joined(t, server.URL())
	b.fill("GET /", nil, 200, "x", fresh, "Surrogate-Key: t")
	b.written(1)
	cable.sever()
	await(t, "the cut", func() bool { return !a.c.tier.Load().connected.Load() })
	a.c.PurgeTag("t", false)
	b.expect(Hit, "x", "GET /")
	cable.mend()
	await(t, "the purge", func() bool { return b.verdict("GET /") == Miss })
}

func TestLedger(t *testing.T) {
	y := newPlay(t, policy())
	y.fill("GET /", nil, 200, "x", fresh, "Surrogate-Key: t")
	y.look("GET /")
	defer y.l.Release()
	e := y.l.Entry
	tag := tagTarget(TagHash([]byte("t")))
	var l ledger
	l.last.Store(10)
	l.want(purge{target: tag})
	if l.fate(e, 100) != remove {
		t.Error("a purge that waits does not count")
	}
	batch := l.take(5)
	l.replace(nil, 3)
	if l.fate(e, 100) != remove {
		t.Error("a purge that is under way does not count")
	}
	l.failed(batch)
	if batch = l.take(5); len(batch) != 1 || l.fate(e, 100) != remove {
		t.Error("a purge that failed is lost")
	}
	l.want(purge{target: tag}) // once more meanwhile
	l.published(batch, 11)
	if l.last.Load() != 11 || l.fate(e, 100) != remove {
		t.Errorf("last %d, or the second one does not count", l.last.Load())
	}
	l.published(l.take(5), 12)
	for generation, want := range map[uint64]fate{2: remove, 11: remove, 12: keep, 100: keep} {
		if got := l.fate(e, generation); got != want {
			t.Errorf("generation %d: fate %d, want %d", generation, got, want)
		}
	}
	for i := range maxPending + 1 {
		l.want(purge{target: tagTarget(uint64(i))})
	}
	if n := len(l.pending); n > maxPending || l.fate(e, 1<<60) != remove {
		t.Errorf("%d purges wait, or the one of everything does not count", n)
	}
}

// A Redis that a failover has thrown back knows a smaller number than its
// gateways: numbers go on from theirs.
func TestRedisThatFallsBack(t *testing.T) {
	server := testenv.StartRedis(t)
	a, b := joined(t, server.URL()), joined(t, server.URL())
	a.c.PurgeTag("x", false)
	await(t, "the purge", func() bool {
		return b.c.counts.purges[purgeReceived].Load() == 1 && a.c.known.Load() == b.c.known.Load()
	})
	a.fill("GET /", nil, 200, "x", fresh, "Surrogate-Key: t")
	a.written(1)
	b.fill("GET /b", nil, 200, "x", fresh, "Surrogate-Key: t")
	before := a.c.known.Load()
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer client.Close()
	keys := a.c.tier.Load().keys()
	if err := client.HSet(t.Context(), keys[0], "n", fmt.Sprint(before-1)).Err(); err != nil {
		t.Fatal(err)
	}
	a.c.PurgeTag("t", false)
	await(t, "the purge", func() bool { return b.verdict("GET /b") == Miss })
	await(t, "the numbers", func() bool { return a.c.known.Load() > before && a.c.known.Load() == b.c.known.Load() })
	if v := b.recall("GET /"); v != Miss {
		t.Errorf("verdict %d", v)
	}
}
