package listener

import (
	"crypto/tls"
	"net"
	"time"

	"gateway/exchange"
)

// Tunnel implements exchange.Client.
func (c *Conn) Tunnel(t exchange.Tunnel) {
	c.tunnel = t
	c.last = true // of the requests
}

// tunnelConn is the connection as a tunnel sees it: what the client sent early
// comes first, then the stream; deadlines are the tunnel's own.
type tunnelConn struct{ c *Conn }

func (t *tunnelConn) Read(p []byte) (int, error) {
	if c := t.c; len(c.rest) > 0 {
		n := copy(p, c.rest)
		c.keepRest(c.rest[n:])
		return n, nil
	}
	return t.c.stream.Read(p)
}

func (t *tunnelConn) Write(p []byte) (int, error) { return t.c.stream.Write(p) }

// CloseWrite tells the client that nothing more will come.
func (t *tunnelConn) CloseWrite() error {
	if s, ok := t.c.stream.(*tls.Conn); ok {
		return s.CloseWrite()
	}
	if s, ok := t.c.raw.(interface{ CloseWrite() error }); ok {
		return s.CloseWrite()
	}
	return nil
}

// Close ends both directions at once; a Read or Write that blocks returns.
func (t *tunnelConn) Close() error { return t.c.raw.Close() }

func (t *tunnelConn) LocalAddr() net.Addr                { return t.c.raw.LocalAddr() }
func (t *tunnelConn) RemoteAddr() net.Addr               { return t.c.raw.RemoteAddr() }
func (t *tunnelConn) SetDeadline(d time.Time) error      { return t.c.raw.SetDeadline(d) }
func (t *tunnelConn) SetReadDeadline(d time.Time) error  { return t.c.raw.SetReadDeadline(d) }
func (t *tunnelConn) SetWriteDeadline(d time.Time) error { return t.c.raw.SetWriteDeadline(d) }
