package metrics_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"gateway/metrics"
)

func TestWhatIsCountedCanBeRead(t *testing.T) {
	r := metrics.New()
	r.Counter("a_total", "Counted.", "kind", "x").Add(2)
	r.Counter("a_total", "Counted.", "kind", "y").Add(3)
	r.Gauge("b", "Set.").Set(1.5)
	r.Level("c", "Raised.").Add(-4)
	r.GaugeFunc("d", "Asked for.", func() float64 { return 7 })
	r.CollectGauge("e", "Collected.", func(s *metrics.Samples) { s.Add(8, "name", "p"); s.Add(9, "name", "q") })
	r.Histogram("f_seconds", "Durations.")
	f := func(name, want string) {
		t.Helper()
		var got []string
		r.Each(name, func(v float64, labels []string) { got = append(got, fmt.Sprint(v, labels)) })
		slices.Sort(got)
		if fmt.Sprint(got) != want {
			t.Errorf("%s: %v, want %s", name, got, want)
		}
	}
	f("a_total", "[2 [kind x] 3 [kind y]]")
	f("b", "[1.5 []]")
	f("c", "[-4 []]")
	f("d", "[7 []]")
	f("e", "[8 [name p] 9 [name q]]")
	f("f_seconds", "[]")
	f("g", "[]")
	if got := r.Sum("a_total"); got != 5 {
		t.Errorf("sum %v", got)
	}
}

func TestTotalsOfRoutes(t *testing.T) {
	r := metrics.New()
	methods := []string{"OTHER", "GET"}
	a, b := r.Requests("a", methods), r.Requests("b", methods)
	count := func(q *metrics.Requests, status int, d time.Duration) { q.Inc(1, status); q.Observe(1, d) }
	count(a, 200, 2*time.Millisecond)
	count(a, 304, 4*time.Millisecond)
	before := r.Totals()
	count(a, 599, 20*time.Second)
	count(b, 404, 3*time.Millisecond)
	count(b, 0, 3*time.Millisecond)
	after := r.Totals()
	if got := after.Statuses; got != [6]uint64{1, 0, 1, 1, 1, 1} || after.Requests() != 5 {
		t.Errorf("all: %v", got)
	}
	since := after.Since(&before)
	if got := since.Statuses; got != [6]uint64{1, 0, 0, 0, 1, 1} || since.Time != 20*time.Second+6*time.Millisecond {
		t.Errorf("since: %v, %v", got, since.Time)
	}
	if fewer := before.Since(&after); fewer.Requests() != 0 || fewer.Time != 0 {
		t.Errorf("totals that fall: %+v", fewer)
	}
}

func TestQuantiles(t *testing.T) {
	var none metrics.Buckets
	if got := none.Quantile(0.5); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
	r := metrics.New()
	q := r.Requests("a", []string{"GET"})
	for range 90 {
		q.Observe(0, 700*time.Microsecond) // 0.5 to 1 ms
	}
	for range 10 {
		q.Observe(0, 30*time.Millisecond) // 25 to 50 ms
	}
	t1 := r.Totals()
	f := func(share float64, want time.Duration) {
		t.Helper()
		if got := t1.Durations.Quantile(share); (got - want).Abs() > time.Microsecond {
			t.Errorf("%v: %v, want %v", share, got, want)
		}
	}
	f(0, 500*time.Microsecond)
	f(0.45, 750*time.Microsecond)
	f(0.9, time.Millisecond)
	f(0.95, 37500*time.Microsecond)
	f(1, 50*time.Millisecond)
	q.Observe(0, time.Hour)
	t1 = r.Totals()
	f(1, 10*time.Second)
}
