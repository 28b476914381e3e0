package ratelimit

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
	"time"

	"gateway/internal/unit"
)

// options are those of a policy with this rate and burst.
func options(t testing.TB, rate string, burst int) Options {
	t.Helper()
	r, err := unit.ParseRate(rate)
	if err != nil {
		t.Fatal(err)
	}
	return Options{
		Rate: r, Burst: burst, Key: []Source{{Kind: ByIP}}, IPv4Prefix: 32, IPv6Prefix: 64, On: "request",
		DelayQueue: 100, Store: "local", RedisDown: "local", MaxKeys: 10_000, Headers: "draft", Body: "problem",
	}
}

func bucketsOf(o *Options) *table { return newTable(o.MaxKeys, newScale(o.scale())) }

// TestAdmitsExactlyBurstAndRate asks as soon as a denial says, and at random
// moments before.
func TestAdmitsExactlyBurstAndRate(t *testing.T) {
	takeCore(t)
	f := func(rate string, burst int, keys int, span time.Duration) {
		t.Run(fmt.Sprint(rate, " burst ", burst, " keys ", keys), func(t *testing.T) {
			o := options(t, rate, burst)
			table := bucketsOf(&o)
			cost, _ := o.scale()
			random := rand.New(rand.NewPCG(1, 2))
			const start = int64(time.Hour)
			perSecond := float64(o.Rate.Count) / o.Rate.Per.Seconds()
			end := start + int64(span)
			admitted := make([]int64, keys)
			for key := range admitted {
				hash := uint64(key+1) * 0x9E3779B97F4A7C15
				for now := start; now <= end; {
					v := table.take(hash, units(now), cost, 0)
					switch {
					case v.Allowed:
						admitted[key]++
					case random.IntN(2) == 0:
						now += 1 + random.Int64N(v.Wait) // too early, to no avail
					default:
						now += v.Wait
					}
				}
			}
			want := math.Floor(float64(o.burst()) + perSecond*span.Seconds())
			for key, got := range admitted {
				if diff := math.Abs(float64(got) - want); diff > max(1, want/100) {
					t.Fatalf("key %d: %d admitted, want %.0f", key, got, want)
				}
			}
		})
	}
	f("1/m", 1, 1, 10*time.Minute)
	f("1/m", 5, 1000, 10*time.Minute)
	f("1/s", 1, 1000, 30*time.Second)
	f("7/s", 3, 1000, 10*time.Second)
	f("100/s", 0, 1000, 2*time.Second)
	f("333/m", 10, 1, time.Hour)
	f("5000/s", 1, 1, 10*time.Second)
	f("5000/s", 50, 1000, 100*time.Millisecond)
	f("1000000/s", 1, 1, time.Second)
	f("700001/s", 100, 1, time.Second)
	f("1000000/s", 1000, 1000, time.Millisecond)
	f("90000000/s", 10, 1, 10*time.Millisecond)
}

// reference is the algorithm in plain words: tokens as fractions, one map.
type reference struct {
	rate, burst *big.Rat // tokens a unit of time
	missing     map[uint64]*big.Rat
	at          map[uint64]uint64
}

func (r *reference) take(key, now uint64, n int64) (bool, int64) {
	missing := new(big.Rat)
	if r.missing[key] != nil {
		gained := new(big.Rat).Mul(r.rate, new(big.Rat).SetInt64(int64(now-r.at[key])))
		if missing.Sub(r.missing[key], gained); missing.Sign() < 0 {
			missing.SetInt64(0)
		}
	}
	after := new(big.Rat).Add(missing, big.NewRat(n, 1))
	allowed := after.Cmp(r.burst) <= 0
	if allowed {
		missing = after
	}
	r.missing[key], r.at[key] = missing, now
	left := new(big.Rat).Sub(r.burst, missing)
	return allowed, new(big.Int).Div(left.Num(), left.Denom()).Int64()
}

