// Package clock is the gateway's time: monotonic nanoseconds since the process
// began, exact or coarse, and the coarse wall clock in the forms that answers
// and logs need.
//
// The coarse clock is kept by one goroutine that looks at the time every
// Resolution and goes to sleep when nobody has asked for a second: an idle
// process is not woken at all, a busy one 200 times a second. Whoever asks a
// sleeping clock gets the exact time and wakes it. So the coarse clock is
// always right to within Resolution, as long as the machine has a CPU to spare
// for the goroutine; under starvation it lags as everything else does.
//
// In a testing/synctest bubble only Mono follows the bubble's time.
package clock

import (
	"context"
	"sync/atomic"
	"time"
)

// Resolution is how often the coarse clock looks at the time while in use.
const Resolution = 5 * time.Millisecond

// rest is the number of ticks without a reader after which the coarse clock
// goes to sleep.
const rest = int(time.Second / Resolution)

var base = time.Now()

var (
	coarse atomic.Int64           // Mono at the last tick; 0 while asleep
	offset atomic.Int64           // wall clock minus Mono at the last tick, ns
	second atomic.Pointer[stamps] // of the last tick, never nil
	asked  atomic.Bool            // somebody has read the coarse clock since the last tick
	wake   = make(chan struct{}, 1)
)

func init() {
	tick()
	coarse.Store(0)
	go keep()
}

// Mono is the monotonic time in nanoseconds since the process began, exact.
func Mono() int64 { return int64(time.Since(base)) }

// Coarse is Mono as of the last tick, at most Resolution ago. It costs a load
// where Mono asks the kernel's clock. Between two calls that straddle the
// clock's awakening, and against Mono, it can seem to go back by microseconds:
// a difference may be negative.
func Coarse() int64 {
	if now := coarse.Load(); now != 0 {
		use()
		return now
	}
	rouse()
	return Mono()
}

// Wall is the coarse wall clock, UTC, without a monotonic reading.
func Wall() time.Time { return WallAt(Coarse()) }

// Unix is the coarse wall clock in seconds since 1970.
func Unix() int64 { return (Coarse() + difference()) / int64(time.Second) }

// Nanos is the coarse wall clock in nanoseconds since 1970.
func Nanos() int64 { return NanosAt(Coarse()) }

// NanosAt is the wall clock in nanoseconds since 1970 at a moment that Mono or
// Coarse has given.
func NanosAt(mono int64) int64 { return mono + difference() }

// WallAt is the wall clock, UTC, at a moment that Mono or Coarse has given.
func WallAt(mono int64) time.Time { return time.Unix(0, mono+difference()).UTC() }

// difference is the wall clock minus Mono, in nanoseconds.
func difference() int64 {
	if coarse.Load() != 0 {
		return offset.Load()
	}
	return time.Now().UnixNano() - Mono()
}

// use tells the ticker that it is needed. Readers on many cores share the flag:
// it is written once a tick.
func use() {
	if !asked.Load() {
		asked.Store(true)
	}
}

// rouse wakes the ticker.
func rouse() {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// keep is the ticker's goroutine.
func keep() {
	for range wake {
		t := time.NewTicker(Resolution)
		tick()
		for idle := 0; idle < rest; {
			<-t.C
			tick()
			idle++
			if asked.Swap(false) {
				idle = 0
			}
		}
		t.Stop()
		coarse.Store(0)
		select {
		case <-wake: // left over from when this one woke; readers will send another
		default:
		}
	}
}

// tick looks at the time.
func tick() {
	now := time.Now()
	mono := int64(now.Sub(base))
	if s := second.Load(); s == nil || s.unix != now.Unix() {
		second.Store(newStamps(now.Unix()))
	}
	offset.Store(now.UnixNano() - mono)
	coarse.Store(mono)
}

// Sleep waits for d, or less: it reports false when ctx was done before.
func Sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Now is Mono as a time, for deadlines. It asks one of the kernel's clocks where
// time.Now asks two; its wall clock does not follow when that is set.
func Now() time.Time { return TimeAt(Mono()) }

// TimeAt is a moment that Mono has given as a time, as Now gives it.
func TimeAt(mono int64) time.Time { return base.Add(time.Duration(mono)) }

// At is a time as Mono gives it. It may be negative.
func At(t time.Time) int64 { return int64(t.Sub(base)) }
