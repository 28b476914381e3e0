package users

import (
	"sync"
	"time"
)

// breaker keeps requests away from a backend that fails. After so many
// failures in a row it opens: nobody asks until the pause is over; then one
// request at a time is let through as a trial, and the first success closes
// it.
type breaker struct {
	failures int
	pause    time.Duration
	flipped  func(open bool) // called without the lock

	mu       sync.Mutex
	row      int // failures in a row
	open     bool
	trial    time.Time // when the next trial may begin
	underway bool      // a trial is running
}

// allow says whether the backend may be asked now. Whoever is allowed reports.
func (b *breaker) allow(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.open {
		return true
	}
	if b.underway || now.Before(b.trial) {
		return false
	}
	b.underway = true
	return true
}

// report tells how it went.
func (b *breaker) report(now time.Time, ok bool) {
	b.mu.Lock()
	was := b.open
	b.underway = false
	if ok {
		b.row, b.open = 0, false
	} else {
		b.row++
		if b.row >= b.failures {
			b.open, b.trial = true, now.Add(b.pause)
		}
	}
	is := b.open
	b.mu.Unlock()
	if is != was && b.flipped != nil {
		b.flipped(is)
	}
}

// isOpen is for metrics.
func (b *breaker) isOpen() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open
}
