package upstream

import (
	"crypto/tls"
	"net"
	"syscall"
	"time"

	"gateway/internal/nonblock"
)

// conn is a connection to an origin. It belongs to one call at a time, or to
// the idle stack of its endpoint; while idle it holds no buffer.
type conn struct {
	net.Conn             // what is read and written: the socket, or TLS over it
	socket   net.Conn    // the socket
	records  *recordConn // between TLS and the socket; nil without TLS
	endpoint *Endpoint
	since    int64         // clock.Mono when it became idle
	idled    time.Duration // how long it was idle before it was taken last
	limit    time.Time     // deadline of both directions, if none has been set since; zero when unknown

	raw     syscall.RawConn  // the socket's descriptor; nil when it has none (tests)
	look    func(fd uintptr) // method value of peek, bound once so that a look allocates nothing
	silence bool             // result of peek
	spot    [1]byte          // memory for peek

	_ [64]byte // what one processor's connections change is in no line of another's
}

func newConn(e *Endpoint, socket net.Conn) *conn {
	socket = nonblock.Wrap(socket)
	c := &conn{Conn: socket, socket: socket, endpoint: e}
	c.look = c.peek
	if s, ok := socket.(syscall.Conn); ok {
		c.raw, _ = s.SyscallConn()
	}
	e.open.Add(1)
	return c
}

// secure puts TLS over the socket; the handshake is still to be done.
func (c *conn) secure(config *tls.Config) *tls.Conn {
	c.records = &recordConn{Conn: c.socket}
	t := tls.Client(c.records, config)
	c.Conn = t
	return t
}

// close ends an idle connection; with TLS it says so to the origin.
func (c *conn) close() {
	c.Conn.Close()
	c.endpoint.open.Add(-1)
}

// abort ends a connection in the middle of something, without another word:
// close_notify could wait for an origin that does not read.
func (c *conn) abort() {
	c.socket.Close()
	c.endpoint.open.Add(-1)
}

// closeWrite ends the sending direction in the middle of a request body, so
// that the origin sees that the body is not complete.
func (c *conn) closeWrite() {
	if w, ok := c.socket.(interface{ CloseWrite() error }); ok {
		_ = w.CloseWrite()
	}
}

// write sends p. touched reports whether a byte may have left.
func (c *conn) write(p []byte) (n int, touched bool, err error) {
	if c.records == nil {
		n, err = c.Conn.Write(p)
		return n, n > 0, err
	}
	c.records.wrote.Store(false)
	n, err = c.Conn.Write(p)
	return n, c.records.wrote.Load(), err
}

// direct reports whether the socket's descriptor is all that there is.
func (c *conn) direct() bool { return c.records == nil && c.raw != nil }

// suits reports whether the deadline that an earlier use has left can stay: it
// is not later than the right one, and so far away that most calls will not
// meet it. Setting one takes a tenth of a microsecond or two, in timers that
// all processors share; with this it is rare.
func (c *conn) suits(deadline, now time.Time) bool {
	return c.direct() && !c.limit.IsZero() && !deadline.IsZero() &&
		!c.limit.After(deadline) && 2*c.limit.Sub(now) > deadline.Sub(now)
}

// quiet reports whether nothing lies in the socket to be read, neither bytes
// nor its end: one system call that does not wait, about 0.4 µs.
func (c *conn) quiet() bool {
	if c.raw == nil {
		return true
	}
	c.silence = false
	// Control, not Read: deadlines left over from the last use don't matter.
	return c.raw.Control(c.look) == nil && c.silence
}

func (c *conn) peek(fd uintptr) { c.silence = nonblock.Silent(int(fd), &c.spot) }

// drained reports whether nothing of what was received is left between the
// socket and the reader: TLS reads ahead.
func (c *conn) drained() bool {
	return c.records == nil || c.records.drained(c.Conn)
}
