package compress

import (
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// sampleEvery is the time over which the use of the CPUs is averaged.
const sampleEvery = int64(250 * time.Millisecond)

// calm is how far the use must fall below the limit before levels return.
const calm = 0.15

// load is how busy the process keeps its CPUs. There is no goroutine behind
// it: whoever wants to know looks again when the last look is old enough.
type load struct {
	due     atomic.Int64  // clock from which on the next look is due, ns
	usage   atomic.Uint64 // bits of the share, 0 to 1
	samples atomic.Uint32 // looks so far

	looking sync.Mutex // guards what follows; only tried, never waited for
	at      int64      // clock of the last look, ns
	used    int64      // CPU time of the process then, ns

	cpu func() int64 // CPU time of the process so far, ns
}

// processTime is the CPU time that the process has used, in ns.
func processTime() int64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// share is the use of the CPUs at the last look.
func (l *load) share() float64 { return math.Float64frombits(l.usage.Load()) }

// look takes a sample if one is due. now is a monotonic clock in ns.
func (l *load) look(now int64) {
	if now < l.due.Load() || !l.looking.TryLock() {
		return
	}
	defer l.looking.Unlock()
	if now < l.due.Load() {
		return
	}
	used := l.cpu()
	if l.samples.Load() > 0 {
		share := float64(used-l.used) / float64(now-l.at) / float64(runtime.GOMAXPROCS(0))
		l.usage.Store(math.Float64bits(min(max(share, 0), 1)))
	}
	l.at, l.used = now, used
	l.due.Store(now + sampleEvery)
	l.samples.Add(1)
}

// deepest is the number of steps by which levels can fall.
const deepest = 2

// Shedder lowers levels step by step while the CPUs are busy, and raises them
// again when they are not. A nil Shedder never does.
type Shedder struct {
	load *load
	busy float64 // share of the CPUs above which levels fall
	seen atomic.Uint32
	step atomic.Int32
}

// Step is by how many steps levels are lowered now, 0 to 2. now is a monotonic
// clock in ns. Allocates nothing.
func (s *Shedder) Step(now int64) int {
	if s == nil {
		return 0
	}
	s.load.look(now)
	n, seen := s.load.samples.Load(), s.seen.Load()
	if n != seen && s.seen.CompareAndSwap(seen, n) { // one of us for each sample
		switch share, step := s.load.share(), s.step.Load(); {
		case share > s.busy && step < deepest:
			s.step.Store(step + 1)
		case share < s.busy-calm && step > 0:
			s.step.Store(step - 1)
		}
	}
	return int(s.step.Load())
}
