package upstream

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
)

func keyOf(i int) uint64 { return KeyHash(fmt.Appendf(nil, "key-%d", i)) }

// owners are the servers of the first n keys, by name.
func owners(t *testing.T, p *Pool, n int) []string {
	list := make([]string, n)
	for i := range list {
		s, verdict := p.PickFor(new(Tried), Intent{Key: keyOf(i)})
		if s == nil {
			t.Fatalf("no server: %v", verdict)
		}
		list[i] = s.Name
		s.Done(good)
	}
	return list
}

func TestHashMovesFewKeys(t *testing.T) {
	const n = 100_000
	all := weighted("hash", 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)
	before := owners(t, build(t, all), n)
	counts := map[string]int{}
	for _, name := range before {
		counts[name]++
	}
	for name, count := range counts {
		if math.Abs(float64(count)-n/10) > n/10*0.05 {
			t.Errorf("%s has %d of %d keys", name, count, n)
		}
	}
	less := weighted("hash", 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)
	gone := "127.0.0.4:80"
	less.Servers = append(less.Servers[:3], less.Servers[4:]...)
	moved := 0
	for i, name := range owners(t, build(t, less), n) {
		if name == gone {
			t.Fatal("a server that is not there was picked")
		}
		if name != before[i] {
			moved++
		}
	}
	t.Logf("%d of %d keys moved", moved, n)
	if moved > n*15/100 {
		t.Errorf("%d of %d keys moved, want at most 15 %%", moved, n)
	}
}

func TestHashDoesNotDependOnTheOrder(t *testing.T) {
	o := weighted("hash", 1, 2, 3, 4)
	a := owners(t, build(t, o), 1000)
	o = weighted("hash", 1, 2, 3, 4)
	rand.Shuffle(len(o.Servers), func(i, j int) { o.Servers[i], o.Servers[j] = o.Servers[j], o.Servers[i] })
	for i, name := range owners(t, build(t, o), 1000) {
		if name != a[i] {
			t.Fatalf("key %d: %s and %s", i, a[i], name)
		}
	}
}

func TestHashFollowsWeights(t *testing.T) {
	const n = 60_000
	counts := map[string]int{}
	for _, name := range owners(t, build(t, weighted("hash", 3, 2, 1)), n) {
		counts[name]++
	}
	for i, want := range []int{30_000, 20_000, 10_000} {
		if got := counts[fmt.Sprintf("127.0.0.%d:80", i+1)]; math.Abs(float64(got-want)) > 0.05*float64(want) {
			t.Errorf("weight %d: %d of %d keys", 3-i, got, n)
		}
	}
}

func TestHashLoadIsBounded(t *testing.T) {
	for _, weights := range [][]int{{1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, {5, 3, 1, 1}, {1}} {
		p := build(t, weighted("hash", weights...))
		sum := int64(0)
		for _, w := range weights {
			sum += int64(w)
		}
		hot := Intent{Key: keyOf(7)}
		var flying []*Server
		for total := int64(1); total <= 1000; total++ {
			s, _ := p.PickFor(new(Tried), hot)
			flying = append(flying, s)
			for _, s := range p.Servers() {
				bound := (5*int64(s.Weight)*total + 4*sum - 1) / (4 * sum)
				if n := s.InFlight(); n > bound {
					t.Fatalf("%v: %d of %d in flight to a server of weight %d, bound %d", weights, n, total, s.Weight, bound)
				}
			}
		}
		for _, s := range flying {
			s.Done(good)
		}
		if p.ledger.inFlight.Load() != 0 {
			t.Errorf("%d left in flight", p.ledger.inFlight.Load())
		}
	}
}

func TestHashBoundHoldsUnderConcurrency(t *testing.T) {
	p := build(t, weighted("hash", 1, 1, 1, 1, 1))
	var wait sync.WaitGroup
	const workers = 20
	for range workers {
		wait.Go(func() {
			for range 2000 {
				s, verdict := p.PickFor(new(Tried), Intent{Key: keyOf(1)})
				if s == nil {
					t.Errorf("no server: %v", verdict)
					return
				}
				if n := s.tally.active.Load(); n > workers*5/4/5+1 {
					t.Errorf("%d in flight to one of five, of %d", n, workers)
				}
				s.Done(good)
			}
		})
	}
	wait.Wait()
	for _, s := range p.Servers() {
		if s.tally.active.Load() != 0 || s.InFlight() != 0 {
			t.Error("something is left in flight")
		}
	}
}

func TestHashWithoutKeyGoesAnywhere(t *testing.T) {
	got := picks(t, build(t, weighted("hash", 1, 1, 1)), 3000, false)
	for _, name := range []string{"a", "b", "c"} {
		if n := strings.Count(got, name); n < 800 || n > 1200 {
			t.Errorf("%s gets %d of 3000", name, n)
		}
	}
}

func TestKeyHash(t *testing.T) {
	// Gateways of different versions must agree: these values never change.
	for text, want := range map[string]uint64{"": 17280346270528514342, "10.0.0.1": 14445829539779861640} {
		if got := KeyHash([]byte(text)); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

func TestHashKeyText(t *testing.T) {
	f := func(text string, want HashKey, problem string) {
		t.Helper()
		var k HashKey
		err := k.UnmarshalText([]byte(text))
		if problem != "" {
			if err == nil || !strings.Contains(err.Error(), problem) {
				t.Errorf("%q: %v, want %q", text, err, problem)
			}
			return
		}
		if err != nil || k != want || k.String() != text {
			t.Errorf("%q: %+v %q, %v", text, k, k, err)
		}
	}
	f("ip", HashKey{}, "")
	f("path", HashKey{Source: KeyPath}, "")
	f("header:X-User", HashKey{KeyHeader, "X-User"}, "")
	f("cookie:session", HashKey{KeyCookie, "session"}, "")
	f("query:user id", HashKey{}, "unexpected query name")
	f("query:u", HashKey{KeyQuery, "u"}, "")
	f("header:", HashKey{}, "unexpected header name")
	f("header", HashKey{}, "unknown value")
	f("ip:x", HashKey{}, "unknown value")
	f("header:a b", HashKey{}, "unexpected header name")
}

func FuzzHashKey(f *testing.F) {
	for _, s := range []string{"ip", "path", "header:X", "cookie:a", "query:q", "header:", "x:y", "query:a:b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var k, again HashKey
		if k.UnmarshalText([]byte(text)) != nil {
			return
		}
		if k.String() != text || again.UnmarshalText([]byte(k.String())) != nil || again != k {
			t.Errorf("%q reads as %+v, which is %q", text, k, k)
		}
	})
}
