package poller

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gateway/internal/clock"
	"gateway/internal/nonblock"
	"gateway/internal/pipe"
)

// Conn is a stream socket that a set of this package watches. One goroutine may
// read while another writes; everything else is safe from any goroutine. Reads
// and writes that need not wait are one system call, which the runtime is not
// told of.
type Conn struct {
	set      *Set
	place    Place
	state    atomic.Uint32
	users    atomic.Int32 // of the descriptor: the owner, and who is in a call
	readable chan struct{}
	writable chan struct{}
	wide     bool // room for writing is reported; the writer's

	local, remote net.Addr

	mu      sync.Mutex // guards what follows, and readLate and writeLate of state
	readBy  int64      // deadlines, of clock.Mono; 0 for none
	writeBy int64
	timer   *time.Timer // comes at the earlier deadline, or before; nil until needed
	armed   int64       // when it comes; 0: it does not
	_       [64]byte    // what one processor's connections change is in no line of another's
}

// The bits of a connection's state: what it was told, and
const (
	stirred = uint32(Stirred) // since the last read that left nothing
	ended   = uint32(Ended)
	room    = uint32(Room)

	readWaits  uint32 = 16 << iota // somebody waits on readable
	writeWaits                     // somebody waits on writable
	readLate                       // the deadline has passed
	writeLate                      // likewise
	closed
)

var nextSet atomic.Uint32 // counts connections, to spread them over the sets

// New takes a descriptor over that does not block. After an error it is closed.
func New(fd int, local, remote net.Addr) (*Conn, error) {
	sets, err := Sets()
	if err == nil {
		c := &Conn{
			set: sets[nextSet.Add(1)%uint32(len(sets))], place: Place{FD: int32(fd)},
			readable: make(chan struct{}, 1), writable: make(chan struct{}, 1),
			local: local, remote: remote,
		}
		c.users.Store(1)
		if err = c.set.Add(c, &c.place); err == nil {
			return c, nil
		}
	}
	_ = unix.Close(fd)
	return nil, err
}

// Adopt takes a TCP or Unix stream connection over: c is closed, with its socket
// living on in the result. After an error both are closed. What has no descriptor
// stays as it is.
func Adopt(c net.Conn) (net.Conn, error) {
	socket, ok := c.(syscall.Conn)
	if !ok {
		return c, nil
	}
	defer c.Close()
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	// There is no way out of the runtime's poller but through a copy.
	fd, failed := -1, error(nil)
	if err := raw.Control(func(n uintptr) { fd, failed = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return nil, err
	}
	if failed != nil {
		return nil, os.NewSyscallError("fcntl", failed)
	}
	return New(fd, c.LocalAddr(), c.RemoteAddr())
}

// Tell is for the set.
func (c *Conn) Tell(e Events) { c.tell(uint32(e)) }

// tell adds to the state, which it returns as it was before, and wakes whoever
// waits for that.
func (c *Conn) tell(bits uint32) (before uint32) {
	for {
		s := c.state.Load()
		next := s | bits
		if bits&(stirred|readLate|closed) != 0 {
			next &^= readWaits
		}
		if bits&(room|writeLate|closed) != 0 {
			next &^= writeWaits
		}
		if !c.state.CompareAndSwap(s, next) {
			continue
		}
		if s&^next&readWaits != 0 {
			c.readable <- struct{}{} // has room: whoever waits is told once
		}
		if s&^next&writeWaits != 0 {
			c.writable <- struct{}{}
		}
		return s
	}
}

// Told is a time, of clock.Mono: if anything had come by then, Stirred says so.
func (c *Conn) Told() int64 { return c.set.Told() }

// Stirred reports whether something is known to have come, bytes or the end,
// that no read has got yet.
func (c *Conn) Stirred() bool { return c.state.Load()&(stirred|ended) != 0 }

// AwaitRead waits until there may be something to read.
func (c *Conn) AwaitRead() error { return c.await(stirred, readWaits, readLate, c.readable) }

// await waits for a bit of the state, unless the deadline has passed. waits says
// that tell is to send to woken.
func (c *Conn) await(bit, waits, late uint32, woken chan struct{}) error {
	for {
		s := c.state.Load()
		switch {
		case s&closed != 0:
			return net.ErrClosed
		case s&late != 0:
			return os.ErrDeadlineExceeded
		case s&bit != 0:
			return nil
		case c.state.CompareAndSwap(s, s|waits):
			<-woken
		}
	}
}

// Read reads what is there, at least one byte; io.EOF at the end.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if err := c.AwaitRead(); err != nil {
			return 0, err
		}
		if !c.enter() {
			return 0, net.ErrClosed
		}
		c.state.And(^stirred) // what comes after the read is reported
		n, errno := nonblock.Read(int(c.place.FD), p)
		if n == len(p) || errno == unix.EINTR || errno != unix.EAGAIN && c.state.Load()&ended != 0 {
			c.state.Or(stirred) // there may be more, or there is the end
		}
		c.leave()
		switch {
		case errno == unix.EINTR || errno == unix.EAGAIN:
		case errno != 0:
			return 0, os.NewSyscallError("read", errno)
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// ReadPipe is Read of up to n bytes into an empty pipe.
func (c *Conn) ReadPipe(p *pipe.Pipe, n int) (int, error) {
	for {
		if err := c.AwaitRead(); err != nil {
			return 0, err
		}
		if !c.enter() {
			return 0, net.ErrClosed
		}
		c.state.And(^stirred) // what comes afterwards is reported
		m, errno := p.Fill(int(c.place.FD), n)
		if errno != unix.EAGAIN {
			c.state.Or(stirred) // there may be more, however little it was
		}
		c.leave()
		switch {
		case errno == unix.EINTR || errno == unix.EAGAIN:
		case errno != 0:
			return 0, os.NewSyscallError("splice", errno)
		case m == 0:
			return 0, io.EOF
		default:
			return m, nil
		}
	}
}

// Write writes all of p, or says how much.
func (c *Conn) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = c.send(p[n:], nil, nil)
		n += m
	}
	return n, err
}

