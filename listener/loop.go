package listener

import (
	"net/netip"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"gateway/internal/clock"
	"gateway/internal/poller"
)

// loop is a front's part of a set, in which connections wait for a request: such
// a connection holds no goroutine and no buffer. A loop only finds out who has
// something to say; its workers do the rest.
//
// A connection enters the set once, and leaves it when it is closed or becomes an
// ordinary one (Conn.promote). What happens to it while a worker has it is
// remembered in its state.
type loop struct {
	front   *Front
	set     *poller.Set
	workers workers

	mu     sync.Mutex
	closed bool
}

// sleeper is a connection as the loop knows it, and all that there is of one
// that waits for a request.
type sleeper struct {
	socket *Socket
	loop   *loop
	peer   netip.AddrPort
	local  netip.AddrPort
	since  atomic.Int64 // when it fell asleep, or began
	state  atomic.Uint32
	place  poller.Place
	used   bool // a request has come; of whoever is awake with it
	counts bool // under max_connections_per_ip
}

// The bits of a sleeper's state. Whoever sets awake owns the connection.
const (
	awake  uint32 = 1 << iota // somebody has the connection
	called                    // bytes have come since it was woken
	hungup                    // the client has closed, or half of it: read to the end
	gone                      // nobody's any more
)

// fd is the connection's descriptor.
func (s *sleeper) fd() int { return int(s.place.FD) }

// Tell gives a connection that has something to say to a worker.
func (s *sleeper) Tell(e poller.Events) {
	if s.call(e&poller.Ended != 0) {
		s.loop.workers.dispatch(s)
	}
}

// add puts a connection into the set, asleep.
func (l *loop) add(s *sleeper) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return os.ErrClosed
	}
	s.loop = l
	return l.set.Add(s, &s.place)
}

// remove takes a connection out of the set. Its owner calls it, once.
func (l *loop) remove(s *sleeper) {
	s.state.Or(gone)
	l.set.Remove(&s.place)
}

// each calls f with each connection of the loop. It may not wait.
func (l *loop) each(f func(*sleeper)) {
	l.set.Each(func(w poller.Watched) {
		if s, ok := w.(*sleeper); ok && s.loop == l {
			f(s)
		}
	})
}

// expired takes the connections that have slept since before the given times:
// unused for those that no request has come from yet, used for the others. They
// are the caller's then.
func (l *loop) expired(unused, used int64, list []*sleeper) []*sleeper {
	l.each(func(s *sleeper) {
		if since := s.since.Load(); since > unused && since > used || !s.state.CompareAndSwap(0, awake) {
			return
		}
		limit := used
		if !s.used {
			limit = unused
		}
		if s.since.Load() <= limit {
			list = append(list, s)
		} else if !s.state.CompareAndSwap(awake, 0) {
			l.workers.dispatch(s) // it was called meanwhile
		}
	})
	return list
}

// retire ends the connections that have slept since before the given times.
// One that has something to say is served instead.
func (l *loop) retire(unused, used int64) {
	for _, s := range l.expired(unused, used, nil) {
		if peek(s.fd()) {
			l.workers.dispatch(s)
		} else {
			s.end()
		}
	}
}

// cut ends all connections: those asleep at once, the others as soon as whoever
// has them notices.
func (l *loop) cut() {
	for _, s := range l.expired(1<<62, 1<<62, nil) {
		s.end()
	}
	l.each(func(s *sleeper) { _ = unix.Shutdown(s.fd(), unix.SHUT_RDWR) })
}

// close ends the loop: no connection enters it any more.
func (l *loop) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
}

// end closes the connection and counts it out. Its owner calls it, once.
func (s *sleeper) end() {
	s.state.Or(gone)
	s.loop.set.Close(&s.place)
	s.socket.active.Add(-1)
	s.socket.front.census.leave(s.key())
}

// key is what max_connections_per_ip counts the connection under.
func (s *sleeper) key() clientKey {
	if !s.counts {
		return clientKey{}
	}
	return keyOf(s.peer.Addr())
}

// call tells the connection that bytes have come, or their end. It reports true
// when nobody has the connection: the caller has it then.
func (s *sleeper) call(end bool) bool {
	bits := uint32(0)
	if end {
		bits = hungup
	}
	// The bytes that it is woken for are read by whoever has it then: they are
	// no reason to read once more.
	if s.state.CompareAndSwap(0, awake|bits) {
		return true
	}
	return s.state.Or(awake|called|bits)&(awake|gone) == 0
}

// sleep gives the connection up until bytes come. It reports false when some
// have come since it was woken: then it is still the caller's, who reads them.
func (s *sleeper) sleep() bool {
	s.since.Store(clock.Coarse())
	if s.state.CompareAndSwap(awake, 0) {
		return true
	}
	s.state.And(^called)
	return false
}
