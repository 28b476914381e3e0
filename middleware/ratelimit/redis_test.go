package ratelimit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"gateway/internal/clock"
	"gateway/internal/load"
	"gateway/internal/redisclient"
	"gateway/internal/testenv"
)

var sets atomic.Int64

// nodes are gateways that share a Redis, as many registries: by the name of a
// policy, its limiters. Their clients have the hooks.
func nodes(t *testing.T, server *testenv.Server, n int, policies map[string]Options, timeout time.Duration, hooks ...redis.Hook) map[string][]*Limiter {
	t.Helper()
	config := RedisOptions{URL: server.URL(), Timeout: timeout, PoolSize: 16, Prefix: fmt.Sprintf("test%d:", sets.Add(1))}
	limiters := map[string][]*Limiter{}
	var clients []*Redis
	for range n {
		set := build(t, newTestRegistry(t), policies, config)
		clients = append(clients, set.redis)
		for _, hook := range hooks {
			set.redis.client.AddHook(hook)
		}
		for name := range policies {
			limiters[name] = append(limiters[name], set.Limiter(name))
		}
	}
	eventually(t, "the nodes to know each other", func() bool {
		return !slices.ContainsFunc(clients, func(r *Redis) bool { return r.Nodes() != int64(n) })
	})
	return limiters
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// outcome is what a load got.
type outcome struct {
	admitted, asked atomic.Int64
	alone           atomic.Int64    // decided without Redis
	slowest         atomic.Int64    // ns that a decision took
	shares          [3]atomic.Int64 // admitted by each node
	fullest         atomic.Int64    // tokens that an allowed request left, at most
	elapsed         time.Duration
}

// press asks for a key on each node, at a rate that may change with time, for a
// while. What is due is counted by the time that has passed, so that a machine
// that stands still for a moment does not make the demand smaller.
func press(limiters []*Limiter, name string, span time.Duration, perSecond func(node int, at time.Duration) float64) *outcome {
	var r outcome
	var all sync.WaitGroup
	most := func(a *atomic.Int64, n int64) {
		for old := a.Load(); n > old && !a.CompareAndSwap(old, n); old = a.Load() {
		}
	}
	began := time.Now()
	for node, l := range limiters {
		all.Go(func() {
			k := l.Key(0, []byte(name))
			due := 0.0
			last := time.Duration(0)
			for at := time.Duration(0); at < span; at = time.Since(began) {
				due = min(due+perSecond(node, at)*(at-last).Seconds(), 1000)
				last = at
				for ; due >= 1; due-- {
					now := clock.Mono()
					v := l.Take(&k, 1, now)
					most(&r.slowest, clock.Mono()-now)
					r.asked.Add(1)
					if v.source == fromFallback {
						r.alone.Add(1)
					}
					if v.Allowed {
						r.admitted.Add(1)
						r.shares[node].Add(1)
						most(&r.fullest, v.Left)
					}
				}
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	all.Wait()
	r.elapsed = time.Since(began)
	return &r
}

func even(rate float64) func(int, time.Duration) float64 {
	return func(int, time.Duration) float64 { return rate }
}

// shapes are demands of three nodes: the same on each, most on one, and on one
// after the other.
func shapes(total float64) map[string]func(int, time.Duration) float64 {
	return map[string]func(int, time.Duration) float64{
		"even":   even(total / 3),
		"skewed": func(node int, _ time.Duration) float64 { return total * []float64{0.9, 0.06, 0.04}[node] },
		"shifting": func(node int, at time.Duration) float64 {
			if int(at/(300*time.Millisecond))%3 == node {
				return total
			}
			return 0
		},
	}
}

// TestStrictNodesAdmitExactlyTogether counts on the clock of Redis: what was
// admitted and what is left are the burst and what came in the meantime.
func TestStrictNodesAdmitExactlyTogether(t *testing.T) {
	t.Parallel()
	server := testenv.StartRedis(t)
	const rate, burst = 100, 100
	o := options(t, "100/s", burst)
	o.Store = "redis-strict"
	limiters := nodes(t, server, 3, map[string]Options{"api": o}, 5*time.Second)["api"]
	now := func() time.Time {
		at, err := limiters[0].state.redis.client.Time(context.Background()).Result()
		if err != nil {
			t.Error(err)
		}
		return at
	}
	var all sync.WaitGroup
	for name, demand := range shapes(3 * rate) {
		all.Go(func() {
			for attempt := 1; ; attempt++ {
				key := fmt.Sprint(name, attempt)
				k := limiters[0].Key(0, []byte(key))
				began := now()
				admitted := int64(0)
				if v := limiters[0].Take(&k, burst/2, clock.Mono()); v.Allowed { // from here on the bucket must never be full
					admitted += burst / 2
				}
				begun := now()
				r := press(limiters, key, 2*time.Second, demand)
				end := now()
				left := limiters[0].Take(&k, 0, clock.Mono()) // costs nothing
				ended := now()
				admitted += r.admitted.Load()
				if alone, full := r.alone.Load(), max(left.Left, r.fullest.Load()) >= burst-1; alone > 0 || full {
					t.Logf("%s: %d decisions without Redis, the bucket was full: %v; again", name, alone, full)
					if attempt == 10 {
						t.Errorf("%s: the machine is too slow for ten attempts", name)
						return
					}
					continue
				}
				least := burst + rate*end.Sub(begun).Seconds() - 1
				most := burst + rate*ended.Sub(began).Seconds() + 1
				got := float64(admitted) + burst - rate*time.Duration(left.Reset).Seconds()
				t.Logf("%s: %d of %d admitted, %d left", name, admitted, r.asked.Load(), left.Left)
				if got < least || got > most {
					t.Errorf("%s: %d admitted and %d left, want %.1f to %.1f together", name, admitted, left.Left, least, most)
				}
				return
			}
		})
	}
	all.Wait()
}

func TestStrictNodesKeepTheFillOfAChangedRate(t *testing.T) {
	server := testenv.StartRedis(t)
	o := options(t, "1/m", 10)
	o.Store = "redis-strict"
	r := newTestRegistry(t)
	config := RedisOptions{URL: server.URL(), Timeout: 2 * time.Second, PoolSize: 4, Prefix: "test:"}
	l := build(t, r, map[string]Options{"api": o}, config).Limiter("api")
	k := l.Key(0, []byte("a"))
	for i := range 8 {
		if v := l.Take(&k, 1, clock.Mono()); !v.Allowed || v.source != fromStrict || v.Left != int64(9-i) {
			t.Fatalf("request %d: %+v", i, v)
		}
	}
	o.Rate.Count = 10
	l = build(t, r, map[string]Options{"api": o}, config).Limiter("api")
	if v := l.Take(&k, 3, clock.Mono()); v.Allowed || v.Left != 2 || v.Wait < int64(5*time.Second) || v.Wait > int64(6*time.Second) {
		t.Errorf("%+v, want a denial with 2 left and a wait of one token's time", v)
	}
	if v := l.Take(&k, 2, clock.Mono()); !v.Allowed || v.Left != 0 {
		t.Errorf("%+v", v)
	} else {
		l.Refund(&k, 2, clock.Mono(), &v)
	}
	if v := l.Take(&k, 2, clock.Mono()); !v.Allowed {
		t.Errorf("after a refund: %+v", v)
	}
}

// TestLeasesComeBack leaves a lease unused and finds its tokens elsewhere.
func TestLeasesComeBack(t *testing.T) {
	t.Parallel()
	server := testenv.StartRedis(t)
	o := options(t, "1/m", 100)
	o.Store = "redis"
	limiters := nodes(t, server, 2, map[string]Options{"api": o}, 250*time.Millisecond)["api"]
	first := press(limiters[:1], "a", 300*time.Millisecond, even(100))
	eventually(t, "the unused lease to be given back", func() bool { return limiters[0].leased() == 0 })
	spent := first.admitted.Load()
	second := press(limiters[1:], "a", 2*time.Second, even(1000))
	if total := spent + second.admitted.Load(); total < 99 || total > 100+2*6 {
		t.Errorf("%d and %d admitted, want 100 together", spent, second.admitted.Load())
	}
	if spent == 0 {
		t.Error("nothing was spent of the lease")
	}
}

// TestNodesGoOnWithoutRedisAndComeBackWithoutABurst has all nodes of both
// stores ask for more than there is while their Redis freezes or dies, and
// comes back. In this time a busy machine takes its part of what is admitted;
// TestOutagesOfRedisCostLittle counts exactly.
func TestNodesGoOnWithoutRedisAndComeBackWithoutABurst(t *testing.T) {
	t.Parallel()
	o := options(t, "100/s", 50)
	leased, strict := o, o
	leased.Store, strict.Store = "redis", "redis-strict"
	policies := map[string]Options{"leased": leased, "strict": strict}
	frozen, killed := testenv.StartRedis(t), testenv.StartRedis(t)
	type group struct {
		name     string
		limiters []*Limiter
		ended    time.Time // its last load
		slow     time.Duration
	}
	var groups []*group
	for name, server := range map[string]*testenv.Server{"frozen": frozen, "killed": killed} {
		for store, limiters := range nodes(t, server, 3, policies, 40*time.Millisecond) {
			groups = append(groups, &group{name: store + ", Redis " + name, limiters: limiters})
		}
	}
	r := newRate(&o)
	demand := 100.0
	stalls := load.Stalls(t)
	phase := func(name string, span time.Duration, least float64) {
		var all sync.WaitGroup
		for _, g := range groups {
			all.Go(func() {
				there := r.burst // what came in between, in which nobody asked
				if !g.ended.IsZero() {
					there = min(r.burst, r.nano*float64(time.Since(g.ended)))
				}
				got := press(g.limiters, "a", span, even(demand))
				g.ended = time.Now()
				exact := there + r.nano*float64(got.elapsed)
				admitted := float64(got.admitted.Load())
				t.Logf("%s, %s: %.0f of %d admitted in %v, %+.1f %%; slowest decision %v", g.name, name, admitted, got.asked.Load(), got.elapsed,
					100*(admitted/exact-1), time.Duration(got.slowest.Load()))
				if most := exact*1.1 + r.nano*float64(leaseHorizon) + float64(3*starter(r, 3)); admitted > most {
					t.Errorf("%s, %s: %.0f admitted, want at most %.0f", g.name, name, admitted, most)
				}
				// While the machine keeps us from asking, tokens are lost.
				if admitted < min(least*(there+r.nano*float64(min(span, got.elapsed))), float64(got.asked.Load())/3) {
					t.Errorf("%s, %s: %.0f admitted, want about %.0f", g.name, name, admitted, exact)
				}
				// Who waits for a Redis that is away asks much less often.
				if wanted := 3 * demand * (span - 2*stalls()).Seconds(); span >= 5*time.Second && float64(got.asked.Load()) < wanted/2 {
					t.Errorf("%s, %s: %d decisions, want about %.0f", g.name, name, got.asked.Load(), wanted)
				}
				g.slow = max(g.slow, time.Duration(got.slowest.Load()))
			})
		}
		all.Wait()
	}
	phase("before", time.Second, 0.5) // the bucket is empty after this
	frozen.Freeze()
	killed.Kill()
	phase("while Redis is away", 5*time.Second, 0.6)
	frozen.Thaw()
	killed.Restart()
	phase("after", 2*time.Second, 0.4)
	for _, g := range groups {
		if stalled := stalls(); g.slow > time.Second+2*stalled { // the deadline is 40 ms
			t.Errorf("%s: a decision took %v, and the machine stood still for %v at most", g.name, g.slow, stalled)
		}
		eventually(t, "decisions to be shared again", func() bool {
			k := g.limiters[0].Key(0, []byte("another"))
			return g.limiters[0].Take(&k, 1, clock.Mono()).source != fromFallback
		})
	}
}

// TestLeasedDecisionsWaitForNoRedis has a Redis that takes everything and never
// answers, and half a minute's patience: each wait would be that long.
func TestLeasedDecisionsWaitForNoRedis(t *testing.T) {
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close() // closes what waits to be accepted
	o := options(t, "1/m", 1000)
	o.Store = "redis"
	config := RedisOptions{URL: "redis://" + mute.Addr().String(), Timeout: 30 * time.Second, PoolSize: 1, Prefix: "test:"}
	l := build(t, newTestRegistry(t), map[string]Options{"api": o}, config).Limiter("api")
	admitted := 0
	began := time.Now()
	for i := range 20_000 {
		k := l.Key(0, []byte{byte(i % 10)})
		if l.Take(&k, 1, clock.Mono()).Allowed {
			admitted++
		}
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("20,000 decisions without an answer took %v", took)
	}
	if least, most := 10*int(starter(newRate(&o), 1)), 10*(1000+1); admitted < least || admitted > most {
		t.Errorf("%d admitted of ten keys, want %d to %d", admitted, least, most)
	}
}

func TestWithoutRedisANodeDecidesAsItIsTold(t *testing.T) {
	for _, store := range []string{"redis", "redis-strict"} {
		for _, down := range []string{"local", "open", "closed"} {
			o := options(t, "1/m", 5)
			o.Store, o.RedisDown = store, down
			config := RedisOptions{URL: "redis://127.0.0.1:1/0", Timeout: 50 * time.Millisecond, PoolSize: 4, Prefix: "test:"}
			l := build(t, newTestRegistry(t), map[string]Options{"api": o}, config).Limiter("api")
			k := l.Key(0, []byte("a"))
			eventually(t, "the breaker to open", func() bool {
				other := l.Key(0, []byte("b"))
				l.Take(&other, 1, clock.Mono())
				return l.state.redis.breaker.IsOpen()
			})
			admitted := 0
			for range 100 {
				if l.Take(&k, 1, clock.Mono()).Allowed {
					admitted++
				}
			}
			if want := map[string]int{"local": 5, "open": 100, "closed": 0}[down]; admitted != want {
				t.Errorf("%s, %s: %d admitted, want %d", store, down, admitted, want)
			}
		}
	}
}

func TestLeasedDecisionsAllocateNothing(t *testing.T) {
	if raceDetector() {
		t.Skip("the race detector allocates")
	}
	r := newRate(&Options{Rate: options(t, "1/m", 10).Rate, Burst: 10})
	l := &leases{redis: &Redis{breaker: redisclient.NewBreaker(func(bool) {})}, wake: make(chan struct{}, 1)} // without a renewer, which may allocate
	l.redis.nodes.Store(3)
	l.rate.Store(r)
	s := &l.shards[1]
	s.index, s.most = map[uint64]int32{}, 10
	k := Key{hash: 1}
	if n := testing.AllocsPerRun(20_000, func() { l.take(&k, 1, clock.Mono(), "local") }); n > 0 {
		t.Errorf("%v allocations a decision", n)
	}
	if len(s.dirty) != 1 {
		t.Errorf("queued %d times", len(s.dirty))
	}
}

func TestALimitedLeaseIsNotForgotten(t *testing.T) {
	r := newRate(&Options{Rate: options(t, "1/m", 1).Rate, Burst: 1})
	s := leaseShard{index: map[uint64]int32{}, most: 100}
	now := int64(time.Hour)
	for key := range uint64(100) {
		e, _ := s.find(&Key{hash: key + 1}, now, r)
		e.debt, e.at = 1, now
	}
	for key := range uint64(1000) {
		if e, at := s.find(&Key{hash: key + 1000}, now, r); at != -1 || e != &s.overflow {
			t.Fatalf("key %d took the place of one that is limited", key)
		}
	}
	now += int64(2 * time.Minute)
	if _, at := s.find(&Key{hash: 5000}, now, r); at < 0 || len(s.entries) != 100 {
		t.Error("there is no room although nobody is limited any more")
	}
}

func TestRedisIsLeftWithTheLastPolicyThatNeedsIt(t *testing.T) {
	server := testenv.StartRedis(t)
	config := RedisOptions{URL: server.URL(), Timeout: time.Second, PoolSize: 4, Prefix: "test:"}
	r := newTestRegistry(t)
	shared, local := options(t, "1/m", 5), options(t, "1/m", 5)
	shared.Store = "redis"
	first := build(t, r, map[string]Options{"a": shared}, config)
	l := first.Limiter("a")
	k := l.Key(0, nil)
	l.Take(&k, 1, clock.Mono())
	shared.Burst = 6
	second := build(t, r, map[string]Options{"a": shared}, config)
	if second.redis != first.redis || second.Limiter("a").state != l.state {
		t.Error("an unchanged Redis, or its leases, are not kept")
	}
	build(t, r, map[string]Options{"a": local}, config)
	if err := second.redis.client.Ping(t.Context()).Err(); err == nil {
		t.Error("the client is still open")
	}
	for range 5 { // of a request that began before
		l.Take(&k, 1, clock.Mono())
	}
}

// timedSource is the script with the time as its last two arguments, in seconds
// and µs, instead of the server's.
func timedSource(t *testing.T) string {
	t.Helper()
	source := strings.Replace(bucketSource, "redis.call('TIME')", "{ARGV[9], ARGV[10]}", 1)
	if source == bucketSource {
		t.Fatal("the script does not ask for the time")
	}
	return source
}

// TestScriptAgreesWithTheTable asks both stores the same random questions. The
// script gets the time from the test instead of from the server.
func TestScriptAgreesWithTheTable(t *testing.T) {
	t.Parallel()
	server := testenv.StartRedis(t)
	script := redis.NewScript(timedSource(t))
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer client.Close()
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 4))
		o := options(t, []string{"1/s", "10/s", "1/m", "1000/s", "100000/s", "24/d"}[random.IntN(6)], 1+random.IntN(20))
		table, r := bucketsOf(&o), newRate(&o)
		cost, _ := o.scale()
		micros := max(1, int64(1/r.nano)/1000) // of a token
		at := int64(time.Hour / time.Microsecond)
		for step := range 150 {
			switch random.IntN(3) {
			case 0:
				at += random.Int64N(micros)
			case 1:
				at += random.Int64N(3 * micros)
			}
			key, n := random.Uint64N(3)+1, random.Int64N(o.burst()+2)
			want := table.take(key, units(at*1000), uint64(n)*cost, 0)
			a := ask{want: n, least: n, nodes: 1}
			a.read(script.Run(t.Context(), client, []string{fmt.Sprint(seed, ":", key)},
				append(a.arguments(r, r.burst), at/1_000_000, at%1_000_000)...))
			if a.err != nil {
				t.Fatal(a.err)
			}
			got := r.verdict(a.debt, fromStrict)
			if allowed := a.granted == n; allowed != want.Allowed || got.Left != want.Left {
				t.Fatalf("seed %d step %d: %d of key %d: %v with %d left; the table says %v with %d left",
					seed, step, n, key, allowed, got.Left, want.Allowed, want.Left)
			}
		}
	}
}

// TestManyLeasedKeys has more keys than one round trip holds.
func TestManyLeasedKeys(t *testing.T) {
	t.Parallel()
	server := testenv.StartRedis(t)
	o := options(t, "1/m", 3)
	o.Store = "redis"
	limiters := nodes(t, server, 3, map[string]Options{"api": o}, 250*time.Millisecond)["api"]
	const keys = 3000
	var admitted [keys]atomic.Int64
	var fallbacks atomic.Int64
	var all sync.WaitGroup
	for _, l := range limiters {
		all.Go(func() {
			for range 4 {
				for i := range keys {
					k := l.Key(0, []byte(fmt.Sprint("key", i)))
					v := l.Take(&k, 1, clock.Mono())
					if v.Allowed {
						admitted[i].Add(1)
					}
					if v.source == fromFallback {
						fallbacks.Add(1)
					}
					if i%10 == 0 {
						time.Sleep(2 * time.Millisecond)
					}
				}
			}
		})
	}
	all.Wait()
	total := int64(0)
	for i := range admitted {
		n := admitted[i].Load()
		total += n
		if n < 1 || n > 3+3+1 {
			t.Fatalf("key %d: %d admitted, want 3, and no more than one of each node beyond", i, n)
		}
	}
	t.Logf("%d admitted of %d keys, want %d; %d decided alone", total, keys, 3*keys, fallbacks.Load())
	if total < 3*keys*8/10 {
		t.Errorf("%d admitted of %d keys, want about %d", total, keys, 3*keys)
	}
}

// TestLeasesUnderConcurrentUse is for the race detector, and counts.
func TestLeasesUnderConcurrentUse(t *testing.T) {
	t.Parallel()
	server := testenv.StartRedis(t)
	const burst = 2000
	o := options(t, "1/d", burst)
	o.Store = "redis"
	l := nodes(t, server, 1, map[string]Options{"api": o}, 250*time.Millisecond)["api"][0]
	var kept atomic.Int64
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			k := l.Key(0, []byte("a"))
			for i := range 4000 {
				now := clock.Mono()
				v := l.Take(&k, 1, now)
				switch {
				case !v.Allowed:
					time.Sleep(100 * time.Microsecond)
				case i%4 == worker:
					l.Refund(&k, 1, now, &v)
				default:
					kept.Add(1)
				}
			}
		})
	}
	all.Wait()
	if n := kept.Load(); n > burst+starter(newRate(&o), 1) || n < burst*3/4 {
		t.Errorf("%d admitted and kept, want %d, and no more than a starter beyond", n, burst)
	}
}

