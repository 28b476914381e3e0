package upstream

import (
	"sync/atomic"
	"time"

	"gateway/internal/processor"
)

// Budget bounds the repeated attempts of a pool to a share of its requests of
// the last ten seconds and a floor of some a second, as Finagle's RetryBudget
// does: a failing pool then gets at most so much more load. Safe for
// concurrent use; its methods allocate nothing and take no lock.
type Budget struct {
	share float64 // of requests
	floor float64 // retries in a window without any request

	rings []budgetRing // one for each processor, so that requests do not contend
}

// budgetRing counts by seconds; two cache lines of its own.
type budgetRing [budgetSlots]atomic.Uint64

const (
	budgetWindow = 10 // slots, hence seconds
	budgetSlots  = 16 // a power of two above the window
	budgetSlot   = int64(time.Second)
)

// A slot is one word, so that it is begun anew and counted in one step: 24
// bits of its second (unique for half a year), 24 bits of requests and 16 bits
// of retries, both stopping at their maximum.
const (
	slotRetry   = 1
	slotRequest = 1 << 16
	slotSecond  = 1 << 40
	maxRetries  = 1<<16 - 1
	maxRequests = 1<<24 - 1
)

// rounding keeps 29 % of 100 from being 28.
const rounding = 1e-6

// NewBudget is a budget of a share of requests, 0 to 1, and a number of
// retries a second that are allowed in any case.
func NewBudget(share float64, minPerSecond int) *Budget {
	return &Budget{share: share, floor: float64(minPerSecond * budgetWindow), rings: make([]budgetRing, processor.Count)}
}

// same reports whether another budget allows as much.
func (b *Budget) same(o *Budget) bool { return b.share == o.share && b.floor == o.floor }

// slot is where the caller's processor counts in that second.
func (b *Budget) slot(second uint64) *atomic.Uint64 {
	return &b.rings[processor.Current()][second%budgetSlots]
}

// Request counts a request (its first attempt). now is clock.Coarse or clock.Mono.
func (b *Budget) Request(now int64) {
	second := uint64(now / budgetSlot)
	slot := b.slot(second)
	for {
		old := slot.Load()
		word := current(old, second)
		if requests(word) < maxRequests {
			word += slotRequest
		}
		if word == old || slot.CompareAndSwap(old, word) {
			return
		}
	}
}

// Allow reports whether one more attempt may be made now, and counts it if so.
// now is clock.Mono.
func (b *Budget) Allow(now int64) bool {
	second := uint64(now / budgetSlot)
	slot := b.slot(second)
	for {
		old := slot.Load()
		word := current(old, second)
		if retries(word) == maxRetries {
			return false
		}
		if slot.CompareAndSwap(old, word+slotRetry) {
			break
		}
	}
	// Counted first and then compared: of two that ask for the last one both
	// may be refused, never both be allowed.
	made, asked := 0.0, 0.0
	for r := range b.rings {
		for i := range min(budgetWindow, second+1) {
			word := current(b.rings[r][(second-i)%budgetSlots].Load(), second-i)
			made += float64(retries(word))
			asked += float64(requests(word))
		}
	}
	if made <= b.share*asked+b.floor+rounding {
		return true
	}
	for {
		old := slot.Load()
		if current(old, second) != old || retries(old) == 0 {
			return false // so much time has passed that the slot is another second's
		}
		if slot.CompareAndSwap(old, old-slotRetry) {
			return false
		}
	}
}

// current is the slot's word if it is that second's, an empty word of that
// second otherwise.
func current(word, second uint64) uint64 {
	if epoch := second << 40; word&^(slotSecond-1) != epoch {
		return epoch
	}
	return word
}

func requests(word uint64) uint64 { return word >> 16 & maxRequests }
func retries(word uint64) uint64  { return word & maxRetries }
