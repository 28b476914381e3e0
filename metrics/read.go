package metrics

import (
	"time"
)

// Each gives f the samples of a family of counters or gauges: values and their
// labels, names and values in turn, which f must not keep. Families that do not
// exist and histograms have none. For those who show what is counted: it is not
// for the path of a request.
func (r *Registry) Each(name string, f func(value float64, labels []string)) {
	known := r.find(name)
	for _, s := range known.sorted {
		if value, ok := s.value(); ok {
			f(value, s.pairs)
		}
	}
	if known.collect != nil {
		known.collect(&Samples{name: name, each: f})
	}
}

// value is that of a counter or gauge; ok is false for a series of another kind
// or without a value yet.
func (s *series) value() (value float64, ok bool) {
	switch source := s.source.(type) {
	case *Counter:
		return float64(source.Value()), true
	case *Seconds:
		return source.seconds(), true
	case *Level:
		return float64(source.Value()), true
	case *Gauge:
		return source.Value(), true
	case *function:
		if f := source.f.Load(); f != nil {
			return (*f)(), true
		}
	}
	return 0, false
}

// Sum is the sum of a family's samples. Allocates nothing, unless the family is
// collected by a function.
func (r *Registry) Sum(name string) (sum float64) {
	known := r.find(name)
	for _, s := range known.sorted {
		value, _ := s.value()
		sum += value
	}
	if known.collect != nil {
		sum += known.collected()
	}
	return sum
}

// collected is the sum of what the family's function collects.
func (f *family) collected() (sum float64) {
	f.collect(&Samples{name: f.name, each: func(value float64, _ []string) { sum += value }})
	return sum
}

// Buckets are durations counted as a Histogram does.
type Buckets [len(bounds) + 1]uint64

// Quantile estimates the duration below which a share of them lies, 0 to 1, as
// Prometheus' histogram_quantile does: they are taken to be spread evenly over
// their bucket, and those above the last bound to have just reached it. 0
// without durations.
func (b *Buckets) Quantile(share float64) time.Duration {
	var count uint64
	for _, n := range b {
		count += n
	}
	rank := share * float64(count)
	var below uint64
	for i, n := range b[:len(bounds)] {
		if n > 0 && float64(below+n) >= rank {
			var lower time.Duration
			if i > 0 {
				lower = bounds[i-1]
			}
			return lower + time.Duration(float64(bounds[i]-lower)*max(rank-float64(below), 0)/float64(n))
		}
		below += n
	}
	if count == 0 {
		return 0
	}
	return bounds[len(bounds)-1]
}

// Totals are the requests of one route or of several.
type Totals struct {
	Statuses  [6]uint64 // by class; 0 for requests without an answer
	Durations Buckets
	Time      time.Duration // of all of them
}

// Requests is their number.
func (t *Totals) Requests() (n uint64) {
	for _, class := range t.Statuses {
		n += class
	}
	return n
}

// Since is what has come to pass since earlier totals of the same routes.
func (t *Totals) Since(earlier *Totals) Totals {
	since := Totals{Time: max(t.Time-earlier.Time, 0)}
	for i := range t.Statuses {
		since.Statuses[i] = t.Statuses[i] - min(t.Statuses[i], earlier.Statuses[i])
	}
	for i := range t.Durations {
		since.Durations[i] = t.Durations[i] - min(t.Durations[i], earlier.Durations[i])
	}
	return since
}

// AddTo adds the route's requests to totals.
func (q *Requests) AddTo(t *Totals) {
	for m := range q.counts {
		if byStatus := q.counts[m].Load(); byStatus != nil {
			for i := range byStatus {
				c := byStatus[i].Load()
				switch {
				case c == nil:
				case i == 0:
					t.Statuses[0] += c.Value()
				default:
					t.Statuses[(i-1+minStatus)/100] += c.Value()
				}
			}
		}
		if h := q.durations[m].Load(); h != nil {
			buckets, sum, _ := h.read()
			for i, n := range buckets {
				t.Durations[i] += n
			}
			t.Time += sum
		}
	}
}

// Totals are the requests of all routes, those of earlier configurations
// included.
func (r *Registry) Totals() (t Totals) {
	for _, s := range r.find(requestsName).sorted {
		if q, ok := s.source.(*requestCounts); ok {
			(*Requests)(q).AddTo(&t)
		}
	}
	return t
}
