package upstream

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
)

// recordConn lies between a TLS connection and its socket. It knows what
// crypto/tls does not tell: whether the bytes handed over so far end with a
// record, whether they have all been used, and whether the connection was cut
// without close_notify (crypto/tls reports such an end between two records as
// a regular one, and a body that ends with the connection could be truncated
// by anybody on the way).
type recordConn struct {
	net.Conn
	dry    bool        // reads find nothing
	wrote  atomic.Bool // a byte went out since the writer cleared it (a reader may write too: alerts, key updates)
	left   int         // bytes of the current record's payload still to come
	have   int         // bytes of the current record's header that are in header
	header [5]byte     // type, version, length (RFC 8446 section 5.1)
}

// errCut is the end of a TLS connection without close_notify.
var errCut = errors.New("connection closed without close_notify")

func (r *recordConn) Read(p []byte) (int, error) {
	if r.dry {
		return 0, errDry
	}
	n, err := r.Conn.Read(p)
	r.track(p[:n])
	if err == io.EOF {
		err = errCut
	}
	return n, err
}

func (r *recordConn) Write(p []byte) (int, error) {
	n, err := r.Conn.Write(p)
	if n > 0 {
		r.wrote.Store(true)
	}
	return n, err
}

// track follows the records through p.
func (r *recordConn) track(p []byte) {
	for len(p) > 0 {
		if r.left > 0 {
			n := min(r.left, len(p))
			r.left -= n
			p = p[n:]
			continue
		}
		n := copy(r.header[r.have:], p)
		r.have += n
		p = p[n:]
		if r.have == len(r.header) {
			r.have = 0
			r.left = int(r.header[3])<<8 | int(r.header[4])
		}
	}
}

// drained reports whether secured, the TLS connection over r, has used up all
// that was received. It reads what is left, so a connection that is not
// drained can't be used again.
func (r *recordConn) drained(secured net.Conn) bool {
	if r.left > 0 || r.have > 0 {
		return false
	}
	var spot [1]byte
	r.dry = true
	n, err := secured.Read(spot[:])
	r.dry = false
	return n == 0 && err == errDry
}

// dryError is a temporary error, which crypto/tls passes on without ending
// the connection.
type dryError struct{}

var errDry error = dryError{}

func (dryError) Error() string   { return "nothing to read" }
func (dryError) Timeout() bool   { return true }
func (dryError) Temporary() bool { return true }
