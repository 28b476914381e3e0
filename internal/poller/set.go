// Package poller watches the sockets of clients and origins in epoll sets of its
// own. The runtime's poller tells nobody but who waits; here also those are told
// of what comes that nobody waits for: clients that sleep between two requests,
// and connections to origins that are kept idle. Conn is for who does wait.
package poller

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"gateway/internal/clock"
)

// Watched is a socket in a set.
type Watched interface {
	// Tell says what has come since it was told last: once, not for as long as
	// it is there. It is called by the set's goroutine, with its lock held, and
	// does not wait.
	Tell(Events)
}

// Events are what can come to a socket.
type Events uint32

const (
	Stirred Events = 1 << iota // bytes, or the end
	Ended                      // the other end has closed, or half of it, or reset
	Room                       // to write again, after Widen
)

// Place is a socket's in a set. It belongs to what is watched, and stays where
// it is for as long as that is in the set.
type Place struct {
	FD   int32
	slot int32
	turn int32 // tells this socket from earlier ones in the same slot
}

// Set is an epoll set. It is watched by the runtime's poller, so that no thread
// blocks for it. A socket enters it once, edge-triggered.
type Set struct {
	fd     int
	file   *os.File // the same, as the runtime's poller knows it
	wait   syscall.RawConn
	told   atomic.Int64 // clock.Mono: whatever had come by then has been told
	events [128]unix.EpollEvent

	mu    sync.Mutex // guards what follows, and what is in the set
	slots []slot
	free  []int32 // slots without a socket
	turn  int32   // counts the sockets that have entered
}

type slot struct {
	watched Watched
	place   *Place
}

var sets struct {
	sync.Mutex
	all []*Set
}

// Sets are the sets of the process, made with the first call: finding out who
// has something to say is a fraction of the work that follows. The error is the
// kernel's, which has refused one.
func Sets() ([]*Set, error) {
	sets.Lock()
	defer sets.Unlock()
	for len(sets.all) < min((runtime.GOMAXPROCS(0)+3)/4, 16) {
		s, err := newSet()
		if err != nil {
			return nil, fmt.Errorf("poll the connections: %w", err)
		}
		sets.all = append(sets.all, s)
		go s.run()
	}
	return sets.all[:len(sets.all):len(sets.all)], nil
}

func newSet() (*Set, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // for os.NewFile
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	s := &Set{fd: fd, file: os.NewFile(uintptr(fd), "epoll")}
	if s.wait, err = s.file.SyscallConn(); err == nil {
		// Only what the runtime's poller watches has deadlines.
		if err = s.file.SetReadDeadline(time.Time{}); err == nil {
			return s, nil
		}
	}
	_ = s.file.Close()
	return nil, err
}

// run is the set's goroutine. All of it happens in one callback: its first look
// forgets what the runtime's poller has reported, and from then on each time
// that it returns false it waits for the next report.
func (s *Set) run() {
	_ = s.wait.Read(func(uintptr) bool {
		for {
			began := clock.Mono()
			n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(s.fd), uintptr(unsafe.Pointer(&s.events)), uintptr(len(s.events)), 0, 0, 0)
			if errno == unix.EINTR {
				continue
			}
			if errno != 0 {
				return false // never seen: not to be asked again without an end
			}
			s.tell(s.events[:n])
			if int(n) < len(s.events) {
				s.told.Store(began)
				return false // the set is empty: what comes now is reported
			}
		}
	})
}

// tell passes events on.
func (s *Set) tell(events []unix.EpollEvent) {
	s.mu.Lock()
	for i := range events {
		e := &events[i]
		// The slot may have been given away since the set was asked.
		if at := &s.slots[e.Fd]; at.watched != nil && at.place.turn == e.Pad {
			at.watched.Tell(eventsOf(e.Events))
		}
	}
	s.mu.Unlock()
}

func eventsOf(bits uint32) (e Events) {
	if bits&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		e |= Stirred
	}
	if bits&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		e |= Ended
	}
	if bits&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		e |= Room
	}
	return e
}

// reading is what all sockets are watched for.
const reading = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET

// Add puts a socket into the set, whose descriptor is in its place. What lies in
// it already is told too.
func (s *Set) Add(w Watched, p *Place) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.free); n > 0 {
		p.slot, s.free = s.free[n-1], s.free[:n-1]
		s.slots[p.slot] = slot{w, p}
	} else {
		p.slot = int32(len(s.slots))
		s.slots = append(s.slots, slot{w, p})
	}
	s.turn++
	p.turn = s.turn
	if err := s.control(p, unix.EPOLL_CTL_ADD, reading); err != nil {
		s.leave(p)
		return err
	}
	return nil
}

// Widen has the set tell of room to write too. If there is some, it does so now.
func (s *Set) Widen(p *Place) error { return s.control(p, unix.EPOLL_CTL_MOD, reading|unix.EPOLLOUT) }

func (s *Set) control(p *Place, op int, bits uint32) error {
	event := unix.EpollEvent{Events: bits, Fd: p.slot, Pad: p.turn}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(s.fd, op, int(p.FD), &event))
}

// leave frees the slot of a socket. mu is held.
func (s *Set) leave(p *Place) {
	s.slots[p.slot] = slot{}
	s.free = append(s.free, p.slot)
}

// Remove takes a socket out of the set, which tells nothing of it any more.
func (s *Set) Remove(p *Place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = unix.EpollCtl(s.fd, unix.EPOLL_CTL_DEL, int(p.FD), nil)
	s.leave(p)
}

// Close is Remove for a socket that is closed. Nobody else may have a copy of
// its descriptor.
func (s *Set) Close(p *Place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = unix.Close(int(p.FD)) // takes it out of the set too
	s.leave(p)
}

// Each calls f with each socket in the set. It may not wait, nor change the set.
func (s *Set) Each(f func(Watched)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.slots {
		if w := s.slots[i].watched; w != nil {
			f(w)
		}
	}
}

// Told is a time, of clock.Mono: whatever had come by then has been told.
func (s *Set) Told() int64 { return s.told.Load() }
