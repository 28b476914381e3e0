package upstream

import (
	"math"
	"testing"
	"time"

	"gateway/internal/mallocs"
)

// An origin that works on 100 requests at the same time gets offered many more.
func TestAdaptiveLimitKeepsLatencyAndGoodput(t *testing.T) {
	const (
		slots   = 100
		service = 10 * time.Millisecond
		rate    = 30_000 // a second: three times what the origin can do
	)
	run := func(on bool) (latency time.Duration, goodput float64, limit int64) {
		o := weighted("round_robin", 1)
		if on {
			o.Adaptive = DefaultAdaptive()
		}
		m := simulate(t, o)
		free := make([]int64, slots) // when each of the origin's workers is done
		const warm, length = 3 * int64(time.Second), 8 * int64(time.Second)
		begin := m.now
		var sum time.Duration
		var answered, useful int
		for m.now-begin < length {
			m.until(m.now + int64(m.random.ExpFloat64()/rate*float64(time.Second)))
			if !on && m.Servers()[0].InFlight() >= 1000 {
				continue // 1,000 clients that wait for their answers
			}
			s, verdict := m.Pick(new(Tried))
			if s == nil {
				if verdict != Overloaded {
					t.Fatalf("verdict %v", verdict)
				}
				continue
			}
			worker := 0
			for i, at := range free {
				if at < free[worker] {
					worker = i
				}
			}
			free[worker] = max(free[worker], m.now) + int64(m.around(service))
			d := free[worker] - m.now
			if m.now-begin > warm {
				sum += time.Duration(d)
				answered++
				if d <= int64(5*service) {
					useful++
				}
			}
			m.fly(s, d)
		}
		limit, _ = m.Limit()
		return sum / time.Duration(answered), float64(useful) / (float64(length-warm) / 1e9), limit
	}
	best := float64(slots) / service.Seconds()
	latency, goodput, limit := run(true)
	t.Logf("with: latency %v, goodput %.0f/s of %.0f/s, limit %d", latency, goodput, best, limit)
	if latency > 2*service || goodput < 0.9*best {
		t.Errorf("latency %v, want at most %v; goodput %.0f/s, want at least %.0f/s", latency, 2*service, goodput, 0.9*best)
	}
	latency, goodput, _ = run(false)
	t.Logf("without: latency %v, goodput %.0f/s", latency, goodput)
	if latency < 5*service || goodput > 0.5*best {
		t.Errorf("no collapse without the limit: latency %v, goodput %.0f/s", latency, goodput)
	}
}

func TestAdaptiveLimitFollowsTheOrigin(t *testing.T) {
	o := weighted("round_robin", 1)
	o.Adaptive = DefaultAdaptive()
	m := simulate(t, o)
	slots := 50.0
	// An origin that shares its speed among all requests beyond its slots.
	pass := func(d time.Duration) {
		for end := m.now + int64(d); m.now < end; {
			m.until(m.now + int64(50*time.Microsecond))
			if s, _ := m.Pick(new(Tried)); s != nil {
				load := float64(s.InFlight()) / slots
				m.fly(s, int64(float64(m.around(10*time.Millisecond))*math.Max(load, 1)))
			}
		}
	}
	expect := func(low, high int64) {
		t.Helper()
		if limit, _ := m.Limit(); limit < low || limit > high {
			t.Errorf("limit %d, want %d to %d", limit, low, high)
		}
	}
	pass(5 * time.Second)
	expect(50, 90)
	slots = 150
	pass(60 * time.Second)
	expect(150, 250)
	slots = 20
	pass(90 * time.Second)
	expect(18, 45)
}

func TestUnimportantRequestsAreShedFirst(t *testing.T) {
	o := weighted("round_robin", 1)
	o.Adaptive = DefaultAdaptive()
	o.Adaptive.Min, o.Adaptive.Max = 20, 20
	p := build(t, o)
	for i := range 20 {
		in := Intent{Low: i < 18}
		s, verdict := p.PickFor(new(Tried), in)
		if s == nil {
			t.Fatalf("request %d: %v", i, verdict)
		}
		if s, verdict := p.PickFor(new(Tried), Intent{Low: true}); i >= 17 && (s != nil || verdict != Overloaded) {
			t.Errorf("%d in flight: %v", i+1, verdict)
		} else if s != nil {
			s.Done(Result{Outcome: Cancelled})
		}
	}
	if s, verdict := p.Pick(new(Tried)); s != nil || verdict != Overloaded {
		t.Errorf("beyond the limit: %v", verdict)
	}
	if limit, refused := p.Limit(); limit != 20 || refused != 4 {
		t.Errorf("limit %d, refused %d", limit, refused)
	}
	for range 20 {
		p.Servers()[0].Done(Result{Outcome: Cancelled})
	}
	if p.ledger.inFlight.Load() != 0 {
		t.Error("something is left in flight")
	}
}

func TestAdaptivePicksAllocateNothing(t *testing.T) {
	o := weighted("p2c", 1, 1, 1)
	o.Adaptive, o.Queue = DefaultAdaptive(), 10
	p := build(t, o)
	mallocs.None(t, t.Name(), 20_000, func() {
		s, _ := p.Pick(new(Tried))
		s.Done(good)
	})
}
