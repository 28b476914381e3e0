package listener

import (
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"gateway/internal/clock"
	"gateway/internal/nonblock"
	"gateway/internal/pipe"
	"gateway/internal/poller"
)

// direct is the socket of a connection that a loop watches, as the writer of
// answers sees it: it writes straight to the descriptor. Whoever has to wait for
// the client makes the connection an ordinary one first.
type direct struct{ c *Conn }

// Write writes all of p.
func (d direct) Write(p []byte) (n int, err error) {
	for n < len(p) {
		m, errno := nonblock.Write(d.c.fd, p[n:])
		switch errno {
		case 0:
			n += m
		case unix.EINTR:
		case unix.EAGAIN:
			if err := d.c.promote(); err != nil {
				return n, err
			}
			d.c.steady.began = n > 0
			m, err := d.c.steady.Write(p[n:])
			return n + m, err
		default:
			return n, os.NewSyscallError("write", errno)
		}
	}
	return n, nil
}

// writev writes all of v, of at most three pieces, and uses it up.
func (d direct) writev(v *net.Buffers) error {
	began := false
	for len(*v) > 0 {
		n, errno := nonblock.Writev(d.c.fd, *v)
		switch errno {
		case 0:
			began = true
			nonblock.Consume(v, n)
		case unix.EINTR:
		case unix.EAGAIN:
			if err := d.c.promote(); err != nil {
				return err
			}
			d.c.steady.began = began
			return d.c.steady.writev(v)
		default:
			return os.NewSyscallError("sendmsg", errno)
		}
	}
	return nil
}

// writePipe writes all that the pipe holds.
func (d direct) writePipe(p *pipe.Pipe) error {
	began := false
	for p.Held() > 0 {
		switch _, errno := p.Drain(d.c.fd); errno {
		case 0:
			began = true
		case unix.EINTR:
		case unix.EAGAIN:
			if err := d.c.promote(); err != nil {
				return err
			}
			d.c.steady.began = began
			return d.c.steady.writePipe(p)
		default:
			return os.NewSyscallError("splice", errno)
		}
	}
	return nil
}

// Read waits for the client.
func (d direct) Read(p []byte) (int, error) {
	if err := d.c.promote(); err != nil {
		return 0, err
	}
	return d.c.steady.Read(p)
}

// Close leaves the descriptor to the connection's owner, who closes it as soon
// as the exchange is over: nobody else can take its number meanwhile.
func (d direct) Close() error { return nil }

// SetLinger makes the close a reset, with 0.
func (d direct) SetLinger(seconds int) error {
	return unix.SetsockoptLinger(d.c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: int32(seconds)})
}

func (d direct) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(d.c.local) }
func (d direct) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(d.c.peer) }

// There is no wait that a deadline could end.

func (d direct) SetDeadline(time.Time) error      { return nil }
func (d direct) SetReadDeadline(time.Time) error  { return nil }
func (d direct) SetWriteDeadline(time.Time) error { return nil }

// rouse makes the connection the one that a loop has woken.
func (c *Conn) rouse(s *sleeper) {
	c.sleeper, c.socket, c.fd = s, s.socket, s.fd()
	c.peer, c.local = s.peer, s.local
	c.raw, c.steady.Conn, c.steady.direct = direct{c}, direct{c}, true
	c.last, c.linger, c.answer.failed = false, false, false
	c.body.broken.Store(false)
}

// promote makes a connection that a loop watches an ordinary one, which waits
// for its client. After an error the connection is dead.
func (c *Conn) promote() error {
	s := c.sleeper
	if s == nil {
		return nil
	}
	s.loop.remove(s)
	raw, err := poller.New(s.fd(), net.TCPAddrFromAddrPort(c.local), net.TCPAddrFromAddrPort(c.peer))
	c.sleeper, c.key = nil, s.key()
	c.steady.direct, c.steady.armed, c.armed = false, 0, 0
	if c.raw = raw; err != nil {
		c.front.log.Warn("cannot wait for a client", "listener", s.socket.address.String(), "error", err)
		dead, other := net.Pipe()
		_, _ = dead.Close(), other.Close()
		c.raw = dead
		// The sweeper must neither ask about the old descriptor, whose number may
		// soon be another's, nor believe an answer that it is about to get.
		c.flight.shard.mu.Lock()
		c.fd = -1
		c.flight.number++
		c.flight.shard.mu.Unlock()
	}
	c.steady.Conn = c.raw
	c.since, c.requests = clock.Coarse(), 0
	if s.used {
		c.requests = 1
	}
	c.front.census.adopt(c)
	return err
}

// descriptor is that of a socket, -1 when it has none.
func descriptor(raw net.Conn) int {
	if p, ok := raw.(*poller.Conn); ok {
		return p.FD()
	}
	return -1
}
