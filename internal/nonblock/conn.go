package nonblock

import (
	"io"
	"net"
	"os"
	"syscall"
)

// Conn is a connection whose reads and writes do not tell the runtime either.
// They wait in its poller, with the connection's deadlines, whenever there is
// nothing to read or no room to write. Besides what the package says, this
// matters where little is to do: an ordinary call on a processor that had
// nothing to do wakes the runtime's monitor thread, which then costs several
// times as much as the call.
//
// One goroutine may read while another writes, no more. The rest is the
// embedded connection's.
type Conn struct {
	net.Conn
	raw     syscall.RawConn
	in, out transfer
}

// transfer is one direction: what the callback of a RawConn works on.
type transfer struct {
	step   func(fd uintptr) bool // bound once, so that no call allocates
	p      []byte
	pieces net.Buffers // instead of p
	n      int
	errno  syscall.Errno
}

// Wrap is a Conn around c, or c itself when that has no descriptor.
func Wrap(c net.Conn) net.Conn {
	s, ok := c.(syscall.Conn)
	if !ok {
		return c
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return c
	}
	w := &Conn{Conn: c, raw: raw}
	w.in.step, w.out.step = w.read, w.write
	return w
}

// Read reads what is there, at least one byte; io.EOF at the end.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	t := &c.in
	t.p, t.n, t.errno = p, 0, 0
	err := c.raw.Read(t.step)
	t.p = nil
	switch {
	case err != nil:
		return 0, err
	case t.errno != 0:
		return 0, os.NewSyscallError("read", t.errno)
	case t.n == 0:
		return 0, io.EOF
	}
	return t.n, nil
}

func (c *Conn) read(fd uintptr) bool {
	t := &c.in
	for {
		switch t.n, t.errno = Read(int(fd), t.p); t.errno {
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false
		default:
			return true
		}
	}
}

// Write writes all of p, or says how much.
func (c *Conn) Write(p []byte) (int, error) {
	c.out.p = p
	n, err := c.send()
	return int(n), err
}

// WriteBuffers writes all of v, of at most three pieces, and takes from it what
// was written, of which it returns the bytes.
func (c *Conn) WriteBuffers(v *net.Buffers) (int64, error) {
	c.out.pieces = *v
	n, err := c.send()
	*v = c.out.pieces
	c.out.pieces = nil
	return n, err
}

func (c *Conn) send() (int64, error) {
	t := &c.out
	t.n, t.errno = 0, 0
	err := c.raw.Write(t.step)
	t.p = nil
	if err == nil && t.errno != 0 {
		err = os.NewSyscallError("write", t.errno)
	}
	return int64(t.n), err
}

func (c *Conn) write(fd uintptr) bool {
	t := &c.out
	for len(t.p)+len(t.pieces) > 0 {
		var n int
		var errno syscall.Errno
		if t.pieces != nil {
			n, errno = Writev(int(fd), t.pieces)
		} else {
			n, errno = Write(int(fd), t.p)
		}
		switch errno {
		case 0:
			t.n += n
			if t.pieces != nil {
				Consume(&t.pieces, n)
			} else {
				t.p = t.p[n:]
			}
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false
		default:
			t.errno = errno
			return true
		}
	}
	return true
}

// Consume takes the first n bytes from v, and empty pieces behind them.
func Consume(v *net.Buffers, n int) {
	for len(*v) > 0 {
		if m := len((*v)[0]); m > n {
			(*v)[0] = (*v)[0][n:]
			return
		} else {
			n -= m
			*v = (*v)[1:]
		}
	}
}

// CloseWrite ends the sending direction.
func (c *Conn) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return syscall.EOPNOTSUPP
}

// SyscallConn gives access to the descriptor.
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return c.raw, nil }