// TestALateAnswerBringsNoBurst has Redis answer five seconds late, in which the
// node has decided alone: what Redis knows of the bucket is old by then.
func TestALateAnswerBringsNoBurst(t *testing.T) {
	o := options(t, "10/s", 10)
	r := newRate(&o)
	l := &leases{redis: &Redis{breaker: redisclient.NewBreaker(func(bool) {})}}
	l.redis.nodes.Store(1)
	l.rate.Store(r)
	now := clock.Mono()
	e := &lease{key: Key{hash: 1}, at: now, last: now}
	shard := &leaseShard{entries: []lease{*e}}
	e = &shard.entries[0]
	l.decide(e, 1, now, r, "local") // a starter
	a, told, ok := l.prepare(e, now)
	if !ok || a.spent != 1 {
		t.Fatalf("nothing is asked: %+v", a)
	}
	e.asked = now - int64(leasePatience) - 1
	admitted := 0
	for range 100 {
		if v, _ := l.decide(e, 1, now, r, "local"); v.Allowed && v.source == fromFallback {
			admitted++
		}
	}
	if admitted != 9 {
		t.Fatalf("%d admitted without Redis, want 9", admitted)
	}
	a.granted, a.debt = 3, 4
	l.enter(&a, &renewal{shard: shard, hash: 1, told: told}, now-int64(5*time.Second))
	if lacks := e.lacks(now, r); e.tokens > 0 || lacks < 9 || !e.guess {
		t.Errorf("%d tokens, and %.1f lack after a late answer; want none, and about 10; to be told: %v", e.tokens, lacks, e.guess)
	}
	if a, _, ok := l.prepare(e, clock.Mono()+int64(leaseHorizon)*2); ok && a.floor < 8 {
		t.Errorf("Redis is told of a debt of %.1f", a.floor)
	}
}
