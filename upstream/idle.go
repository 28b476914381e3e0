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
	most    int           // connections kept, in all stacks
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
	_     [96]byte // no line of the CPU's cache belongs to two stacks, nor a pair of lines
}

// minStack is the least room of a stack: an endpoint that keeps few connections
// has fewer stacks than there are processors.
const minStack = 32

func (l *idle) init(most int, timeout time.Duration) {
	l.most, l.timeout = most, timeout
	n := processor.Count
	for n > 1 && most/n < minStack {
		n /= 2
	}
	l.stacks = make([]stack, n)
}

// mine is the place of the processor's stack.
func (l *idle) mine() int { return processor.Current() & (len(l.stacks) - 1) }

// other is the i-th stack after that at from, itself being the first.
func (l *idle) other(from, i int) *stack { return &l.stacks[(from+i)&(len(l.stacks)-1)] }

// pop takes the connection used last of the first stack that has one, nil when
// there is none. With fresh, only one that has been idle for less than freshFor.
func (l *idle) pop(fresh bool) *conn {
	now, from, busy := clock.Mono(), l.mine(), false
	for i := range l.stacks {
		if s := l.other(from, i); !s.mu.TryLock() {
			busy = true
		} else if c := s.pop(l, now, fresh); c != nil {
			return c
		}
	}
	for i := range l.stacks {
		if !busy {
			break
		}
		s := l.other(from, i)
		s.mu.Lock()
		if c := s.pop(l, now, fresh); c != nil {
			return c
		}
	}
	return nil
}

// pop takes the connection on top. The stack is locked, and unlocked by this.
func (s *stack) pop(l *idle, now int64, fresh bool) *conn {
	top := len(s.conns) - 1
	if top < 0 {
		s.mu.Unlock()
		return nil
	}
	c := s.conns[top]
	age := time.Duration(now - c.since)
	if l.timeout > 0 && age >= l.timeout { // all others are older
		old := s.conns
		s.conns = nil
		s.mu.Unlock()
		closeAll(old)
		return nil
	}
	if fresh && age >= freshFor {
		s.mu.Unlock()
		return nil
	}
	s.conns[top] = nil
	s.conns = s.conns[:top]
	s.mu.Unlock()
	c.idled = age
	return c
}

// push keeps the connection if there is room.
func (l *idle) push(c *conn) bool {
	c.since = clock.Mono()
	if !l.place(c) {
		return false
	}
	if l.timeout > 0 && !l.swept.Load() {
		l.sweepAt(clock.Mono() + int64(l.timeout))
	}
	return true
}

// place finds a stack for it.
func (l *idle) place(c *conn) bool {
	from, room, busy := l.mine(), l.most/len(l.stacks), false
	for i := range l.stacks {
		if s := l.other(from, i); !s.mu.TryLock() {
			busy = true
		} else if s.push(l, c, room) {
			return true
		}
	}
	for i := range l.stacks {
		if !busy {
			break
		}
		s := l.other(from, i)
		s.mu.Lock()
		if s.push(l, c, room) {
			return true
		}
	}
	return false
}

// push puts the connection on top if there is room. The stack is locked, and
// unlocked by this.
func (s *stack) push(l *idle, c *conn, room int) bool {
	defer s.mu.Unlock()
	if l.retired.Load() || len(s.conns) >= room {
		return false
	}
	s.conns = append(s.conns, c)
	return true
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
