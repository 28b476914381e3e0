package upstream

import (
	"bytes"
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"gateway/internal/clock"
	"gateway/internal/pipe"
	"gateway/wire"
)

const (
	// maxWhole is the largest body with a known length that Do reads to its
	// end, so that the connection is free before the client takes a byte.
	maxWhole = 64 << 10
	// maxInterim is how many interim responses may precede the final one.
	maxInterim = 16
	// minRoom is the least room behind a head that is worth reading into.
	minRoom = 2 << 10
	// slowStream is the largest buffer of a body that is passed on in pieces to
	// somebody who takes longer than brisk for one, fastStream that of others.
	// Larger pieces cost less (fewer system calls, fewer wake-ups at both ends),
	// but whoever reads slowly must not hold much memory.
	slowStream = 64 << 10
	fastStream = 256 << 10
	// brisk is how soon the next piece is asked for by whom larger ones suit,
	// and sluggish how late by whom they do not: the same rate with its pieces,
	// about.
	brisk    = 10 * time.Millisecond
	sluggish = 50 * time.Millisecond
	// minPass is what must be left of a body for a pipe to be cheaper than reads,
	// minPiped what must have come through it for the next piece to take it too.
	minPass  = 64 << 10
	minPiped = 32 << 10
)

// reply is the memory of a response and how far it has been read.
type reply struct {
	head *buffer // the response's head, and as much of the body as fits behind it
	body *buffer // the body, when it does not
	buf  []byte  // where is read to: head's memory or body's
	from int     // buf[from:] is free for the body
	r, w int     // buf[r:w] has been received and not decoded

	left    int64 // body bytes still to come when the length is known
	chunked wire.Chunked
	data    []byte // body bytes decoded ahead of Next
	whole   bool   // data is the complete body
	grow    bool   // the last read left no room: more is waiting
	filled  int64  // clock.Mono of the last refill, or of the last piece that went into a pipe
	piped   int    // bytes of the last piece, if it went into a pipe; else 0
	err     error  // what Next says when data has been given
}

// borrow takes memory for the response of an endpoint, if there is none yet:
// not before something has come, since many may wait for a slow origin.
func (p *reply) borrow(e *Endpoint) {
	if p.head == nil {
		p.head = acquireBuffer(int(e.room.Load()))
		p.buf = p.head.b
	}
}

// rest is what was received and not decoded.
func (p *reply) rest() []byte { return p.buf[p.r:p.w] }

// release gives the buffers back and prepares for another response.
func (p *reply) release() {
	p.head.release()
	p.body.release()
	p.chunked.Reset()
	*p = reply{chunked: p.chunked} // its capacity is kept
}

// receive reads the head of the final response and begins with its body.
func (c *Call) receive(e *Endpoint) Outcome {
	if err := c.await(); err != nil {
		return c.failed(err)
	}
	p := &c.reply
	p.borrow(e)
	interims := 0
	for parsed := 0; ; { // buf[r:parsed] has been looked at and is not a whole head
		if p.w > parsed && (parsed == p.r || mayEnd(p.buf[p.r:p.w], parsed-p.r) || p.w-p.r >= e.maxHeader) {
			n, fault := c.Response.Parse(p.rest(), c.Method, e.maxFields)
			switch {
			case fault != wire.NoFault:
				return c.refuse(fault)
			case n > e.maxHeader:
				return c.refuse(wire.HeaderTooLarge)
			case n > 0:
				p.r += n
				parsed = p.r
				switch status := c.Response.Status; {
				case status >= 200:
					c.begin()
					return OK
				case status == 101:
					c.Answered = clock.Mono()
					if !c.Upgrade || c.upload != nil {
						return c.refuse(wire.UpgradeRefused)
					}
					p.err = io.EOF
					return OK
				}
				if interims++; interims > maxInterim {
					return c.refuse(wire.BadStatusLine)
				}
				// It may have announced a body, and sends that next.
				c.spoiled = c.spoiled || c.Response.Close
				if c.Interim != nil {
					c.Interim.Interim(c.Response.Status, &c.Response.Header)
				}
				c.Response.Reset()
				c.phase(p.w == p.r, false) // another head has begun, or not
				continue
			}
		}
		parsed = p.w
		if p.w-p.r >= e.maxHeader {
			return c.refuse(wire.HeaderTooLarge)
		}
		if p.w == len(p.buf) {
			parsed -= p.r
			p.makeRoom()
		}
		n, err := c.read(p.buf[p.w:])
		p.w += n
		if n == 0 && err != nil {
			if p.w > p.r { // what is there may break HTTP as it is
				if _, fault := c.Response.Parse(p.rest(), c.Method, e.maxFields); fault != wire.NoFault {
					return c.refuse(fault)
				}
			}
			return c.failed(err)
		}
	}
}