// WriteBuffers writes all of v, of at most three pieces, and takes from it what
// was written, of which it returns the bytes.
func (c *Conn) WriteBuffers(v *net.Buffers) (n int64, err error) {
	for len(*v) > 0 && err == nil {
		var m int
		m, err = c.send(nil, *v, nil)
		nonblock.Consume(v, m)
		n += int64(m)
	}
	return n, err
}

// WritePipe writes all that the pipe holds, or says how much.
func (c *Conn) WritePipe(p *pipe.Pipe) (n int, err error) {
	for p.Held() > 0 && err == nil {
		var m int
		m, err = c.send(nil, nil, p)
		n += m
	}
	return n, err
}

// send writes what there is room for, of p, v or through; if there is none, it
// waits for some.
func (c *Conn) send(p []byte, v net.Buffers, through *pipe.Pipe) (n int, err error) {
	switch s := c.state.Load(); {
	case s&closed != 0 || !c.enter():
		return 0, net.ErrClosed
	case s&writeLate != 0:
		c.leave()
		return 0, os.ErrDeadlineExceeded
	}
	var errno syscall.Errno
	switch {
	case through != nil:
		n, errno = through.Drain(int(c.place.FD))
	case v != nil:
		n, errno = nonblock.Writev(int(c.place.FD), v)
	default:
		n, errno = nonblock.Write(int(c.place.FD), p)
	}
	switch errno {
	case 0, unix.EINTR:
	case unix.EAGAIN:
		err = c.awaitRoom()
	default:
		err = os.NewSyscallError("write", errno)
	}
	c.leave()
	return n, err
}

// awaitRoom waits until there may be room to write.
func (c *Conn) awaitRoom() error {
	if !c.wide {
		if err := c.set.Widen(&c.place); err != nil {
			return err
		}
		c.wide = true
	}
	err := c.await(room, writeWaits, writeLate, c.writable)
	if err == nil {
		c.state.And(^room)
	}
	return err
}

