package metrics

import (
	"math"
	"sync/atomic"
	"time"

	"gateway/internal/processor"
)

// Counter is a number that only grows.
type Counter struct{ n processor.Counter }

func newCounter() *Counter { return &Counter{processor.NewCounter()} }

// Inc adds one. It allocates nothing and takes no lock.
func (c *Counter) Inc() { c.Add(1) }

// Add adds n. It allocates nothing and takes no lock.
func (c *Counter) Add(n uint64) { c.n.Add(n) }

// Value is the sum of what was added.
func (c *Counter) Value() uint64 { return c.n.Value() }

func (c *Counter) appendTo(b []byte, name, labels string) []byte {
	return appendUint(b, name, labels, c.Value())
}

// Seconds is a sum of durations, written in seconds.
type Seconds Counter

// Add adds d, which must not be negative. It allocates nothing and takes no lock.
func (s *Seconds) Add(d time.Duration) { (*Counter)(s).Add(uint64(d)) }

// Value is the sum of what was added.
func (s *Seconds) Value() time.Duration { return time.Duration((*Counter)(s).Value()) }

// seconds is Value; it is rounded once.
func (s *Seconds) seconds() float64 { return float64((*Counter)(s).Value()) / 1e9 }

func (s *Seconds) appendTo(b []byte, name, labels string) []byte {
	return appendFloat(b, name, labels, s.seconds())
}

// Level is a number that many raise and lower, such as of requests in flight.
// Its cells hold two's complement: only their sum means something.
type Level Counter

// Inc adds one. It allocates nothing and takes no lock.
func (l *Level) Inc() { l.Add(1) }

// Dec takes one away. It allocates nothing and takes no lock.
func (l *Level) Dec() { l.Add(-1) }

// Add adds n, which may be negative. It allocates nothing and takes no lock.
func (l *Level) Add(n int64) { (*Counter)(l).Add(uint64(n)) }

// Value is the level. While others change it, it may be off by what they are
// doing, even below zero.
func (l *Level) Value() int64 { return int64((*Counter)(l).Value()) }

func (l *Level) appendTo(b []byte, name, labels string) []byte {
	return appendFloat(b, name, labels, float64(l.Value()))
}

// Gauge is a number that is set.
type Gauge struct{ bits atomic.Uint64 }

// Set replaces the value.
func (g *Gauge) Set(v float64) { g.bits.Store(math.Float64bits(v)) }

// Value is what was set last, 0 at first.
func (g *Gauge) Value() float64 { return math.Float64frombits(g.bits.Load()) }

func (g *Gauge) appendTo(b []byte, name, labels string) []byte {
	return appendFloat(b, name, labels, g.Value())
}

// function is a value that is asked for.
type function struct {
	f atomic.Pointer[func() float64]
}

func (f *function) appendTo(b []byte, name, labels string) []byte {
	value := f.f.Load()
	if value == nil { // registered this very moment
		return b
	}
	return appendFloat(b, name, labels, (*value)())
}
