package redisclient

import "sync/atomic"

const breakerRow = 3 // failures, then Redis is left alone

// Breaker keeps callers away from a Redis that fails: after some failures in a
// row nobody asks but whoever waits for Opened, and the first success that is
// reported ends that. Safe for concurrent use.
type Breaker struct {
	flipped func(open bool)
	opened  chan struct{} // capacity 1
	open    atomic.Bool
	row     atomic.Int32 // failures
}

// NewBreaker makes a closed breaker. flipped is called when it opens and when
// it closes.
func NewBreaker(flipped func(open bool)) *Breaker {
	return &Breaker{flipped: flipped, opened: make(chan struct{}, 1)}
}

// Report tells how a call went.
func (b *Breaker) Report(ok bool) {
	if ok {
		if b.row.Load() != 0 {
			b.row.Store(0)
		}
		if b.open.Load() && b.open.CompareAndSwap(true, false) {
			b.flipped(false)
		}
		return
	}
	if b.row.Add(1) >= breakerRow && b.open.CompareAndSwap(false, true) {
		b.flipped(true)
		select {
		case b.opened <- struct{}{}:
		default:
		}
	}
}

// IsOpen reports whether Redis is to be left alone.
func (b *Breaker) IsOpen() bool { return b.open.Load() }

// Opened has something to receive when the breaker has opened: it is for the one
// who then finds out whether Redis is back.
func (b *Breaker) Opened() <-chan struct{} { return b.opened }
