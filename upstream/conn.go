package upstream

import (
	"crypto/tls"
	"net"
	"time"

	"gateway/internal/poller"
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

	watched *poller.Conn // the socket; nil when it has no descriptor (tests)

	_ [64]byte // what one processor's connections change is in no line of another's
}

func newConn(e *Endpoint, socket net.Conn) *conn {
	c := &conn{Conn: socket, socket: socket, endpoint: e}
	c.watched, _ = socket.(*poller.Conn)
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

// await waits until the origin has something to say, with no memory for it.
func (c *conn) await() error {
	if c.watched == nil {
		return nil
	}
	return c.watched.AwaitRead()
}

// seen reports whether the connection has been looked at since it became idle, so
// that quiet costs nothing.
func (c *conn) seen() bool { return c.watched == nil || c.watched.Told() >= c.since }

// quiet reports whether nothing lies in the socket to be read, neither bytes nor
// its end: as of a moment since it became idle, or as of now if that is asked for
// or nothing else is known, with a system call.
func (c *conn) quiet(now bool) bool {
	switch {
	case c.watched == nil:
		return true
	case now || !c.seen() || c.watched.Stirred():
		return c.watched.Silent()
	}
	return true
}

// drained reports whether nothing of what was received is left between the
// socket and the reader: TLS reads ahead.
func (c *conn) drained() bool {
	return c.records == nil || c.records.drained(c.Conn)
}