// mayEnd reports whether a blank line, of whatever kind, ends in b at or after
// from. Without it a head is not parsed again, so that an origin that sends
// single bytes does not make the parser run over the same ones each time.
func mayEnd(b []byte, from int) bool {
	for at := max(from-2, 0); ; {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return false
		}
		at += i + 1
		if at < len(b) && b[at] == '\n' || at+1 < len(b) && b[at] == '\r' && b[at+1] == '\n' {
			return true
		}
	}
}

// makeRoom moves an unfinished head to the front of the buffer, or to a larger one.
func (p *reply) makeRoom() {
	if p.r > 0 { // behind interim responses
		p.w = copy(p.buf, p.rest())
		p.r = 0
		return
	}
	larger := acquireBuffer(len(p.buf) + 1)
	copy(larger.b, p.buf)
	p.head.release()
	p.head, p.buf = larger, larger.b
}

// refuse is the outcome of a response that breaks HTTP.
func (c *Call) refuse(f wire.Fault) Outcome {
	c.fault = f
	return Invalid
}

// begin starts with the body. A small one is read to its end.
func (c *Call) begin() {
	p := &c.reply
	c.phase(false, true)
	p.from, p.grow = p.r, p.w == len(p.buf)
	p.left = c.Response.Length
	small, err := p.left >= 0 && p.left <= maxWhole, error(nil)
	if small {
		c.conn.endpoint.learn(p.r + int(p.left))
		err = c.fill(int(p.left))
	}
	c.Answered = clock.Mono()
	switch {
	case err != nil:
		c.stop(c.bodyError(err))
	case small:
		p.data, p.whole = p.buf[p.r:p.r+int(p.left)], true
		p.r += int(p.left)
		c.complete()
	case p.left == wire.LengthChunked && p.w > p.r:
		c.decode()
		p.whole = p.err == io.EOF
	}
}

// fill reads until n bytes of the body are there.
func (c *Call) fill(n int) error {
	p := &c.reply
	if p.w-p.r >= n {
		return nil
	}
	if p.r+n > len(p.buf) {
		p.body = acquireBuffer(n)
		p.w = copy(p.body.b, p.rest())
		p.buf, p.r, p.from = p.body.b, 0, 0
	}
	for p.w-p.r < n {
		k, err := c.read(p.buf[p.w:])
		p.w += k
		if k == 0 && err != nil {
			return err
		}
	}
	return nil
}

// Whole is the complete response body if it is in memory already (a small body, or none);
// the connection has then been given back. It is valid until End.
func (c *Call) Whole() (body []byte, ok bool) {
	if !c.reply.whole {
		return nil, false
	}
	return c.reply.data, true
}

// Next is the next piece of the response body, valid until the next call;
// io.EOF after the last one; any other error means that the body is
// incomplete: io.ErrUnexpectedEOF, os.ErrDeadlineExceeded, ErrCancelled or a
// *FaultError. It waits for one byte, never for more; a piece has at most 256 KiB.
// (A body of a known length up to 64 KiB comes whole: if it is
// incomplete, the first Next says so, and nothing of it is given.)
func (c *Call) Next() ([]byte, error) {
	p := &c.reply
	for {
		if len(p.data) > 0 {
			piece := p.data
			p.data, p.whole = nil, false
			return piece, nil
		}
		if p.err != nil {
			return nil, p.err
		}
		if p.r == p.w {
			if err := c.refill(); err != nil {
				if c.Response.Length == wire.LengthUntilClose && err == io.EOF {
					c.finish(false, true)
					p.err = io.EOF
				} else {
					c.stop(c.bodyError(err))
				}
				continue
			}
		}
		c.decode()
	}
}

// refill reads more of a streamed body. It begins behind the head, which is
// enough for events now and then, and takes larger buffers for as long as
// reads fill them and what they bring is taken fast.
func (c *Call) refill() error {
	p := &c.reply
	if size := p.suits(time.Duration(clock.Mono() - p.filled)); p.body == nil && size > 0 || p.body != nil && size != len(p.body.b) {
		p.body.release()
		p.body = acquireBuffer(size)
		p.buf, p.from = p.body.b, 0
	}
	n, err := c.read(p.buf[p.from:])
	p.r, p.w = p.from, p.from+n
	p.grow = p.w == len(p.buf)
	p.filled, p.piped = clock.Mono(), 0
	if n > 0 {
		return nil
	}
	return err
}

