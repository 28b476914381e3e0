package ratelimit

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"gateway/internal/clock"
	"gateway/internal/testenv"
)

// courier brings what nodes in a synctest bubble ask to a real Redis and back,
// in a random time of the bubble, and gives the buckets' script that time
// instead of the server's. The bubble's time stands still while the server
// works: a slow machine makes neither the server late nor the demand smaller.
type courier struct {
	client *redis.Client // made outside of the bubble
	hash   string        // of the script that is told the time
	away   atomic.Int32
	late   time.Duration // a question takes this long and up to twice as long
}

// How Redis is away.
const (
	present int32 = iota
	frozen        // takes everything and never answers
	dead          // refuses connections
)

func newCourier(t *testing.T, server *testenv.Server) *courier {
	t.Helper()
	c := &courier{client: redis.NewClient(&redis.Options{Addr: server.Addr(), PoolSize: 100, ReadTimeout: time.Minute, MaxRetries: -1})}
	t.Cleanup(func() { _ = c.client.Close() })
	var err error
	if c.hash, err = c.client.ScriptLoad(t.Context(), timedSource(t)).Result(); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *courier) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c *courier) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, command redis.Cmder) error { return c.carry(ctx, []redis.Cmder{command}) }
}

func (c *courier) ProcessPipelineHook(redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return c.carry
}

func (c *courier) carry(ctx context.Context, commands []redis.Cmder) error {
	time.Sleep(c.late + rand.N(c.late+2*time.Millisecond))
	if c.away.Load() == frozen {
		<-ctx.Done()
	}
	err := ctx.Err()
	if c.away.Load() == dead {
		err = errors.New("connection refused")
	}
	if err != nil {
		for _, command := range commands {
			command.SetErr(err)
		}
		return err
	}
	now := time.Now().UnixMicro()
	pipe := c.client.Pipeline()
	carried := slices.Clone(commands)
	for i, command := range commands {
		if arguments := command.Args(); len(arguments) > 1 && arguments[1] == bucketScript.Hash() {
			arguments = append(slices.Clone(arguments), now/1_000_000, now%1_000_000)
			arguments[1] = c.hash
			carried[i] = redis.NewCmd(ctx, arguments...)
		}
		_ = pipe.Process(ctx, carried[i])
	}
	_, err = pipe.Exec(context.WithoutCancel(ctx))
	for i, command := range commands {
		if from := carried[i]; from != command {
			command.(*redis.Cmd).SetVal(from.(*redis.Cmd).Val())
			command.SetErr(from.Err())
		}
	}
	time.Sleep(rand.N(2 * time.Millisecond))
	return err
}

// bubble is synctest.Test at a time that the process's clock can tell: a bubble
// begins long before that.
func bubble(t *testing.T, f func(t *testing.T)) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Duration(int64(time.Minute) - clock.Mono()))
		f(t)
	})
}

// bound is what leases may admit at most; see leases.
func bound(o *Options, nodes int64, elapsed time.Duration) float64 {
	r := newRate(o)
	return r.burst + r.nano*float64(elapsed+leaseHorizon) + float64(nodes*starter(r, nodes))
}

func TestLeasedNodesAdmitWithinTheirBound(t *testing.T) {
	takeCore(t)
	server := testenv.StartRedis(t)
	courier := newCourier(t, server)
	demand := shapes(900)
	cases := map[string]struct {
		rate      string
		burst     int
		perSecond func(int, time.Duration) float64
	}{
		"even":     {"200/s", 100, demand["even"]},
		"skewed":   {"1000/s", 300, shapes(3000)["skewed"]},
		"shifting": {"200/s", 20, demand["shifting"]},
		"small":    {"100/s", 1, even(100)},
		"slow":     {"1/m", 1, even(20)},
	}
	policies := map[string]Options{}
	for name, c := range cases {
		o := options(t, c.rate, c.burst)
		o.Store = "redis"
		policies[name] = o
	}
	bubble(t, func(t *testing.T) {
		limiters := nodes(t, server, 3, policies, 250*time.Millisecond, courier)
		var all sync.WaitGroup
		for name, c := range cases {
			all.Go(func() {
				o := policies[name]
				r := press(limiters[name], "key", 2500*time.Millisecond, c.perSecond)
				exact := newRate(&o).burst + newRate(&o).nano*float64(r.elapsed)
				got, most := float64(r.admitted.Load()), bound(&o, 3, r.elapsed)
				t.Logf("%s: %s burst %d: %.0f of %d admitted in %v, %+.1f %%; the bound is %+.1f %%",
					name, c.rate, c.burst, got, r.asked.Load(), r.elapsed, 100*(got/exact-1), 100*(most/exact-1))
				if got > most+1 {
					t.Errorf("%s: %.0f admitted, want at most %.0f", name, got, most)
				}
				unfair := false
				for i := range r.shares {
					unfair = unfair || name == "even" && float64(r.shares[i].Load()) < 0.15*got
				}
				if got < exact*0.95-3 || unfair {
					t.Errorf("%s: %.0f admitted, want about %.0f, fairly: %d, %d, %d",
						name, got, exact, r.shares[0].Load(), r.shares[1].Load(), r.shares[2].Load())
				}
				if n := r.alone.Load(); n > 0 {
					t.Errorf("%s: %d decisions without Redis, which was there", name, n)
				}
			})
		}
		all.Wait()
	})
}

