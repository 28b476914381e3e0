package upstream

import (
	"sync/atomic"

	"gateway/internal/processor"
)

// load is how many requests are in flight to an address. Those of servers for
// which it decides something are counted in one place, so that everybody sees
// the same number; the others by processor, which is cheaper with several.
type load struct {
	_     [64]byte // each request writes it
	exact atomic.Int64
	_     [56]byte
	apart atomic.Pointer[processor.Counter] // nil as long as there is no such server
}

// expect prepares for servers that need no exact number.
func (l *load) expect() {
	if l.apart.Load() == nil {
		c := processor.NewCounter()
		l.apart.CompareAndSwap(nil, &c)
	}
}

// now is the number. While others change what is counted apart, it may be off by
// what they are doing, even below zero.
func (l *load) now() int64 { return l.exact.Load() + l.others() }

// others is the part of the number that is counted apart.
func (l *load) others() int64 {
	if c := l.apart.Load(); c != nil {
		return int64(c.Value())
	}
	return 0
}
