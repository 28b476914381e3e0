package ratelimit

import (
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gateway/internal/clock"
)

func TestConcurrentTakersShareOneBucketAKey(t *testing.T) {
	o := options(t, "1/d", 50)
	o.MaxKeys = 1000
	table := bucketsOf(&o)
	cost, _ := o.scale()
	const keys = 400
	var admitted [keys]atomic.Int64
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			random := rand.New(rand.NewPCG(uint64(worker), 5))
			for range 50 * keys {
				key := random.IntN(keys)
				if table.take(uint64(key+1)*0x9E3779B97F4A7C15, 16, cost, 0).Allowed {
					admitted[key].Add(1)
				}
			}
		})
	}
	all.Wait()
	for key := range admitted {
		if n := admitted[key].Load(); n != 50 {
			t.Errorf("key %d: %d admitted, want 50", key, n)
		}
	}
}

// TestSlotsThatChangeHandsLoseNothing has more keys than slots, of which each
// is idle most of the time, and counts what each gets.
func TestSlotsThatChangeHandsLoseNothing(t *testing.T) {
	o := options(t, "1000/s", 1)
	o.MaxKeys = 64
	table := bucketsOf(&o)
	cost, _ := o.scale()
	var now atomic.Int64
	now.Store(int64(time.Second))
	var all sync.WaitGroup
	var admitted, asked atomic.Int64
	for worker := range 4 {
		all.Go(func() {
			for i := range 20_000 {
				// Keys of a worker are its own and never asked twice within their
				// idle time: all have to be admitted unless slots mix them up.
				key := uint64(worker*20_000+i)*0x9E3779B97F4A7C15 | 1
				at := now.Add(int64(100 * time.Microsecond))
				asked.Add(1)
				if table.take(key, units(at), cost, 0).Allowed {
					admitted.Add(1)
				}
			}
		})
	}
	all.Wait()
	if admitted.Load() != asked.Load() {
		t.Errorf("%d of %d new keys were admitted", admitted.Load(), asked.Load())
	}
}

func TestALimitedKeyStaysLimitedWhenTheTableIsFull(t *testing.T) {
	takeCore(t)
	o := options(t, "1/m", 2)
	o.MaxKeys = 1000
	table := bucketsOf(&o)
	cost, _ := o.scale()
	now := units(int64(time.Hour))
	random := rand.New(rand.NewPCG(1, 1))
	const limited = 500
	for key := range uint64(limited) {
		hash := (key + 1) * 0x9E3779B97F4A7C15
		table.take(hash, now, cost, 0)
		table.take(hash, now, cost, 0)
	}
	// An attack with a million keys, whose first request each is admitted where
	// there is room, and shares a bucket where there is none.
	admitted := 0
	for range 1_000_000 {
		if table.take(random.Uint64()|1, now, 2*cost, 0).Allowed {
			admitted++
		}
	}
	if most := len(table.groups)*groupSize - limited + overflowCount; admitted > most {
		t.Errorf("%d new keys were admitted, want at most %d", admitted, most)
	}
	for key := range uint64(limited) {
		if table.take((key+1)*0x9E3779B97F4A7C15, now, cost, 0).Allowed {
			t.Fatalf("key %d is not limited any more", key)
		}
	}
	if keys := table.keys(now); keys > len(table.groups)*groupSize || keys < 1000 {
		t.Errorf("%d keys are counted", keys)
	}
	// When they are idle again, new keys find room.
	now += units(int64(2 * time.Minute))
	if v := table.take(random.Uint64()|1, now, 2*cost, 0); !v.Allowed || v.overflow {
		t.Errorf("%+v", v)
	}
	if keys := table.keys(now); keys != 1 {
		t.Errorf("%d keys are counted, want 1", keys)
	}
}

func TestANewKeyReplacesTheOneThatOwesLeast(t *testing.T) {
	o := options(t, "1/m", 10)
	o.MaxKeys = 6 // one group
	table := bucketsOf(&o)
	cost, _ := o.scale()
	now := units(int64(time.Hour))
	for key := range uint64(8) {
		table.take(key+1, now, (key+2)*cost, 0) // 2 to 9: all could give one more
	}
	if v := table.take(100, now, 10*cost, 0); !v.Allowed || v.overflow {
		t.Fatalf("%+v", v)
	}
	if g, _ := table.find(1); g != nil {
		t.Error("the key that owed least is still there")
	}
	for key := range uint64(7) {
		if v := table.peek(key+2, now, 0, 0); v.Left != 10-int64(key+3) {
			t.Errorf("key %d has %d left", key+2, v.Left)
		}
	}
}

// TestMemoryIsBounded sends ten times more distinct keys than a policy
// remembers: ten million to the default of max_keys, fewer where each costs
// the race detector's time.
func TestMemoryIsBounded(t *testing.T) {
	distinct, maxKeys := 10_000_000, 1_000_000
	if raceDetector() {
		distinct, maxKeys = 500_000, 10_000
	}
	attack(t, "local", distinct, maxKeys)
	attack(t, "redis", distinct, maxKeys)
}

