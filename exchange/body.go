package exchange

import (
	"errors"
	"io"
	"os"
	"time"

	"gateway/wire"
)

var (
	// ErrBodyTooLarge ends a request body that exceeds the route's limit.
	ErrBodyTooLarge = errors.New("request body exceeds max_body")
	// ErrClientLeft is what a front returns when the connection has gone.
	ErrClientLeft = errors.New("client closed the connection")
)

// ReadBody reads the request body from the client, counts it, and ends it at
// the route's limit. It makes an exchange the upload of its own call.
func (x *Exchange) ReadBody(p []byte) (int, error) {
	n, err := x.Client.ReadBody(p)
	x.BytesIn += int64(n)
	x.received = err == io.EOF || x.Request.Length >= 0 && x.BytesIn >= x.Request.Length
	if x.MaxBody > 0 && x.BytesIn > x.MaxBody {
		return 0, ErrBodyTooLarge
	}
	return n, err
}

// BodyTrailer is the request's trailer section; see Client.
func (x *Exchange) BodyTrailer() []byte { return x.Client.BodyTrailer() }

// AbortBody makes a blocked ReadBody return; see Client.
func (x *Exchange) AbortBody() {
	x.unread.Store(true)
	x.Client.AbortBody()
}

// BodyUntouched reports whether the body can still be read from its beginning.
func (x *Exchange) BodyUntouched() bool { return x.BytesIn == 0 && !x.unread.Load() }

// Interim relays an interim response of the origin to the client.
func (x *Exchange) Interim(status int, h *wire.Header) {
	h.DelHopByHop()
	x.Client.Interim(status, h)
}

// BodyReceived reports whether the client has sent all of the body.
func (x *Exchange) BodyReceived() bool { return x.received || x.Request.Length == 0 }

// BufferBody reads a body of exactly Request.Length bytes into memory that
// lives as long as the exchange; again when it was read before. At the deadline, if there is one, it fails and
// the connection has to be closed.
func (x *Exchange) BufferBody(deadline time.Time) ([]byte, error) {
	if deadline.IsZero() {
		return x.bufferBody()
	}
	// The client's method, not ours: it may be called late, when x is another
	// exchange already.
	t := time.AfterFunc(time.Until(deadline), x.Client.AbortBody)
	b, err := x.bufferBody()
	if !t.Stop() && err == nil {
		err = os.ErrDeadlineExceeded
	}
	return b, err
}

func (x *Exchange) bufferBody() ([]byte, error) {
	want := int(x.Request.Length)
	if len(x.request) == want {
		return x.request, nil // it was asked for before
	}
	if cap(x.request) < want {
		x.request = make([]byte, 0, want+want/4)
	}
	b := x.request[:want]
	for at := 0; at < want; {
		n, err := x.ReadBody(b[at:])
		at += n
		if err != nil && (err != io.EOF || at < want) {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	x.request = b
	return b, nil
}