// enter makes the descriptor stay for the caller until leave.
func (c *Conn) enter() bool {
	for {
		n := c.users.Load()
		if n == 0 {
			return false
		}
		if c.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (c *Conn) leave() {
	if c.users.Add(-1) == 0 {
		c.set.Close(&c.place)
	}
}

// Close ends the connection; whoever waits for it gets net.ErrClosed.
func (c *Conn) Close() error {
	if c.tell(closed)&closed != 0 {
		return net.ErrClosed
	}
	c.mu.Lock()
	if c.timer != nil {
		c.timer.Stop()
	}
	c.readBy, c.writeBy, c.armed = 0, 0, 0
	c.mu.Unlock()
	c.leave()
	return nil
}

// CloseWrite ends the sending direction.
func (c *Conn) CloseWrite() error { return c.shutdown(unix.SHUT_WR) }

// CloseRead ends the receiving direction.
func (c *Conn) CloseRead() error { return c.shutdown(unix.SHUT_RD) }

func (c *Conn) shutdown(how int) error {
	if !c.enter() {
		return net.ErrClosed
	}
	err := unix.Shutdown(int(c.place.FD), how)
	c.leave()
	return os.NewSyscallError("shutdown", err)
}

// SetLinger makes the close a reset, with 0.
func (c *Conn) SetLinger(seconds int) error {
	if !c.enter() {
		return net.ErrClosed
	}
	err := unix.SetsockoptLinger(int(c.place.FD), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: int32(seconds)})
	c.leave()
	return os.NewSyscallError("setsockopt", err)
}

// FD is the descriptor, which means something else once the connection is closed.
func (c *Conn) FD() int { return int(c.place.FD) }

func (c *Conn) LocalAddr() net.Addr  { return c.local }
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline sets both deadlines; the zero time is none. A deadline that has
// passed ends the waits of others too.
func (c *Conn) SetDeadline(t time.Time) error { return c.until(t, &c.readBy, &c.writeBy) }

// SetReadDeadline is SetDeadline for reads.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.until(t, &c.readBy) }

// SetWriteDeadline is SetDeadline for writes.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.until(t, &c.writeBy) }

// until sets deadlines. A timer that comes earlier stays, and moves itself when
// it comes: with deadlines that only ever move on, which is what one request
// after the other sets, the runtime's timers are rarely touched.
func (c *Conn) until(t time.Time, which ...*int64) error {
	limit := int64(0)
	if !t.IsZero() {
		limit = max(clock.At(t), 1)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.Load()&closed != 0 {
		return net.ErrClosed
	}
	bits := uint32(0)
	for _, by := range which {
		*by = limit
		if by == &c.readBy {
			bits |= readLate
		} else {
			bits |= writeLate
		}
	}
	switch {
	case limit != 0 && limit <= clock.Coarse():
		c.tell(bits)
		return nil
	case c.state.Load()&bits != 0:
		c.state.And(^bits)
	}
	if limit != 0 && (c.armed == 0 || limit < c.armed) {
		c.arm(limit, clock.Mono())
	}
	return nil
}

// arm has the timer come at a time. mu is held.
func (c *Conn) arm(at, now int64) {
	c.armed = at
	if in := time.Duration(at - now); c.timer == nil {
		c.timer = time.AfterFunc(in, c.late)
	} else {
		c.timer.Reset(in)
	}
}

// late is what the timer does.
func (c *Conn) late() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, next, bits := clock.Mono(), int64(0), uint32(0)
	for _, d := range [...]struct {
		by  int64
		bit uint32
	}{{c.readBy, readLate}, {c.writeBy, writeLate}} {
		switch {
		case d.by == 0:
		case d.by <= now:
			bits |= d.bit
		case next == 0 || d.by < next:
			next = d.by
		}
	}
	c.armed = 0
	if bits != 0 {
		c.tell(bits)
	}
	if next != 0 {
		c.arm(next, now)
	}
}

// Silent asks the kernel whether nothing lies in the socket, neither bytes nor
// its end: one system call that does not wait.
func (c *Conn) Silent() bool {
	if !c.enter() {
		return false
	}
	var spot [1]byte
	silent := nonblock.Silent(int(c.place.FD), &spot)
	c.leave()
	return silent
}
