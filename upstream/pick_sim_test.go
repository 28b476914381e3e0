package upstream

import (
	"container/heap"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"gateway/internal/clock"
)

// simulation is a pool under load in a time of its own: requests arrive at
// random, and each server answers when its latency says so.
type simulation struct {
	*Pool
	now    int64
	random *rand.Rand
	flying flights
}

// flight is a request on its way.
type flight struct {
	ends    int64
	server  *Server
	latency int64
}

type flights []flight

func (f flights) Len() int           { return len(f) }
func (f flights) Less(i, j int) bool { return f[i].ends < f[j].ends }
func (f flights) Swap(i, j int)      { f[i], f[j] = f[j], f[i] }
func (f *flights) Push(x any)        { *f = append(*f, x.(flight)) }
func (f *flights) Pop() any {
	old := *f
	x := old[len(old)-1]
	*f = old[:len(old)-1]
	return x
}

// simulate builds a pool whose time stands still until the test moves it.
func simulate(t testing.TB, o *Options) *simulation {
	t.Helper()
	m := &simulation{Pool: build(t, o), now: clock.Mono(), random: rand.New(rand.NewPCG(1, 2))}
	m.Pool.registry.now = func() int64 { return m.now }
	m.Pool.refresh() // pickers keep the clock
	return m
}

// until ends all requests that are due at a moment.
func (m *simulation) until(now int64) {
	for len(m.flying) > 0 && m.flying[0].ends <= now {
		f := heap.Pop(&m.flying).(flight)
		m.now = f.ends
		f.server.Done(Result{Outcome: OK, Status: 200, Latency: f.latency})
	}
	m.now = now
}

// fly has a request answered after so many ns.
func (m *simulation) fly(s *Server, ns int64) {
	heap.Push(&m.flying, flight{ends: m.now + ns, server: s, latency: ns})
}

// offer sends n requests, so many a second; latency is that of a request to a
// server. It returns the latencies by server.
func (m *simulation) offer(t testing.TB, n int, rate float64, latency func(*Server) time.Duration) map[string][]time.Duration {
	t.Helper()
	seen := map[string][]time.Duration{}
	for range n {
		m.until(m.now + int64(m.random.ExpFloat64()/rate*float64(time.Second)))
		s, verdict := m.Pick(new(Tried))
		if s == nil {
			t.Fatalf("no server: %v", verdict)
		}
		d := latency(s)
		seen[letter(s)] = append(seen[letter(s)], d)
		m.fly(s, int64(d))
	}
	for len(m.flying) > 0 {
		m.until(m.flying[0].ends)
	}
	return seen
}

// around is a latency that varies from half to one and a half of its mean.
func (m *simulation) around(mean time.Duration) time.Duration {
	return time.Duration(float64(mean) * (0.5 + m.random.Float64()))
}

func percentile(list []time.Duration, p float64) time.Duration {
	list = slices.Clone(list)
	slices.Sort(list)
	return list[int(float64(len(list)-1)*p)]
}

func TestNoEqualServerStarves(t *testing.T) {
	const n = 100_000
	for _, balance := range []string{"p2c", "peak_ewma"} {
		for _, rate := range []float64{10, 1000, 20_000} {
			m := simulate(t, weighted(balance, 1, 1, 1, 1, 1))
			seen := m.offer(t, n, rate, func(*Server) time.Duration { return m.around(10 * time.Millisecond) })
			for _, name := range []string{"a", "b", "c", "d", "e"} {
				if share := float64(len(seen[name])) / n; share < 0.15 || share > 0.25 {
					t.Errorf("%s at %v/s: %s gets %.1f %%, want 15 to 25 %%", balance, rate, name, 100*share)
				}
			}
		}
	}
}

func TestPeakEWMAAvoidsTheSlowServer(t *testing.T) {
	const n = 100_000
	for _, rate := range []float64{100, 1000, 10_000} {
		run := func(slow string) (share float64, p99 time.Duration) {
			weights := []int{1, 1, 1, 1}
			if slow != "" {
				weights = append(weights, 1)
			}
			m := simulate(t, weighted("peak_ewma", weights...))
			seen := m.offer(t, n, rate, func(s *Server) time.Duration {
				mean := 10 * time.Millisecond
				if letter(s) == slow {
					mean *= 20
				}
				return m.around(mean + mean*time.Duration(s.InFlight())/50) // slower under load
			})
			var rest []time.Duration
			for name, list := range seen {
				if name != slow {
					rest = append(rest, list...)
				}
			}
			return float64(len(seen[slow])) / n, percentile(rest, 0.99)
		}
		share, with := run("e")
		_, without := run("")
		t.Logf("at %v/s the slow one gets %.2f %%, p99 of the rest %v, without it %v", rate, 100*share, with, without)
		if share >= 0.03 || share == 0 {
			t.Errorf("at %v/s the slow server gets %.2f %%, want less than 3 %% and more than nothing", rate, 100*share)
		}
		if ratio := float64(with) / float64(without); ratio < 0.8 || ratio > 1.2 {
			t.Errorf("at %v/s p99 of the rest is %v, without the slow one %v", rate, with, without)
		}
	}
}
