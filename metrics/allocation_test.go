package metrics

import (
	"testing"
	"time"

	"gateway/internal/mallocs"
)

func TestCountingAllocatesNothing(t *testing.T) {
	r := New()
	c := r.Counter("a_total", "A.")
	l := r.Level("b", "B.")
	g := r.Gauge("c", "C.")
	h := r.Histogram("d_seconds", "D.")
	q := r.Requests("users", testMethods)
	mallocs.None(t, "counting", 20_000, func() {
		c.Inc()
		l.Inc()
		l.Dec()
		g.Set(1)
		h.Observe(time.Second)
		q.Inc(1, 200)
		q.Observe(1, time.Millisecond)
	})
}