// attack sends so many distinct keys, spoofed addresses and random API keys in
// turn, from two attackers to a policy that remembers maxKeys. It fails the
// test when a key that is limited gets anything more, or when memory grows
// beyond the policy's bound.
func attack(t *testing.T, store string, distinct, maxKeys int) {
	t.Helper()
	o := options(t, "1/d", 1)
	o.Store, o.MaxKeys = store, maxKeys
	o.Key = []Source{{Kind: ByHeader, Name: "X-Api-Key"}, {Kind: ByIP}}
	bytes := 22 // a key: the slots, a third more than keys
	if store == "redis" {
		bytes = 200
	}
	redis := RedisOptions{URL: "redis://127.0.0.1:1/0", Timeout: 50 * time.Millisecond, PoolSize: 4, Prefix: "test:"}
	r := newTestRegistry(t)
	warm := build(t, r, map[string]Options{"warm": o}, redis).Limiter("warm") // what a client of Redis and its metrics need
	if store == "redis" {
		eventually(t, "the breaker to open", func() bool {
			k := warm.Key(0, nil)
			warm.Take(&k, 1, clock.Mono())
			return warm.state.redis.breaker.IsOpen()
		})
	}
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	l := build(t, r, map[string]Options{"warm": o, "a": o}, redis).Limiter("a")
	now := clock.Mono()
	var keys [50]Key // that are limited
	for i := range keys {
		keys[i] = l.Key(0, binary.LittleEndian.AppendUint64(nil, uint64(i)))
		l.Take(&keys[i], 1, now)
	}
	var all sync.WaitGroup
	const attackers = 2
	for attacker := range attackers {
		all.Go(func() {
			var value [32]byte
			random := rand.NewChaCha8([32]byte{byte(attacker)})
			for i := range distinct / attackers {
				source, size := i%2, []int{32, 16}[i%2]
				_, _ = random.Read(value[:size])
				k := l.Key(source, value[:size])
				l.Take(&k, 1, now)
				if i%997 == 0 {
					if k := keys[i/997%len(keys)]; l.Take(&k, 1, now).Allowed {
						t.Errorf("%s: after %d keys a limited one is limited no more", store, i)
						return
					}
				}
			}
		})
	}
	all.Wait()
	for i := range keys {
		if l.Take(&keys[i], 1, now).Allowed {
			t.Fatalf("%s: key %d is limited no more", store, i)
		}
	}
	grown, most := heap()-before, int64(maxKeys*bytes+1<<20)
	t.Logf("%s: %d distinct keys at max_keys = %d take %d bytes, %.1f a key that is remembered", store, distinct, maxKeys, grown, float64(grown)/float64(maxKeys))
	if grown > most {
		t.Errorf("%s: %d distinct keys take %d bytes, want at most %d", store, distinct, grown, most)
	}
	runtime.KeepAlive(l)
}

func TestDecisionsAllocateNothing(t *testing.T) {
	if raceDetector() {
		t.Skip("the race detector allocates")
	}
	r := newTestRegistry(t)
	o := options(t, "1000000/s", 1)
	denied := options(t, "1/d", 1)
	places := options(t, "1/s", 1)
	places.Rate, places.Burst, places.Concurrency = denied.Rate, 0, 5
	places.Rate.Count = 0
	set := build(t, r, map[string]Options{"allowed": o, "denied": denied, "places": places}, RedisOptions{})
	for _, name := range []string{"allowed", "denied", "places"} {
		l := set.Limiter(name)
		value := []byte("192.0.2.1")
		const runs = 20_000
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for i := range runs {
			value[8] = byte('0' + i%10)
			k := l.Key(0, value)
			now := clock.Mono()
			v := l.Peek(&k, 1, now)
			v = l.Take(&k, 1, now)
			l.Count(Allowed, &v)
			if l.Holds() {
				l.Refund(&k, 1, now, &v)
			}
		}
		runtime.ReadMemStats(&after)
		if n := after.Mallocs - before.Mallocs; n > runs/1000 {
			t.Errorf("%s: %d allocations in %d decisions", name, n, runs)
		}
	}
}

func BenchmarkLocalDecision(b *testing.B) {
	const keys = 1_000_000
	o := options(b, "100/s", 100)
	o.MaxKeys = keys
	set := build(b, newTestRegistry(b), map[string]Options{"a": o}, RedisOptions{})
	l := set.Limiter("a")
	run := func(b *testing.B, take func(l *Limiter, i uint64, now int64)) {
		for i := range uint64(keys) {
			take(l, i, clock.Mono())
		}
		b.ReportAllocs()
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			i, now := rand.Uint64N(keys), clock.Mono()
			for n := 0; pb.Next(); n++ {
				if n%64 == 0 {
					now = clock.Mono() // the exchange's start, in the gateway
				}
				i = (i*1_664_525 + 1_013_904_223) % keys
				take(l, i, now)
			}
		})
	}
	b.Run("take", func(b *testing.B) {
		run(b, func(l *Limiter, i uint64, now int64) {
			k := Key{hash: (i + 1) * 0x9E3779B97F4A7C15}
			l.Take(&k, 1, now)
		})
	})
	b.Run("key+take", func(b *testing.B) {
		run(b, func(l *Limiter, i uint64, now int64) {
			var value [16]byte
			binary.LittleEndian.PutUint64(value[:], i)
			k := l.Key(0, value[:])
			l.Take(&k, 1, now)
		})
	})
}
