//go:build !race

package metrics

import (
	"runtime"
	"testing"
	"time"
)

// wantNoAllocation runs f 20,000 times and fails at more than one allocation in
// a thousand runs.
func wantNoAllocation(t *testing.T, f func()) {
	t.Helper()
	const runs = 20000
	f()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		f()
	}
	runtime.ReadMemStats(&after)
	if n := after.Mallocs - before.Mallocs; n > runs/1000 {
		t.Errorf("%d allocations in %d runs", n, runs)
	}
}

func TestCountingAllocatesNothing(t *testing.T) {
	r := New()
	c := r.Counter("a_total", "A.")
	l := r.Level("b", "B.")
	g := r.Gauge("c", "C.")
	h := r.Histogram("d_seconds", "D.")
	q := r.Requests("users", testMethods)
	wantNoAllocation(t, func() {
		c.Inc()
		l.Inc()
		l.Dec()
		g.Set(1)
		h.Observe(time.Second)
		q.Inc(1, 200)
		q.Observe(1, time.Millisecond)
	})
}
