package upstream

import (
	"math"
	"sync/atomic"
	"time"
)

// peak is the moving average of a server's latency that notices trouble at
// once and forgives slowly (Finagle's Peak EWMA): a sample above it replaces
// it, one below it is mixed in according to the time that has passed. It also
// decays while nothing is known, so that a server that was slow is tried again.
//
// Its parts are written one after the other: of two samples at the same moment
// one may be lost.
type peak struct {
	value atomic.Int64 // ns, 0 before the first sample
	at    atomic.Int64 // of the last sample, clock of the registry
}

// peakDecay is the time in which old knowledge fades to a third (1/e).
const peakDecay = float64(10 * time.Second)

// faded is the part that is left of what was known at a moment.
func faded(since, now int64) float64 {
	if now <= since {
		return 1
	}
	return math.Exp(float64(since-now) / peakDecay)
}

// observe mixes a sample in.
func (p *peak) observe(ns, now int64) {
	old := p.value.Load()
	next := ns
	if old > ns {
		left := faded(p.at.Load(), now)
		next = int64(float64(old)*left + float64(ns)*(1-left))
	}
	p.at.Store(now)
	p.value.Store(max(next, 1))
}

// read is what the average is worth now, 0 before the first sample.
func (p *peak) read(now int64) float64 {
	value := p.value.Load()
	if value == 0 {
		return 0
	}
	return float64(value) * faded(p.at.Load(), now)
}

// forget makes the server an unknown one.
func (p *peak) forget() { p.value.Store(0) }

// failurePenalty says how many times slower than its average answer a failure
// counts: a server that refuses quickly must not look like the fastest.
const failurePenalty = 10

// slow is the sample for a failure after so long, of a server with that average
// latency.
func slow(latency, average int64) int64 {
	if average == 0 {
		average = int64(100 * time.Millisecond)
	}
	return max(latency, failurePenalty*average)
}

// costlier reports whether a request to a would cost more than one to b:
// latency × (requests in flight + 1). A server that is not known yet is taken
// to be as fast as the one that it is compared with, hence, over many picks,
// as the mean of the pool.
//
// What is known of both fades at the same rate, so it is enough that the older
// knowledge fades until the time of the newer: the time of the pick makes no
// difference.
func costlier(a *member, inFlightA int64, b *member, inFlightB int64) bool {
	p, q := &a.tally.peak, &b.tally.peak
	x, y := float64(p.value.Load()), float64(q.value.Load())
	switch {
	case x == 0 || y == 0:
		x, y = 1, 1
	default:
		since, other := p.at.Load(), q.at.Load()
		if since < other {
			x *= faded(since, other)
		} else if other < since {
			y *= faded(other, since)
		}
	}
	return x*float64(rounds(a, inFlightA, b)+1) > y*float64(rounds(b, inFlightB, a)+1)
}