// TestLateAnswersAdmitNoMore has a Redis that is so slow that nodes decide now
// with its tokens, now alone.
func TestLateAnswersAdmitNoMore(t *testing.T) {
	takeCore(t)
	server := testenv.StartRedis(t)
	const rate, burst, span = 200, 100, 5 * time.Second
	o := options(t, "200/s", burst)
	o.Store = "redis"
	for _, late := range []time.Duration{50 * time.Millisecond, 65 * time.Millisecond, 80 * time.Millisecond, 150 * time.Millisecond} {
		courier := newCourier(t, server)
		courier.late = late
		bubble(t, func(t *testing.T) {
			limiters := nodes(t, server, 3, map[string]Options{"api": o}, time.Second, courier)["api"]
			got := press(limiters, "key", span, even(300))
			exact := burst + rate*span.Seconds()
			admitted := float64(got.admitted.Load())
			t.Logf("%v to %v late: %.0f of %d admitted, %+.1f %%; %d without Redis", late, 2*late, admitted, got.asked.Load(), 100*(admitted/exact-1), got.alone.Load())
			if admitted > exact*1.1 || admitted < exact*0.8 {
				t.Errorf("%v late: %.0f admitted, want about %.0f", late, admitted, exact)
			}
		})
	}
}

// TestOutagesOfRedisCostLittle has all nodes of both stores ask for more than
// there is before, during and after an outage.
func TestOutagesOfRedisCostLittle(t *testing.T) {
	takeCore(t)
	server := testenv.StartRedis(t)
	couriers := map[int32]*courier{frozen: newCourier(t, server), dead: newCourier(t, server)}
	const timeout = 40 * time.Millisecond
	o := options(t, "100/s", 50)
	leased, strict := o, o
	leased.Store, strict.Store = "redis", "redis-strict"
	policies := map[string]Options{"leased": leased, "strict": strict}
	type group struct {
		store    string
		away     int32
		limiters []*Limiter
		ended    time.Time // its last load
	}
	bubble(t, func(t *testing.T) {
		var groups []*group
		for away, courier := range couriers {
			for store, limiters := range nodes(t, server, 3, policies, timeout, courier) {
				groups = append(groups, &group{store: store, away: away, limiters: limiters})
			}
		}
		r := newRate(&o)
		phase := func(name string, span time.Duration) {
			var all sync.WaitGroup
			for _, g := range groups {
				all.Go(func() {
					there := r.burst // what came in between, in which nobody asked
					if !g.ended.IsZero() {
						there = min(r.burst, r.nano*float64(time.Since(g.ended)))
					}
					got := press(g.limiters, "a", span, even(100))
					g.ended = time.Now()
					exact := there + r.nano*float64(got.elapsed)
					admitted := float64(got.admitted.Load())
					slowest := time.Duration(got.slowest.Load())
					t.Logf("%s, Redis %s, %s: %.0f of %d admitted in %v, %+.1f %%; slowest decision %v", g.store, []string{frozen: "frozen", dead: "dead"}[g.away], name,
						admitted, got.asked.Load(), got.elapsed, 100*(admitted/exact-1), slowest)
					most := exact*1.1 + r.nano*float64(leaseHorizon) + float64(3*starter(r, 3))
					if admitted > most || admitted < exact*0.95 {
						t.Errorf("%s, %s: %.0f admitted, want %.0f to %.0f", g.store, name, admitted, exact*0.95, most)
					}
					if patience := map[string]time.Duration{"leased": 0, "strict": timeout}[g.store]; slowest > patience {
						t.Errorf("%s, %s: a decision took %v, want at most %v", g.store, name, slowest, patience)
					}
				})
			}
			all.Wait()
		}
		phase("before", time.Second) // the bucket is empty after this
		for away, courier := range couriers {
			courier.away.Store(away)
		}
		phase("while Redis is away", 5*time.Second)
		for _, courier := range couriers {
			courier.away.Store(present)
		}
		phase("after", 2*time.Second)
		for _, g := range groups {
			eventually(t, "decisions to be shared again", func() bool {
				k := g.limiters[0].Key(0, []byte("another"))
				return g.limiters[0].Take(&k, 1, clock.Mono()).source != fromFallback
			})
		}
	})
}
