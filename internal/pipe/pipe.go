// Package pipe moves bytes from one socket to another without copying them to
// the process's memory: the kernel hands its pages on (splice(2)).
package pipe

import (
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gateway/internal/clock"
)

// Size is how many bytes a pipe has room for. More are no cheaper to move, and a
// reader who has stopped would hold them.
const Size = 256 << 10

const (
	// granted is how many pipes of this size Linux grants a user without
	// privileges (pipe-user-pages-soft).
	granted = 256
	// share is the part of the process's descriptors that pipes may take.
	share = 8
	// kept is how many of them may lie idle.
	kept = 32
	// rest is how long nothing is asked for after the kernel has refused a pipe.
	rest = time.Second
)

// Pipe is a pipe of the kernel. It belongs to one goroutine at a time.
type Pipe struct {
	in, out int
	held    int
}

// most is how many pipes there may be at once.
var most = sync.OnceValue(func() int {
	var descriptors unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &descriptors) != nil {
		return granted
	}
	return int(min(granted, descriptors.Cur/share/2))
})

var pool struct {
	sync.Mutex
	idle  []*Pipe
	open  int
	again int64 // clock.Coarse before which the kernel is not asked
}

// Acquire borrows an empty pipe. It is nil when there is none to be had: no
// descriptor is left, or too many pipes are in use already. Whoever gets none copies.
func Acquire() *Pipe {
	pool.Lock()
	defer pool.Unlock()
	if top := len(pool.idle) - 1; top >= 0 {
		p := pool.idle[top]
		pool.idle = pool.idle[:top]
		return p
	}
	if pool.open >= most() || clock.Coarse() < pool.again {
		return nil
	}
	p := open()
	if p == nil {
		pool.again = clock.Coarse() + int64(rest)
		return nil
	}
	pool.open++
	return p
}

// open makes a pipe of the right size, or nil.
func open() *Pipe {
	var ends [2]int
	if unix.Pipe2(ends[:], unix.O_NONBLOCK|unix.O_CLOEXEC) != nil {
		return nil
	}
	p := &Pipe{in: ends[1], out: ends[0]}
	if size, err := unix.FcntlInt(uintptr(p.in), unix.F_SETPIPE_SZ, Size); err != nil || size < Size {
		p.close()
		return nil
	}
	return p
}

func (p *Pipe) close() {
	_ = unix.Close(p.in)
	_ = unix.Close(p.out)
}

// Release gives the pipe back, and forgets what is in it.
func (p *Pipe) Release() {
	pool.Lock()
	defer pool.Unlock()
	if p.held == 0 && len(pool.idle) < kept {
		pool.idle = append(pool.idle, p)
		return
	}
	p.close()
	pool.open--
}

// Held is how many bytes the pipe holds.
func (p *Pipe) Held() int { return p.held }

// Fill moves up to n bytes from a socket that does not block into the pipe,
// which must be empty: EAGAIN when nothing is there, 0 at the end. Fewer than n
// do not mean that the socket is empty: small segments fill a pipe early.
func (p *Pipe) Fill(socket, n int) (int, syscall.Errno) {
	if p.held != 0 {
		panic("BUG: a pipe is filled before it is empty") // EAGAIN could mean either
	}
	n, errno := splice(socket, p.in, min(n, Size))
	p.held = n
	return n, errno
}

// Drain moves what there is room for from the pipe into a socket that does not
// block: EAGAIN when there is none.
func (p *Pipe) Drain(socket int) (int, syscall.Errno) {
	n, errno := splice(p.out, socket, p.held)
	p.held -= n
	return n, errno
}

// splice moves bytes without waiting, and so without telling the runtime. Go
// ignores the signal of a broken connection.
func splice(from, to, n int) (int, syscall.Errno) {
	moved, _, errno := syscall.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n), unix.SPLICE_F_NONBLOCK)
	if errno != 0 {
		return 0, errno
	}
	return int(moved), 0
}
