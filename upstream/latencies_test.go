package upstream

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"gateway/internal/mallocs"
)

func TestLatencyStepsAreASixteenth(t *testing.T) {
	last := -1
	for ns := int64(1); ns < int64(100*time.Second); ns += ns/40 + 1 {
		step := latencyStep(ns)
		if step < last {
			t.Fatalf("%v: step %d after %d", time.Duration(ns), step, last)
		}
		last = step
		if step == latencySteps-1 {
			continue
		}
		if end := latencyOf(step); ns >= end || ns > 1<<latencyShift && float64(end) > float64(ns)*1.07 {
			t.Fatalf("%v is in a step that ends at %v", time.Duration(ns), time.Duration(end))
		}
	}
	if last != latencySteps-1 || latencyStep(-1) != 0 {
		t.Errorf("the last step is %d", last)
	}
}

func TestPercentilesOfTheLatestLatencies(t *testing.T) {
	l, now := new(latencies), int64(time.Minute)
	random := rand.New(rand.NewPCG(1, 2))
	var seen []int64
	give := func(n int, mean time.Duration) {
		for range n {
			ns := int64(random.ExpFloat64() * float64(mean))
			seen = append(seen, ns)
			l.observe(ns, now)
		}
	}
	expect := func() {
		t.Helper()
		slices.Sort(seen)
		for _, p := range percentiles {
			want := time.Duration(seen[len(seen)*p/100])
			if got := l.percentile(p); got < want*9/10 || got > want*11/10 {
				t.Errorf("p%d of %d: %v, want %v", p, len(seen), got, want)
			}
		}
	}
	later := func(d time.Duration) { now += int64(d) }
	give(2*latencyLeast-1, 10*time.Millisecond)
	later(time.Second)
	if l.percentile(95) != 0 {
		t.Error("a percentile of too few")
	}
	give(1, 10*time.Millisecond) // looks
	give(5000, 10*time.Millisecond)
	later(time.Second)
	give(1, 10*time.Millisecond)
	expect()

	// A few are not enough to forget the others.
	later(time.Minute)
	give(latencyLeast/2, time.Second)
	before := l.percentile(99)
	if before > time.Second {
		t.Errorf("p99 %v", before)
	}
	for range 4 {
		later(time.Duration(latencyHalf))
		seen = seen[:0]
		give(1000, 100*time.Millisecond)
	}
	later(time.Second)
	give(1, 100*time.Millisecond)
	expect()
}

func TestLatenciesUnderConcurrency(t *testing.T) {
	l := new(latencies)
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for n := range 20_000 {
				l.observe(int64(time.Millisecond)*int64(n%20+1), int64(n*10+i)*int64(time.Millisecond))
				if p := l.percentile(90); p > 25*time.Millisecond {
					t.Errorf("p90 %v", p)
					return
				}
			}
		})
	}
	all.Wait()
	for n := range 1000 {
		l.observe(int64(time.Millisecond)*int64(n%20+1), int64(time.Hour))
	}
	l.observe(int64(time.Millisecond), int64(time.Hour+2*time.Second))
	if p := l.percentile(90); p < 17*time.Millisecond {
		t.Errorf("p90 %v", p)
	}
}

func TestLatenciesAllocateNothing(t *testing.T) {
	l, now := new(latencies), int64(0)
	mallocs.None(t, t.Name(), 20_000, func() {
		now += int64(time.Millisecond)
		l.observe(now%int64(time.Second), now)
		l.percentile(95)
	})
}

func TestHedgeDelays(t *testing.T) {
	for text, want := range map[string]HedgeDelay{
		"off": {}, "p90": {Percentile: 90}, "p95": {Percentile: 95}, "p99": {Percentile: 99},
		"50ms": {Time: 50 * time.Millisecond}, "1m": {Time: time.Minute},
	} {
		var d HedgeDelay
		if err := d.UnmarshalText([]byte(text)); err != nil || d != want || d.String() != text || d.On() != (text != "off") {
			t.Errorf("%q: %+v %v", text, d, err)
		}
	}
	for _, text := range []string{"", "p50", "95", "-1s", "0s", "1us", "2h", "p95 ", "on"} {
		var d HedgeDelay
		if d.UnmarshalText([]byte(text)) == nil || d.On() {
			t.Errorf("%q is accepted", text)
		}
	}
}
