package metrics

import (
	"strconv"
	"sync/atomic"
	"time"

	"gateway/internal/processor"
)

// bounds are the inclusive upper ends of the buckets; a last bucket holds what
// is longer.
var bounds = [...]time.Duration{
	250 * time.Microsecond, 500 * time.Microsecond,
	1 * time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	1 * time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

// bucketLabels are the le labels of the buckets.
var bucketLabels = func() (labels [len(bounds) + 1]string) {
	for i, bound := range bounds {
		labels[i] = `le="` + strconv.FormatFloat(bound.Seconds(), 'f', -1, 64) + `"`
	}
	labels[len(bounds)] = `le="+Inf"`
	return labels
}()

// Histogram counts durations in buckets from 0.25 ms to 10 s.
type Histogram struct{ cells []histogramCell }

// histogramCell is three cache lines of its own.
type histogramCell struct {
	counts [len(bounds) + 1]atomic.Uint64
	sum    atomic.Uint64 // ns; enough for centuries
	_      [56]byte
}

func newHistogram() *Histogram { return &Histogram{make([]histogramCell, processor.Count)} }

// Observe counts a duration; a negative one as zero. It allocates nothing and
// takes no lock.
func (h *Histogram) Observe(d time.Duration) {
	d = max(d, 0)
	i := 0
	for i < len(bounds) && d > bounds[i] {
		i++
	}
	c := &h.cells[processor.Current()]
	c.counts[i].Add(1)
	c.sum.Add(uint64(d))
}

// Count is the number of durations observed.
func (h *Histogram) Count() uint64 {
	_, _, count := h.read()
	return count
}

// read is a moment's state. A duration that is being observed meanwhile may be
// in the count already and not yet in the sum.
func (h *Histogram) read() (buckets [len(bounds) + 1]uint64, sum time.Duration, count uint64) {
	for i := range h.cells {
		c := &h.cells[i]
		for j := range c.counts {
			n := c.counts[j].Load()
			buckets[j] += n
			count += n
		}
		sum += time.Duration(c.sum.Load())
	}
	return buckets, sum, count
}

func (h *Histogram) appendTo(b []byte, name, labels string) []byte {
	buckets, sum, count := h.read()
	var below uint64
	for i, n := range buckets {
		below += n
		b = appendName(b, name, "_bucket", labels, bucketLabels[i])
		b = strconv.AppendUint(b, below, 10)
		b = append(b, '\n')
	}
	b = appendName(b, name, "_sum", labels, "")
	b = strconv.AppendFloat(b, sum.Seconds(), 'g', -1, 64)
	b = append(b, '\n')
	b = appendName(b, name, "_count", labels, "")
	b = strconv.AppendUint(b, count, 10)
	return append(b, '\n')
}
