package upstream

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// latencies knows the percentiles of a pool's latest latencies: a histogram of
// steps of a sixteenth, in two halves of which the older one is replaced every
// five seconds, or later while there are few requests. An observation costs one
// addition; once a second one of them pays for the percentiles. Safe for
// concurrent use: waits for no lock, allocates nothing.
type latencies struct {
	percentiles [len(percentiles)]atomic.Int64 // ns, 0 before there are enough
	due         atomic.Int64                   // when they are found out anew; clock of the registry
	present     atomic.Uint32                  // the half that is counted in

	mu    sync.Mutex // held while percentiles are found out; nobody waits for it
	began int64      // the present half; clock of the registry

	halves [2][latencySteps]atomic.Uint32
}

var percentiles = [...]int{90, 95, 99}

const (
	latencyShift = 14 // what is below 2^14 ns, about 16 µs, is all the same
	latencyBits  = 4  // so many steps, as a power of two, to the next power of two
	latencySteps = 22<<latencyBits + 1<<latencyBits
	latencyDue   = int64(time.Second)
	latencyHalf  = int64(5 * time.Second)
	latencyLeast = 50 // observations in a half
)

// latencyStep is the step of a latency; latencyOf the other way round, its
// upper end.
func latencyStep(ns int64) int {
	v := uint64(max(ns, 0)) >> (latencyShift - latencyBits)
	if v < 1<<latencyBits {
		return int(v)
	}
	octave := bits.Len64(v) - latencyBits // at least 1
	return min(octave<<latencyBits+int(v>>(octave-1)&(1<<latencyBits-1)), latencySteps-1)
}

func latencyOf(step int) int64 {
	octave, part := step>>latencyBits, int64(step&(1<<latencyBits-1))
	if octave == 0 {
		return (part + 1) << (latencyShift - latencyBits)
	}
	return (1<<latencyBits + part + 1) << (octave - 1 + latencyShift - latencyBits)
}

// observe counts a latency.
func (l *latencies) observe(ns, now int64) {
	l.halves[l.present.Load()][latencyStep(ns)].Add(1)
	if now >= l.due.Load() && l.mu.TryLock() {
		if now >= l.due.Load() {
			l.due.Store(now + latencyDue)
			l.find(now)
		}
		l.mu.Unlock()
	}
}

// find finds the percentiles out. While there are too few observations, those
// of before stand. The caller holds l.mu.
func (l *latencies) find(now int64) {
	present := l.present.Load()
	counts := [2]uint64{}
	for h := range l.halves {
		for i := range l.halves[h] {
			counts[h] += uint64(l.halves[h][i].Load())
		}
	}
	total := counts[0] + counts[1]
	if total >= 2*latencyLeast {
		seen, step := uint64(0), -1
		for i, p := range percentiles {
			for 100*seen < uint64(p)*total {
				if step++; step == latencySteps {
					return // counted while we counted
				}
				seen += uint64(l.halves[0][step].Load()) + uint64(l.halves[1][step].Load())
			}
			l.percentiles[i].Store(latencyOf(step))
		}
	}
	if l.began == 0 {
		l.began = now
	}
	if now-l.began < latencyHalf || counts[present] < latencyLeast {
		return
	}
	other := 1 - present
	for i := range l.halves[other] {
		l.halves[other][i].Store(0)
	}
	l.present.Store(other)
	l.began = now
}

// percentile is the latency that so many of a hundred do not exceed, 0 while
// it is not known.
func (l *latencies) percentile(p int) time.Duration {
	for i, known := range percentiles {
		if known == p {
			return time.Duration(l.percentiles[i].Load())
		}
	}
	panic("BUG: a percentile that nobody keeps")
}
