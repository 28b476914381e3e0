package listener

import (
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"gateway/internal/clock"
)

// loop watches connections that wait for a request, in an epoll set of its own:
// such a connection holds no goroutine and no buffer. The set itself is watched
// by the runtime's poller, so that no thread blocks for it. A loop only finds
// out who has something to say; workers do the rest.
//
// A connection enters the set once, edge-triggered, and leaves it when it is
// closed or becomes an ordinary one (Conn.promote). What happens to it while a
// worker has it is remembered in its state.
type loop struct {
	front *Front
	set   int      // descriptor of the epoll set
	file  *os.File // the same, as the runtime's poller knows it
	wait  syscall.RawConn

	events [128]unix.EpollEvent
	woken  [128]*sleeper

	mu     sync.Mutex // guards what follows, and that the set and what is in it are open
	slots  []*sleeper // the set knows a connection by its place here
	free   []int32    // places that are nil
	turn   int32      // counts the connections that have entered
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
	fd     int32
	slot   int32
	turn   int32 // tells this connection from earlier ones in the same place
	used   bool  // a request has come; of whoever is awake with it
	counts bool  // under max_connections_per_ip
}

// The bits of a sleeper's state. Whoever sets awake owns the connection.
const (
	awake  uint32 = 1 << iota // somebody has the connection
	called                    // bytes have come since it was woken
	hungup                    // the client has closed, or half of it: read to the end
	gone                      // nobody's any more
)

func newLoop(f *Front) (*loop, error) {
	set, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(set, true); err != nil { // for os.NewFile
		_ = unix.Close(set)
		return nil, os.NewSyscallError("fcntl", err)
	}
	l := &loop{front: f, set: set, file: os.NewFile(uintptr(set), "epoll")}
	if l.wait, err = l.file.SyscallConn(); err == nil {
		// Only what the runtime's poller watches has deadlines.
		if err = l.file.SetReadDeadline(time.Time{}); err == nil {
			return l, nil
		}
	}
	_ = l.file.Close()
	return nil, fmt.Errorf("poll the connections: %w", err)
}

// run is the loop's goroutine. All of it happens in one callback: its first
// look forgets what the poller has reported, and from then on each time that it
// returns false it waits for the next report.
func (l *loop) run() {
	_ = l.wait.Read(func(uintptr) bool {
		for {
			n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.set), uintptr(unsafe.Pointer(&l.events)), uintptr(len(l.events)), 0, 0, 0)
			if errno == unix.EINTR {
				continue
			}
			if errno != 0 || n == 0 {
				return false
			}
			l.wake(l.events[:n])
			if int(n) < len(l.events) {
				return false // the set is empty: what comes now is reported
			}
		}
	})
}

// wake gives connections that have something to say to workers.
func (l *loop) wake(events []unix.EpollEvent) {
	woken := l.woken[:0]
	l.mu.Lock()
	for i := range events {
		// The place may have been given away since the set was asked.
		s := l.slots[events[i].Fd]
		if s == nil || s.turn != events[i].Pad {
			continue
		}
		if s.call(events[i].Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0) {
			woken = append(woken, s)
		}
	}
	l.mu.Unlock()
	l.front.workers.dispatch(woken...)
	clear(woken)
}

// add puts a connection into the set, asleep.
func (l *loop) add(s *sleeper) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return os.ErrClosed
	}
	if n := len(l.free); n > 0 {
		s.slot, l.free = l.free[n-1], l.free[:n-1]
		l.slots[s.slot] = s
	} else {
		s.slot = int32(len(l.slots))
		l.slots = append(l.slots, s)
	}
	l.turn++
	s.loop, s.turn = l, l.turn
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET, Fd: s.slot, Pad: s.turn}
	if err := unix.EpollCtl(l.set, unix.EPOLL_CTL_ADD, int(s.fd), &event); err != nil {
		l.leave(s)
		return os.NewSyscallError("epoll_ctl", err)
	}
	return nil
}

// leave frees the place of a connection. mu is held.
func (l *loop) leave(s *sleeper) {
	s.state.Or(gone)
	l.slots[s.slot] = nil
	l.free = append(l.free, s.slot)
}

// remove takes a connection out of the set. Its owner calls it, once.
func (l *loop) remove(s *sleeper) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		_ = unix.EpollCtl(l.set, unix.EPOLL_CTL_DEL, int(s.fd), nil)
	}
	l.leave(s)
}

// shut closes a connection. Its owner calls it, once; no lock may be held.
func (l *loop) shut(s *sleeper) {
	l.mu.Lock()
	_ = unix.Close(int(s.fd)) // takes it out of the set too
	l.leave(s)
	l.mu.Unlock()
}

// expired takes the connections that have slept since before the given times:
// unused for those that no request has come from yet, used for the others. They
// are the caller's then.
func (l *loop) expired(unused, used int64, list []*sleeper) []*sleeper {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.slots {
		if s == nil {
			continue
		}
		if since := s.since.Load(); since > unused && since > used || !s.state.CompareAndSwap(0, awake) {
			continue
		}
		limit := used
		if !s.used {
			limit = unused
		}
		if s.since.Load() <= limit {
			list = append(list, s)
		} else if !s.state.CompareAndSwap(awake, 0) {
			l.front.workers.dispatch(s) // it was called meanwhile
		}
	}
	return list
}

// retire ends the connections that have slept since before the given times.
// One that has something to say is served instead.
func (l *loop) retire(unused, used int64) {
	for _, s := range l.expired(unused, used, nil) {
		if peek(int(s.fd)) {
			l.front.workers.dispatch(s)
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
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.slots {
		if s != nil {
			_ = unix.Shutdown(int(s.fd), unix.SHUT_RDWR)
		}
	}
}

// close ends the loop. What is left in it is leaked: there must be nothing.
func (l *loop) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	_ = l.file.Close()
}

// end closes the connection and counts it out. Its owner calls it, once.
func (s *sleeper) end() {
	s.loop.shut(s)
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
