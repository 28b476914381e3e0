package upstream

import (
	"sync"
	"sync/atomic"
	"time"

	"gateway/internal/clock"
	"gateway/internal/processor"
)

// idle are the idle connections of an endpoint, in stacks: the one used last is
// on top, so that surplus ones grow old and go. Each processor has a stack, and
// looks at the others' before a connection is opened or closed for want of room:
// so processors neither wait for each other nor pass on what their caches hold. A
// stack that somebody has locked comes last: he may have been taken off his
// processor meanwhile.
type idle struct {
	stacks  []stack
	timeout time.Duration // a connection is closed after this time; 0: never
	retired atomic.Bool   // nothing is kept; read with a stack's lock

	swept   atomic.Bool // the sweeper will come
	mu      sync.Mutex  // guards what follows, and changes of the two above
	sweeper *time.Timer // closes connections that were idle for too long; nil until needed
	due     int64       // when it comes, of clock.Mono
}

// stack is one processor's.
type stack struct {
	mu    sync.Mutex // never held across I/O
	conns []*conn
	room  int      // connections kept at most; those of all stacks are what is allowed
	_     [88]byte // no line of the CPU's cache belongs to two stacks, nor a pair of lines
}

// minStack is the least room of a stack: an endpoint that keeps few connections
// has fewer stacks than there are processors.
const minStack = 32

func (l *idle) init(most int, timeout time.Duration) {
	l.timeout = timeout
	n := processor.Count
	for n > 1 && most/n < minStack {
		n /= 2
	}
	l.stacks = make([]stack, n)
	for i := range l.stacks {
		l.stacks[i].room = (most + i) / n
	}
}

// visit gives use one locked stack after the other, that of the caller's processor
// first, until it reports that it is done. Those that somebody else has locked come
// last.
func (l *idle) visit(use func(*stack) (done bool)) {
	from, passed := processor.Current(), false
	for i := range l.stacks {
		s := &l.stacks[(from+i)&(len(l.stacks)-1)]
		if !s.mu.TryLock() {
			passed = true
			continue
		}
		done := use(s)
		s.mu.Unlock()
		if done {
			return
		}
	}
	for i := 0; passed && i < len(l.stacks); i++ {
		s := &l.stacks[(from+i)&(len(l.stacks)-1)]
		s.mu.Lock()
		done := use(s)
		s.mu.Unlock()
		if done {
			return
		}
	}
}

// pop takes the connection used last of the first stack that has one, nil when
// there is none. With fresh, only one that has been idle for less than freshFor.
// One that has been seen since comes before those that have not, as long as it is
// not much older.
func (l *idle) pop(fresh bool) (c *conn) {
	now := clock.Coarse()
	var old []*conn
	l.visit(func(s *stack) bool {
		top := len(s.conns) - 1
		if top < 0 {
			return false
		}
		age := time.Duration(now - s.conns[top].since)
		switch {
		case l.timeout > 0 && age >= l.timeout: // all others are older
			old = append(old, s.conns...)
			s.conns = nil
		case !fresh || age < freshFor:
			c = s.take(now)
			c.idled = time.Duration(now - c.since)
		}
		return c != nil
	})
	closeAll(old)
	return c
}

// unseen is how old a connection may be that is taken instead of a younger one
// that nobody has looked at.
const unseen = 100 * time.Millisecond

// take removes the connection used last, or the last one of those that have been
// seen since. mu is held, and there is one.
func (s *stack) take(now int64) *conn {
	top := len(s.conns) - 1
	at := top
	if !s.conns[top].seen() {
		// Those above became idle later, so that they have not been seen either.
		// (With several sets that is a guess.)
		low, high := 0, top
		for low < high {
			if middle := (low + high) / 2; s.conns[middle].seen() {
				low = middle + 1
			} else {
				high = middle
			}
		}
		if low > 0 && s.conns[low-1].seen() && now-s.conns[low-1].since < int64(unseen) {
			at = low - 1
		}
	}
	c := s.conns[at]
	copy(s.conns[at:], s.conns[at+1:])
	s.conns[top] = nil
	s.conns = s.conns[:top]
	return c
}

// push keeps the connection, idle since that moment, if there is room.
func (l *idle) push(c *conn, since int64) (kept bool) {
	c.since = since
	l.visit(func(s *stack) bool {
		if kept = !l.retired.Load() && len(s.conns) < s.room; kept {
			s.conns = append(s.conns, c)
		}
		return kept
	})
	if kept && l.timeout > 0 && !l.swept.Load() {
		l.sweepAt(since + int64(l.timeout))
	}
	return kept
}

// count is how many there are.
func (l *idle) count() int {
	n := 0
	for i := range l.stacks {
		s := &l.stacks[i]
		s.mu.Lock()
		n += len(s.conns)
		s.mu.Unlock()
	}
	return n
}

// clear closes them.
func (l *idle) clear() {
	for i := range l.stacks {
		s := &l.stacks[i]
		s.mu.Lock()
		old := s.conns
		s.conns = nil
		s.mu.Unlock()
		closeAll(old)
	}
}

// keep says whether connections that come back are kept. Those that are there stay.
func (l *idle) keep(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.retired.Store(!on)
	if !on && l.swept.Swap(false) {
		l.sweeper.Stop()
	}
}

// sweepAt has the sweeper come at that time at the latest.
func (l *idle) sweepAt(due int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.retired.Load() || l.swept.Load() && l.due <= due {
		return
	}
	l.swept.Store(true)
	l.due = due
	if in := time.Duration(due - clock.Mono()); l.sweeper == nil {
		l.sweeper = time.AfterFunc(in, l.sweep)
	} else {
		l.sweeper.Reset(in)
	}
}

// sweep closes the connections at the bottom of the stacks that have been idle
// for too long.
func (l *idle) sweep() {
	l.swept.Store(false) // before the stacks are looked at: what comes to them later is seen to by whoever brings it
	now, oldest := clock.Mono(), int64(0)
	for i := range l.stacks {
		if since, left := l.stacks[i].sweep(now - int64(l.timeout)); left && (oldest == 0 || since < oldest) {
			oldest = since
		}
	}
	if oldest != 0 {
		l.sweepAt(oldest + int64(l.timeout))
	}
}

// sweep closes what is idle since before or at the given time, and tells since
// when the oldest one is that is left, if any is.
func (s *stack) sweep(before int64) (oldest int64, left bool) {
	s.mu.Lock()
	n := 0
	for n < len(s.conns) && s.conns[n].since <= before {
		n++
	}
	old := append([]*conn(nil), s.conns[:n]...)
	kept := copy(s.conns, s.conns[n:])
	clear(s.conns[kept:])
	s.conns = s.conns[:kept]
	if kept > 0 {
		oldest, left = s.conns[0].since, true
	}
	s.mu.Unlock()
	closeAll(old)
	return oldest, left
}

func closeAll(list []*conn) {
	for _, c := range list {
		c.close()
	}
}
