package loadgen

import (
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Poller waits for sockets of one thread: edge-triggered epoll with waits of
// nanoseconds. It is not safe for concurrent use, but for Wake.
type Poller struct {
	epoll  int
	wakeup int // eventfd
	coarse bool
	events [256]unix.EpollEvent
}

// Event says what happened to the descriptor added under Key and Generation.
type Event struct {
	Key, Generation int32
	Readable        bool // or ended, or failed: a read tells
	Writable        bool
	HungUp          bool // the peer will send nothing more
}

// wakeupKey is the key of the poller's own eventfd.
const wakeupKey = -1

// NewPoller opens a poller; Close it.
func NewPoller() (*Poller, error) {
	p := &Poller{}
	var err error
	if p.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, err
	}
	if p.wakeup, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err == nil {
		err = p.Add(p.wakeup, wakeupKey, 0)
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Close gives the descriptors back.
func (p *Poller) Close() {
	unix.Close(p.epoll)
	if p.wakeup > 0 {
		unix.Close(p.wakeup)
	}
}

// Add watches a descriptor for input, room for output and hang-up, until it is
// closed. Events tell of changes only: read and write until EAGAIN, or a part.
func (p *Poller) Add(fd int, key, generation int32) error {
	return unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{
		Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET,
		Fd:     key, Pad: generation,
	})
}

// Wake ends a Wait of another goroutine.
func (p *Poller) Wake() { unix.Write(p.wakeup, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

// Event is the i-th of those that the last Wait has found.
func (p *Poller) Event(i int) Event {
	e := &p.events[i]
	return Event{
		Key: e.Fd, Generation: e.Pad,
		Readable: e.Events&(unix.EPOLLIN|unix.EPOLLERR|unix.EPOLLHUP|unix.EPOLLRDHUP) != 0,
		Writable: e.Events&unix.EPOLLOUT != 0,
		HungUp:   e.Events&(unix.EPOLLERR|unix.EPOLLHUP|unix.EPOLLRDHUP) != 0,
	}
}

// Wait waits for events, at most so long, and returns their number.
func (p *Poller) Wait(longest time.Duration) int {
	n := p.wait(max(longest, 0))
	for i := range n {
		if p.events[i].Fd == wakeupKey {
			var drain [8]byte
			unix.Read(p.wakeup, drain[:])
			n--
			p.events[i] = p.events[n]
			break
		}
	}
	return n
}

func (p *Poller) wait(longest time.Duration) int {
	if !p.coarse {
		ts := unix.NsecToTimespec(int64(longest))
		var n uintptr
		var errno syscall.Errno
		if longest == 0 { // returns at once: no need to tell the scheduler
			n, _, errno = unix.RawSyscall6(unix.SYS_EPOLL_PWAIT2, uintptr(p.epoll), uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), uintptr(unsafe.Pointer(&ts)), 0, 0)
		} else {
			n, _, errno = unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(p.epoll), uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), uintptr(unsafe.Pointer(&ts)), 0, 0)
		}
		if errno == 0 {
			return int(n)
		}
		if errno == unix.EINTR {
			return 0
		}
		p.coarse = true // before Linux 5.11
	}
	n, _ := unix.EpollWait(p.epoll, p.events[:], int((longest+time.Millisecond-1)/time.Millisecond))
	return max(n, 0)
}

// PunctualThread keeps the calling goroutine on a thread of its own, whose
// timers are exact to a microsecond instead of the usual 50.
func PunctualThread() {
	runtime.LockOSThread()
	unix.Prctl(unix.PR_SET_TIMERSLACK, 1000, 0, 0, 0)
}

// Read reads from a socket that does not block.
func Read(fd int, b []byte) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// Send writes to a socket that does not block.
func Send(fd int, b []byte) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// RaiseDescriptorLimit makes room for so many open files, as far as the limits
// of the process allow.
func RaiseDescriptorLimit(n uint64) {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil || limit.Cur >= n {
		return
	}
	if unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: max(n, limit.Max)}) != nil {
		unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit.Max, Max: limit.Max})
	}
}
