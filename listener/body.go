package listener

import (
	"io"
	"sync"
	"sync/atomic"
	"time"

	"gateway/exchange"
	"gateway/internal/clock"
	"gateway/wire"
)

// body is the request body of the current exchange. Its fields belong to
// whoever calls ReadBody; those that others look at are atomic.
type body struct {
	left    atomic.Int64 // bytes still to come; wire.LengthChunked until the last chunk has come; 0 when complete
	broken  atomic.Bool  // AbortBody was called or the body has failed: the connection ends
	absent  bool         // there is none
	err     error        // what ReadBody returns from now on
	until   int64        // absolute limit for reading it (clock.Mono), 0 for body_timeout between two reads
	chunked wire.Chunked

	expected bool        // the client has asked for 100 Continue
	asking   atomic.Bool // and waits for it
	writing  sync.Mutex  // orders 100 Continue before the answer; taken only when expected
}

// FaultError is the error of ReadBody for a body that breaks the chunked
// coding.
type FaultError struct{ Fault wire.Fault }

// Error names the fault.
func (e *FaultError) Error() string { return "malformed request body: " + e.Fault.String() }

// begin prepares for the body of x.
func (b *body) begin(x *exchange.Exchange) {
	length := x.Request.Length
	if x.Fault != wire.NoFault {
		length = 0 // unknown: the connection ends
	}
	b.left.Store(length)
	b.absent = length == 0
	b.err, b.until = nil, 0
	b.chunked.Reset()
	b.expected = x.Request.Expect && length != 0
	b.asking.Store(b.expected)
}

// ReadBody implements exchange.Client. A malformed body is a *FaultError, one
// that the client did not finish io.ErrUnexpectedEOF.
func (c *Conn) ReadBody(p []byte) (int, error) {
	b := &c.body
	if b.err != nil {
		return 0, b.err
	}
	left := b.left.Load()
	if left == 0 {
		b.err = io.EOF
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	if b.asking.Load() {
		c.permit()
	}
	n, err := 0, error(nil)
	if left == wire.LengthChunked {
		n, err = c.readChunked(p)
	} else {
		if int64(len(p)) > left {
			p = p[:left]
		}
		n, err = c.next(p)
		left -= int64(n)
		b.left.Store(left)
	}
	if err == io.EOF && b.left.Load() != 0 {
		err = io.ErrUnexpectedEOF
	}
	b.err = err
	if err != nil && err != io.EOF {
		b.broken.Store(true)
	}
	return n, err
}

// readChunked decodes in place: what was read into p is moved to its front
// without the coding, which only makes it shorter.
func (c *Conn) readChunked(p []byte) (int, error) {
	b := &c.body
	for {
		n, err := c.next(p)
		if err != nil {
			return 0, err
		}
		out := 0
		for at := 0; at < n; {
			data, m, done, fault := b.chunked.Decode(p[at:n])
			if fault != wire.NoFault {
				return 0, &FaultError{fault}
			}
			out += copy(p[out:], data)
			at += m
			if done {
				b.left.Store(0)
				c.unread(p[at:n])
				if out == 0 {
					return 0, io.EOF
				}
				return out, nil
			}
			if m == 0 {
				panic("BUG: chunked decoder does not move on")
			}
		}
		if out > 0 {
			return out, nil
		}
	}
}

// next reads bytes that follow the head, as they came.
func (c *Conn) next(p []byte) (int, error) {
	if len(c.rest) > 0 {
		n := copy(p, c.rest)
		c.keepRest(c.rest[n:])
		return n, nil
	}
	limit := c.body.until
	if limit == 0 {
		limit = clock.Coarse() + int64(c.o.BodyTimeout)
	}
	return c.read(p, limit)
}

// unread puts bytes back in front of rest.
func (c *Conn) unread(b []byte) {
	if len(b) == 0 {
		return
	}
	if len(c.rest) > 0 {
		// What next has taken from rest is still in front of it.
		m := c.restMem.b
		c.rest = m[len(m)-len(c.rest)-len(b):]
		return
	}
	c.keepRest(b)
}

// permit sends 100 Continue, unless the client has begun to send without it
// (RFC 9110 section 10.1.1) or the answer has.
func (c *Conn) permit() {
	c.body.writing.Lock()
	if c.body.asking.Swap(false) && len(c.rest) == 0 {
		_, _ = c.stream.Write(goOn) // a failure will be met by the read
	}
	c.body.writing.Unlock()
}

var goOn = []byte("HTTP/1.1 100 Continue\r\n\r\n")

// BodyTrailer implements exchange.Client.
func (c *Conn) BodyTrailer() []byte {
	if c.body.left.Load() != 0 {
		return nil
	}
	return c.body.chunked.Trailer()
}

// AbortBody implements exchange.Client.
func (c *Conn) AbortBody() {
	c.body.broken.Store(true)
	_ = c.raw.SetReadDeadline(time.Unix(1, 0))
}

// drainBytes is how much of an unread body is read after the answer to keep
// the connection, and drainTime for how long.
const (
	drainBytes = 64 << 10
	drainTime  = time.Second
)

// drain reads what the exchange has left of the body. It reports false when the
// body does not end soon.
func (c *Conn) drain() bool {
	m := acquireBuffer()
	defer m.release()
	p := m.b[:cap(m.b)]
	c.body.until = clock.Mono() + int64(drainTime)
	for bytes := 0; bytes <= drainBytes; {
		n, err := c.ReadBody(p)
		if err != nil {
			return err == io.EOF
		}
		bytes += n
	}
	return false
}
