// Package processor keeps what several processors write apart, so that none
// waits for a line of the CPU's cache that another one has just written.
package processor

import (
	"math/bits"
	"runtime"
	"sync/atomic"
	_ "unsafe" // for go:linkname
)

// Count is how many cells suffice for each processor to have its own: a power
// of two of at most 64.
var Count = 1 << bits.Len(uint(min(max(runtime.NumCPU(), runtime.GOMAXPROCS(0)), 64)-1))

// Current is the number of the runtime's processor (a P) that the caller runs
// on, below Count. It is a hint, out of date as soon as it is there: what a
// cell holds must be right whoever writes to it. More processors than Count
// share numbers. It takes about a nanosecond.
func Current() int {
	n := pin()
	unpin()
	return n & (Count - 1)
}

// The runtime promises to keep these two for packages like this one
// (go.dev/issue/67401).

//go:linkname pin runtime.procPin
func pin() int

//go:linkname unpin runtime.procUnpin
func unpin()

// Counter is a number that all processors add to. The zero value can't be
// used.
type Counter struct{ cells []cell }

// cell is a cache line of its own.
type cell struct {
	n atomic.Uint64
	_ [56]byte
}

// NewCounter is a counter of zero.
func NewCounter() Counter { return Counter{make([]cell, Count)} }

// Add adds n, in two's complement. It allocates nothing and takes no lock.
func (c *Counter) Add(n uint64) { c.cells[Current()].n.Add(n) }

// Value is the sum of what was added.
func (c *Counter) Value() uint64 {
	var sum uint64
	for i := range c.cells {
		sum += c.cells[i].n.Load()
	}
	return sum
}