// suits is the size of buffer that suits the next read, given how long the last
// piece took its reader; 0: what the head has left.
func (p *reply) suits(took time.Duration) int {
	have := 0
	if p.body != nil {
		have = len(p.body.b)
	}
	switch {
	case have > slowStream && took > sluggish:
		return slowStream
	case !p.grow && (have > 0 || len(p.buf)-p.from >= minRoom):
		return have
	case have == 0:
		return bufferSizes[1]
	case have >= slowStream && took < brisk:
		return fastStream
	}
	return max(have, slowStream)
}

// Passes reports whether the next piece of the body is to go through a pipe: if
// much is to come, of known length and from a plain socket, and more of it is
// there than a read takes, for somebody who takes it fast.
func (c *Call) Passes() bool {
	p := &c.reply
	if p.left <= 0 || p.err != nil || len(p.data) > 0 || p.r < p.w || c.conn.records != nil || c.conn.watched == nil {
		return false
	}
	return p.passes(time.Duration(clock.Mono() - p.filled))
}

// passes is Passes, given how long the last piece took its reader. One who is
// slow would hold a pipe, and an origin that sends a little now and then is
// cheaper to read from.
func (p *reply) passes(took time.Duration) bool {
	if p.piped > 0 {
		return p.piped >= minPiped && took < sluggish
	}
	return p.grow && p.left >= minPass && (p.filled == 0 || took < brisk)
}

// Pass is Next into an empty pipe, when Passes says so: how many bytes have come,
// at least one. It waits as Next does, and Next repeats its error.
func (c *Call) Pass(through *pipe.Pipe) (int, error) {
	p := &c.reply
	err := c.rearm()
	if err == nil {
		p.piped, err = c.conn.watched.ReadPipe(through, int(min(p.left, pipe.Size)))
	}
	if err != nil {
		c.stop(c.bodyError(err))
		return 0, p.err
	}
	p.filled = clock.Mono()
	if p.left -= int64(p.piped); p.left == 0 {
		c.complete()
	}
	return p.piped, nil
}

// decode takes the body's bytes out of what was received; the result may be
// empty. At the end of the body the connection is given back.
func (c *Call) decode() {
	p := &c.reply
	switch c.Response.Length {
	case wire.LengthChunked:
		c.decodeChunks()
	case wire.LengthUntilClose:
		p.data, p.r = p.rest(), p.w
	default:
		n := int(min(p.left, int64(p.w-p.r)))
		p.data = p.buf[p.r : p.r+n]
		p.r += n
		if p.left -= int64(n); p.left == 0 {
			c.complete()
		}
	}
}

// decodeChunks moves the data of all chunks received together, so that they
// become one piece.
func (c *Call) decodeChunks() {
	p := &c.reply
	start, end := p.r, p.r
	for p.r < p.w {
		data, n, done, fault := p.chunked.Decode(p.rest())
		if fault != wire.NoFault {
			c.stop(&FaultError{fault})
			return
		}
		end += copy(p.buf[end:], data) // never ahead of what is still to be decoded
		p.r += n
		if done {
			p.data = p.buf[start:end]
			c.complete()
			return
		}
	}
	p.data = p.buf[start:end]
}

// complete parts from the connection after a complete body. It can be used
// again if the response allows it and nothing was received beyond its end.
func (c *Call) complete() {
	c.reply.err = io.EOF
	c.finish(!c.Response.Close && c.reply.r == c.reply.w, true)
}

// stop ends the body early.
func (c *Call) stop(err error) {
	c.reply.err = err
	c.finish(false, true)
}

// bodyError translates an error of the connection within a body.
func (c *Call) bodyError(err error) error {
	c.mu.Lock()
	cancelled := c.cancelled
	c.mu.Unlock()
	c.cause = err
	switch {
	case cancelled:
		return ErrCancelled
	case errors.Is(err, os.ErrDeadlineExceeded):
		return os.ErrDeadlineExceeded
	}
	return io.ErrUnexpectedEOF
}

// Trailer is the response's trailer section, lines with CRLF, nil without
// one; valid after Next returned io.EOF.
func (c *Call) Trailer() []byte { return c.reply.chunked.Trailer() }

// hungUp reports whether the other end closed the connection for writing.
func hungUp(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}
