package listener

import (
	"errors"
	"net"
	"strconv"

	"gateway/exchange"
	"gateway/internal/clock"
	"gateway/internal/pipe"
	"gateway/wire"
)

// answer is the writing side of the current exchange.
type answer struct {
	begun   bool
	whole   bool // complete on the wire
	failed  bool // cut, or a write failed: nothing can be written any more
	head    bool // the request is HEAD
	old     bool // the client speaks HTTP/1.0
	close   bool // the client wants the connection closed
	framing framing
	left    int64       // bytes still owed to the announced length
	mayWait bool        // for others, unsent, if it is whole at once and small
	unsent  *buffer     // a whole answer that is still to be written; nil for none
	pieces  net.Buffers // of a writev
	vector  [3][]byte   // memory of pieces
}

// framing is how the client finds the end of the body.
type framing uint8

const (
	framedByHead   framing = iota // there is no body
	framedByLength                // Content-Length
	framedByChunks                // Transfer-Encoding: chunked
	framedByClose                 // the connection ends with the body
)

// begin prepares for the answer to x.
func (a *answer) begin(x *exchange.Exchange) {
	a.begun, a.whole = false, false
	a.head = x.Request.Method == wire.MethodHead
	a.old = x.Request.Minor == 0 && x.Fault == wire.NoFault
	a.close = x.Request.Close
}

// settled reports whether nothing remains to be written.
func (a *answer) settled() bool { return a.whole || a.failed }

var (
	errClosed = errors.New("connection is closed")
	errLength = errors.New("response body differs from its announced length")
)

// copied is the largest piece of a body that is copied behind what precedes it
// on a plain connection; larger ones are written from where they are.
const copied = 8 << 10

// Begin implements exchange.Client. Head and body go out in one write when the
// body is small. After an error the connection has been cut; it is
// os.ErrDeadlineExceeded when the client has stopped reading.
func (c *Conn) Begin(x *exchange.Exchange, body []byte, whole bool) error {
	a := &c.answer
	if a.failed {
		return errClosed
	}
	if a.begun {
		panic("BUG: an exchange is answered twice")
	}
	if c.body.expected {
		// Held over the write so that no 100 Continue follows the answer.
		c.body.writing.Lock()
		defer c.body.writing.Unlock()
		if c.body.asking.Swap(false) {
			c.last = true // the client may send the body now, or not
		}
	}
	a.begun = true
	status, length := x.Response.Status, x.Response.Length
	if whole && length < 0 && status >= 200 && !a.head && status != 304 {
		length = int64(len(body))
	}
	switch {
	case a.head || status < 200 || status == 204 || status == 304:
		a.framing = framedByHead
	case length >= 0:
		a.framing = framedByLength
		if n := int64(len(body)); n > length || whole && n != length {
			return c.written(errLength)
		}
	case a.old:
		a.framing = framedByClose
	default:
		a.framing = framedByChunks
	}
	a.left = length
	c.decide()
	// Whose request was forwarded has waited already, and may have left.
	a.mayWait = a.mayWait && whole && !c.last && status >= 200 && x.Attempts == 0 && c.body.left.Load() == 0

	m := acquireBuffer()
	m.b = c.appendHead(m.b, x, length)
	err := c.writeBody(m, body)
	if a.unsent != m {
		m.release()
	}
	a.whole = whole && err == nil
	return c.written(err)
}

// decide settles whether the connection ends with this exchange, before the
// answer says so.
func (c *Conn) decide() {
	left := c.body.left.Load()
	switch {
	case c.last, c.front.announced.Load(), c.socket.announced.Load(), c.body.broken.Load(),
		left > drainBytes, left == wire.LengthChunked:
		// The client does not know yet, and may be sending.
		c.last, c.linger = true, true
	case c.answer.close, c.answer.framing == framedByClose:
		c.last = true
	}
}

