package loadgen

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// secure is TLS on an event loop. The handshake runs in a goroutine on an
// ordinary connection. After it reads go to the socket itself and report
// errWouldBlock, which crypto/tls takes as passing: it keeps the part of a
// record that it has and goes on at the next call. Writes never fail so: what
// the socket does not take is kept in the connection's out.
type secure struct {
	*tls.Conn
	socket *socket
}

// errWouldBlock says that nothing is there yet.
var errWouldBlock error = wouldBlock{}

type wouldBlock struct{}

func (wouldBlock) Error() string   { return "would block" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

// socket is what TLS runs on.
type socket struct {
	net.Conn       // while the handshake lasts, then nil
	conn     *conn // then
}

func (s *socket) Read(b []byte) (int, error) {
	if s.Conn != nil {
		return s.Conn.Read(b)
	}
	n, errno := Read(s.conn.fd, b)
	switch {
	case errno == syscall.EAGAIN:
		return 0, errWouldBlock
	case errno != 0:
		return 0, errno
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

func (s *socket) Write(b []byte) (int, error) {
	if s.Conn != nil {
		return s.Conn.Write(b)
	}
	n := 0
	if len(s.conn.out) == 0 {
		var errno syscall.Errno
		if n, errno = Send(s.conn.fd, b); errno != 0 && errno != syscall.EAGAIN {
			return 0, errno
		}
	}
	s.conn.out = append(s.conn.out, b[n:]...)
	return len(b), nil
}

func (s *socket) Close() error                     { return nil }
func (s *socket) SetDeadline(time.Time) error      { return nil }
func (s *socket) SetReadDeadline(time.Time) error  { return nil }
func (s *socket) SetWriteDeadline(time.Time) error { return nil }

// arrival is the end of a handshake.
type arrival struct {
	conn       *conn
	generation int32
	fd         int
	secure     *secure
	err        error
}

// shake connects, does the handshake and tells the loop.
func (c *conn) shake(generation int32) {
	l := c.loop
	a := arrival{conn: c, generation: generation, fd: -1}
	select {
	case l.run.handshakes <- struct{}{}:
		a.secure, a.fd, a.err = c.handshake()
		<-l.run.handshakes
	case <-l.run.over.Done():
		a.err = l.run.over.Err()
	}
	l.arrivals.Lock()
	l.arrivals.list = append(l.arrivals.list, a)
	l.arrivals.Unlock()
	l.poll.Wake()
}

func (c *conn) handshake() (*secure, int, error) {
	ctx, cancel := context.WithTimeout(c.loop.run.over, c.loop.plan.Timeout)
	defer cancel()
	var d net.Dialer
	plain, err := d.DialContext(ctx, "tcp", c.loop.run.addresses[c.lane.site.address].String())
	if err != nil {
		return nil, -1, err
	}
	defer plain.Close()
	s := &socket{Conn: plain, conn: c}
	config := c.loop.run.tls.Clone()
	if config.ServerName == "" {
		config.ServerName = c.lane.site.serverName
	}
	secured := &secure{tls.Client(s, config), s}
	if deadline, ok := ctx.Deadline(); ok {
		plain.SetDeadline(deadline)
	}
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, -1, err
	}
	raw, err := plain.(*net.TCPConn).SyscallConn()
	if err != nil {
		return nil, -1, err
	}
	fd := -1
	err = errors.Join(raw.Control(func(old uintptr) {
		fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
	}), err)
	if err != nil {
		return nil, -1, err
	}
	s.Conn = nil
	return secured, fd, nil
}

// arrived takes the connection over from the handshake.
func (c *conn) arrived(a arrival) {
	if c.generation != a.generation || c.state != connecting { // given up meanwhile
		if a.fd >= 0 {
			unix.Close(a.fd)
		}
		return
	}
	if a.err == nil {
		c.fd, c.secure = a.fd, a.secure
		a.err = c.loop.poll.Add(c.fd, c.slot, c.generation)
	}
	if a.err != nil {
		c.loop.run.note(a.err)
		c.lose(ConnectFailed)
		return
	}
	c.ready()
}