func TestModel(t *testing.T) {
	takeCore(t)
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 3))
		o := options(t, []string{"1/s", "10/s", "1/m", "1000/s", "1000000/s", "24/d"}[random.IntN(6)], 1+random.IntN(20))
		table := bucketsOf(&o)
		cost, _ := o.scale()
		model := &reference{
			rate: big.NewRat(1, int64(cost)), burst: big.NewRat(o.burst(), 1),
			missing: map[uint64]*big.Rat{}, at: map[uint64]uint64{},
		}
		now := units(int64(time.Hour))
		for step := range 500 {
			switch random.IntN(3) {
			case 0:
				now += random.Uint64N(cost)
			case 1:
				now += random.Uint64N(3 * cost)
			}
			key, n := random.Uint64N(5)+1, random.Int64N(o.burst()+2)
			v := table.take(key, now, uint64(n)*cost, 0)
			allowed, left := model.take(key, now, n)
			if v.Allowed != allowed || v.Left != left {
				t.Fatalf("seed %d step %d: %d of key %d at %d: %+v; want %v with %d left", seed, step, n, key, now, v, allowed, left)
			}
			if !allowed && n <= o.burst() {
				later := now + units(v.Wait)
				if again := table.peek(key, later, uint64(n)*cost, 0); !again.Allowed {
					t.Fatalf("seed %d step %d: refused again after the wait of %d ns", seed, step, v.Wait)
				}
			}
		}
	}
}

func TestDenialChangesNothing(t *testing.T) {
	o := options(t, "1/s", 2)
	table := bucketsOf(&o)
	cost, _ := o.scale()
	now := units(int64(time.Minute))
	take := func(n uint64, want bool) {
		t.Helper()
		if v := table.take(7, now, n*cost, 0); v.Allowed != want {
			t.Errorf("%d tokens: %+v, want %v", n, v, want)
		}
	}
	take(2, true)
	for range 100 {
		take(1, false)
	}
	now += units(int64(time.Second))
	take(2, false)
	take(1, true)
}

func TestRefundGivesBackWhatWasTaken(t *testing.T) {
	o := options(t, "1/s", 3)
	table := bucketsOf(&o)
	cost, _ := o.scale()
	now := units(int64(time.Minute))
	table.take(7, now, 3*cost, 0)
	table.refund(7, now, 2*cost, false)
	if v := table.take(7, now, 3*cost, 0); v.Allowed || v.Left != 2 {
		t.Errorf("after the refund of two: %+v", v)
	}
	table.refund(8, now, cost, false) // a key that is not there
	table.refund(7, now, 100*cost, false)
	if v := table.peek(7, now, 3*cost, 0); !v.Allowed || v.Left != 0 {
		t.Errorf("after too large a refund: %+v", v)
	}
}

func TestDelayReservesAPlaceWithinItsBound(t *testing.T) {
	o := options(t, "10/s", 1)
	table := bucketsOf(&o)
	cost, _ := o.scale()
	now, slack := units(int64(time.Minute)), units(int64(250*time.Millisecond))
	for i, want := range []time.Duration{0, 100 * time.Millisecond, 200 * time.Millisecond} {
		if v := table.take(7, now, cost, slack); !v.Allowed || v.Wait != int64(want) {
			t.Errorf("request %d: %+v, want a wait of %v", i, v, want)
		}
	}
	if v := table.take(7, now, cost, slack); v.Allowed {
		t.Errorf("a request that would have to wait for 300 ms: %+v", v)
	}
}

func TestChangedRateKeepsTheFill(t *testing.T) {
	o := options(t, "10/s", 100)
	table := bucketsOf(&o)
	cost, _ := o.scale()
	now := int64(time.Minute)
	for key := range uint64(200) {
		table.take(key+1, units(now), key%100*cost, 0)
	}
	check := func(rate string, burst int, gained uint64) {
		t.Helper()
		o := options(t, rate, burst)
		cost, window := o.scale()
		table.rescale(cost, window, units(now))
		for key := range uint64(200) {
			spent := key%100 - min(key%100, gained)
			want := max(0, int64(burst)-int64(spent))
			v := table.peek(key+1, units(now), 0, uint64(longest)*unitsPerNano)
			if diff := v.Left - want; diff < -1 || diff > 1 {
				t.Fatalf("%s, burst %d: key %d has %d left, want %d", rate, burst, key, v.Left, want)
			}
		}
	}
	check("10/s", 100, 0)
	check("1000000/s", 100, 0)
	check("1/m", 100, 0)
	check("1/m", 50, 0)
	check("3/s", 100, 0)
	now += int64(2 * time.Second)
	check("3/s", 100, 6)
	check("10/s", 100, 6)
}

func TestBucketsOutliveYears(t *testing.T) {
	o := options(t, "1/d", 300)
	table := bucketsOf(&o)
	cost, _ := o.scale()
	now := units(15 * 365 * 24 * int64(time.Hour))
	if v := table.take(7, now, 300*cost, 0); !v.Allowed {
		t.Errorf("%+v", v)
	}
	if v := table.take(7, now, cost, 0); v.Allowed || v.Wait != 24*int64(time.Hour) {
		t.Errorf("%+v", v)
	}
}