// appendHead appends the head of the answer, blank line included.
func (c *Conn) appendHead(b []byte, x *exchange.Exchange, length int64) []byte {
	a, h, status := &c.answer, x.Response.Header, x.Response.Status
	b = wire.AppendStatusLine(b, status)
	// Header holds end-to-end fields only. Should an origin's framing have
	// slipped through nevertheless, then two framings would be a way to smuggle
	// responses.
	h.Del(wire.ContentLength)
	h.Del(wire.TransferEncoding)
	h.Del(wire.Connection)
	b = h.AppendTo(b)
	if !h.Has(wire.Date) {
		b = append(b, "Date: "...)
		b = append(b, clock.HTTPDate()...)
		b = append(b, "\r\n"...)
	}
	switch a.framing {
	case framedByLength:
		b = appendLength(b, length)
	case framedByChunks:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case framedByHead:
		// What the length would have been: for 304 zero is never that.
		if status == 304 && length > 0 || status != 304 && status != 204 && status >= 200 && length >= 0 {
			b = appendLength(b, length)
		}
	}
	switch {
	case status == 101:
		if !h.Has(wire.Upgrade) {
			b = append(b, "Upgrade: "...)
			b = append(b, x.Request.Upgrade...)
			b = append(b, "\r\n"...)
		}
		b = append(b, "Connection: Upgrade\r\n"...)
	case c.last:
		b = append(b, "Connection: close\r\n"...)
	case a.old:
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	return append(b, "\r\n"...)
}

func appendLength(b []byte, n int64) []byte {
	b = append(b, "Content-Length: "...)
	b = strconv.AppendInt(b, n, 10)
	return append(b, "\r\n"...)
}

// Write implements exchange.Client. Errors are as those of Begin.
func (c *Conn) Write(p []byte) error {
	a := &c.answer
	if a.failed {
		return errClosed
	}
	if !a.begun || a.whole {
		panic("BUG: body outside an answer")
	}
	if len(p) == 0 || a.framing == framedByHead {
		return nil
	}
	m := acquireBuffer()
	defer m.release()
	return c.written(c.writeBody(m, p))
}

// TakesPipe implements exchange.PipeWriter: nothing stands between the body and
// the socket.
func (c *Conn) TakesPipe() bool {
	a := &c.answer
	return !c.secure && !a.failed && a.framing == framedByLength && c.steady.pipes()
}

// WritePipe implements exchange.PipeWriter. Errors are as those of Begin.
func (c *Conn) WritePipe(p *pipe.Pipe) error {
	a := &c.answer
	if a.failed {
		return errClosed
	}
	if !a.begun || a.whole {
		panic("BUG: body outside an answer")
	}
	if a.left -= int64(p.Held()); a.left < 0 {
		return c.written(errLength)
	}
	return c.written(c.steady.writePipe(p))
}

// End implements exchange.Client. Errors are as those of Begin.
func (c *Conn) End(trailer []byte) error {
	a := &c.answer
	if a.failed {
		return errClosed
	}
	if !a.begun || a.whole {
		panic("BUG: end outside an answer")
	}
	switch a.framing {
	case framedByLength:
		if a.left != 0 {
			return c.written(errLength)
		}
	case framedByChunks:
		m := acquireBuffer()
		defer m.release()
		m.b = append(m.b, "0\r\n"...)
		m.b = append(m.b, trailer...)
		m.b = append(m.b, "\r\n"...)
		if _, err := c.stream.Write(m.b); err != nil {
			return c.written(err)
		}
	}
	a.whole = true
	return c.written(nil)
}

// written ends a piece of the answer: the exchange leaves the sweeper's sight
// when it was the last one, since it may be released then.
func (c *Conn) written(err error) error {
	if err != nil {
		c.Abort()
	} else if c.answer.whole {
		c.land()
	}
	return err
}

// writeBody writes what m holds and then p as a piece of the body.
func (c *Conn) writeBody(m *buffer, p []byte) error {
	a := &c.answer
	after := ""
	switch a.framing {
	case framedByHead:
		p = nil
	case framedByLength:
		if a.left -= int64(len(p)); a.left < 0 {
			return errLength
		}
	case framedByChunks:
		if len(p) > 0 {
			m.b = wire.AppendChunkSize(m.b, len(p))
			after = "\r\n"
		}
	}
	if c.secure {
		return c.writeRecords(m, p, after)
	}
	if len(p) <= copied {
		m.b = append(append(m.b, p...), after...)
		if a.mayWait {
			a.unsent = m
			return nil
		}
		_, err := c.steady.Write(m.b)
		return err
	}
	a.vector = [...][]byte{m.b, p, crlfcrlf[:len(after)]}
	a.pieces = a.vector[:]
	if len(m.b) == 0 {
		a.pieces = a.vector[1:]
	}
	err := c.steady.writev(&a.pieces)
	a.vector, a.pieces = [3][]byte{}, nil
	return err
}

// writeRecords writes m, p and after so that TLS records are full but for the
// last: what surrounds a large p is completed with its ends.
func (c *Conn) writeRecords(m *buffer, p []byte, after string) error {
	if n := len(m.b); n > 0 && n+len(p)+len(after) > bufferSize {
		fill := min(max(bufferSize-n, 0), len(p))
		m.b = append(m.b, p[:fill]...)
		if _, err := c.stream.Write(m.b); err != nil {
			return err
		}
		p, m.b = p[fill:], m.b[:0]
	}
	if n := len(p) / bufferSize * bufferSize; n > 0 {
		if _, err := c.stream.Write(p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	if m.b = append(append(m.b, p...), after...); len(m.b) == 0 {
		return nil
	}
	_, err := c.stream.Write(m.b)
	return err
}

// Interim implements exchange.Client: there is nothing that an interim answer
// could overtake, but HTTP/1.0 knows none.
func (c *Conn) Interim(status int, h *wire.Header) {
	a := &c.answer
	if a.begun || a.failed || a.old || status < 102 || status > 199 {
		return
	}
	if c.body.expected {
		c.body.writing.Lock()
		defer c.body.writing.Unlock()
	}
	m := acquireBuffer()
	defer m.release()
	m.b = wire.AppendStatusLine(m.b, status)
	m.b = h.AppendTo(m.b)
	m.b = append(m.b, "\r\n"...)
	if _, err := c.stream.Write(m.b); err != nil {
		c.Abort()
	}
}

// Abort implements exchange.Client: the client's side is reset, so that not
// even an answer that the close would have ended looks complete.
func (c *Conn) Abort() {
	c.answer.failed, c.last = true, true
	c.land()
	if t, ok := c.raw.(interface{ SetLinger(int) error }); ok {
		_ = t.SetLinger(0)
	}
	_ = c.raw.Close()
}

// Begun implements exchange.Client.
func (c *Conn) Begun() bool { return c.answer.begun }

// CloseAfter implements exchange.Client.
func (c *Conn) CloseAfter() { c.last, c.linger = true, true }

var (
	_ exchange.Client     = (*Conn)(nil)
	_ exchange.PipeWriter = (*Conn)(nil)
)
