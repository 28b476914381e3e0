package metrics

import (
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
)

const (
	requestsName = "gateway_http_requests_total"
	requestsHelp = "Requests that have been answered or given up, by route, method and status (0: no answer was sent)."
	durationName = "gateway_http_request_duration_seconds"
	durationHelp = "Time from the complete head of a request to the end of its answer."

	minStatus = 100
	maxStatus = 599
)

// Requests are the counters of one route: its requests by method and status,
// and their durations by method. Cells are made when they are first needed, so
// that a route costs memory only for what happens on it.
type Requests struct {
	methods   []string
	counts    []atomic.Pointer[statuses]
	durations []atomic.Pointer[Histogram]
}

// statuses are counters by status: 0 for what is no status, then 100 to 599.
type statuses [1 + maxStatus - minStatus + 1]atomic.Pointer[Counter]

// Requests are the counters of a route. The methods are the names of all
// methods that will be counted; a method is given by its place among them.
// Place 0 also counts methods out of range.
func (r *Registry) Requests(route string, methods []string) *Requests {
	labels := []string{"route", route}
	counts := obtain(r, requestsName, requestsHelp, counter, labels, func() *requestCounts {
		return &requestCounts{
			methods:   slices.Clone(methods),
			counts:    make([]atomic.Pointer[statuses], len(methods)),
			durations: make([]atomic.Pointer[Histogram], len(methods)),
		}
	})
	q := (*Requests)(counts)
	if !slices.Equal(q.methods, methods) {
		panic(fmt.Sprintf("BUG: requests are counted by methods %q, not %q", q.methods, methods))
	}
	// Both families lead to the same counters. Only Remove of one of them by
	// name can part them.
	obtain(r, durationName, durationHelp, histogram, labels, func() *requestDurations { return (*requestDurations)(q) })
	return q
}

// Inc counts a request. A status outside of 100 to 599 counts as 0. It takes no
// lock, and allocates only for the first request of its method and status.
func (q *Requests) Inc(method uint8, status int) {
	p := &q.counts[q.place(method)]
	byStatus := p.Load()
	if byStatus == nil {
		byStatus = first(p, new(statuses))
	}
	i := 0
	if status >= minStatus && status <= maxStatus {
		i = 1 + status - minStatus
	}
	c := byStatus[i].Load()
	if c == nil {
		c = first(&byStatus[i], newCounter())
	}
	c.Inc()
}

// Observe counts how long a request took. It takes no lock, and allocates only
// for the first request of its method.
func (q *Requests) Observe(method uint8, d time.Duration) {
	p := &q.durations[q.place(method)]
	h := p.Load()
	if h == nil {
		h = first(p, newHistogram())
	}
	h.Observe(d)
}

// Total is the number of requests counted, of all methods and statuses.
func (q *Requests) Total() uint64 {
	var sum uint64
	for m := range q.counts {
		if byStatus := q.counts[m].Load(); byStatus != nil {
			for i := range byStatus {
				if c := byStatus[i].Load(); c != nil {
					sum += c.Value()
				}
			}
		}
	}
	return sum
}

func (q *Requests) place(method uint8) int {
	if int(method) < len(q.methods) {
		return int(method)
	}
	return 0
}

// first stores v unless another goroutine was faster, and returns what is
// stored.
func first[T any](p *atomic.Pointer[T], v *T) *T {
	if p.CompareAndSwap(nil, v) {
		return v
	}
	return p.Load()
}

// requestCounts is Requests as the family of counters sees it.
type requestCounts Requests

func (q *requestCounts) appendTo(b []byte, name, labels string) []byte {
	var scratch [64]byte
	for m := range q.counts {
		byStatus := q.counts[m].Load()
		if byStatus == nil {
			continue
		}
		for i := range byStatus {
			c := byStatus[i].Load()
			if c == nil {
				continue
			}
			status := 0
			if i > 0 {
				status = i - 1 + minStatus
			}
			extra := q.appendMethod(scratch[:0], m)
			extra = append(extra, `,status="`...)
			extra = strconv.AppendInt(extra, int64(status), 10)
			extra = append(extra, '"')
			b = appendName(b, name, "", labels, string(extra))
			b = strconv.AppendUint(b, c.Value(), 10)
			b = append(b, '\n')
		}
	}
	return b
}

func (q *requestCounts) appendMethod(b []byte, m int) []byte {
	return appendLabels(b, []string{"method", q.methods[m]})
}

// requestDurations is Requests as the family of histograms sees it.
type requestDurations Requests

func (q *requestDurations) appendTo(b []byte, name, labels string) []byte {
	for m := range q.durations {
		if h := q.durations[m].Load(); h != nil {
			all := string(appendLabels([]byte(labels+","), []string{"method", q.methods[m]}))
			b = h.appendTo(b, name, all)
		}
	}
	return b
}
