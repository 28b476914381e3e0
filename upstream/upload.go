package upstream

import (
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"time"

	"gateway/wire"
)

// uploadGrace is how long an upload may take to end when the response is
// complete already: the last bytes are most often on their way, and a little
// patience keeps both connections.
const uploadGrace = 20 * time.Millisecond

// uploadPiece is how much is read from the client and written to the origin
// at a time.
const uploadPiece = 32 << 10

// upload sends a request that has a large or streamed body from a goroutine
// of its own, while the call reads the response: an origin may answer before
// it has read everything, or send more than it can before it reads on.
type upload struct {
	call   *Call
	conn   *conn
	source Upload // nil: call.Body is the body
	done   chan struct{}
	buf    *buffer
	size   [16]byte // memory for the size line of a chunk

	// Guarded by call.mu until done is closed.

	stopped   bool  // no more may be sent
	reading   bool  // waits for the client
	over      bool  // nothing is sent any more
	interrupt bool  // the call's read was interrupted, because of err or because the origin takes nothing
	complete  bool  // the whole request was sent
	err       error // what was wrong with the client's body
	writeErr  error // what went wrong at the origin's side
	panicked  any
}

var errPanicked = errors.New("upload panicked")

func (c *Call) startUpload() {
	u := &upload{call: c, conn: c.conn, source: c.Upload, done: make(chan struct{})}
	c.mu.Lock()
	c.upload = u
	c.mu.Unlock()
	go u.run()
}

// run sends head and body, and then sets the deadline for the response.
func (u *upload) run() {
	defer close(u.done)
	defer func() {
		u.buf.release()
		if p := recover(); p != nil {
			u.panicked = fmt.Sprintf("%v\n%s", p, debug.Stack())
			u.end(errPanicked, nil)
		}
	}()
	u.end(u.send())
}

// send writes the request. clientErr is what was wrong with the client's
// body, writeErr what was wrong with the way to the origin.
func (u *upload) send() (clientErr, writeErr error) {
	c := u.call
	if err := u.write(c.Head); err != nil {
		return nil, err
	}
	if u.source == nil {
		for b := c.Body; len(b) > 0; {
			n := min(len(b), uploadPiece)
			if err := u.write(b[:n]); err != nil {
				return nil, err
			}
			b = b[n:]
		}
		return nil, nil
	}
	u.buf = acquireBuffer(uploadPiece)
	if c.Length >= 0 {
		return u.sendLength(c.Length)
	}
	return u.sendChunks()
}

// sendLength sends exactly that many bytes; if the client has fewer, the
// request stays visibly incomplete.
func (u *upload) sendLength(left int64) (clientErr, writeErr error) {
	for left > 0 {
		p := u.buf.b[:min(left, int64(len(u.buf.b)))]
		n, err := u.read(p)
		left -= int64(n)
		if err != nil && left > 0 {
			return unexpected(err), nil
		}
		if err := u.write(p[:n]); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// sendChunks sends each piece that the client gives as a chunk, in one write
// with its framing.
func (u *upload) sendChunks() (clientErr, writeErr error) {
	const before, after = 16, 2 + len(wire.LastChunk) // room for framing
	b := u.buf.b
	for {
		n, err := u.read(b[before : len(b)-after])
		if err != nil && err != io.EOF {
			return err, nil
		}
		start, end := before, before+n
		if n > 0 {
			size := wire.AppendChunkSize(u.size[:0], n)
			start -= copy(b[before-len(size):], size)
			end += copy(b[end:], "\r\n")
		}
		out := b[start:end]
		if err == io.EOF {
			if trailer := u.source.BodyTrailer(); len(trailer) > 0 {
				out = append(append(append(out[:len(out):len(out)], "0\r\n"...), trailer...), "\r\n"...)
			} else {
				out = append(out, wire.LastChunk...)
			}
		}
		if len(out) > 0 {
			if err := u.write(out); err != nil {
				return nil, err
			}
		}
		if err == io.EOF {
			return nil, nil
		}
	}
}

// read reads from the client.
func (u *upload) read(p []byte) (int, error) {
	c := u.call
	c.mu.Lock()
	if u.stopped || c.cancelled {
		c.mu.Unlock()
		return 0, ErrCancelled
	}
	u.reading = true
	c.mu.Unlock()
	n, err := u.source.ReadBody(p)
	c.mu.Lock()
	u.reading = false
	c.mu.Unlock()
	return n, err
}

// write writes to the origin, which has the time between two pieces for it.
func (u *upload) write(p []byte) error {
	c := u.call
	c.mu.Lock()
	if u.stopped || c.cancelled {
		c.mu.Unlock()
		return ErrCancelled
	}
	err := u.conn.SetWriteDeadline(c.limit(time.Now(), c.BetweenTimeout))
	c.mu.Unlock()
	if err != nil {
		return err
	}
	_, touched, err := u.conn.write(p)
	if touched {
		c.sent.Store(true)
	}
	return err
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// stop ends the upload, at once or, with patience, after a moment if it does
// not end by itself. It reports whether the whole request was sent.
func (u *upload) stop(patience bool) bool {
	if patience {
		t := time.NewTimer(uploadGrace)
		select {
		case <-u.done:
		case <-t.C:
		}
		t.Stop()
	}
	c := u.call
	c.mu.Lock()
	u.stopped = true
	reading := u.reading
	if !u.over {
		_ = u.conn.SetWriteDeadline(past)
	}
	c.mu.Unlock()
	if reading {
		u.source.AbortBody()
	}
	<-u.done
	return u.complete
}

// end notes how the upload went, and wakes or bounds the call's read.
func (u *upload) end(clientErr, writeErr error) {
	c := u.call
	c.mu.Lock()
	defer c.mu.Unlock()
	u.over = true
	u.complete = clientErr == nil && writeErr == nil
	if c.cancelled || u.stopped {
		return
	}
	u.err, u.writeErr = clientErr, writeErr
	switch {
	case u.complete, clientErr == nil && hungUp(writeErr):
		// An origin that closed may have answered before.
	case c.answered:
		// The response goes on, but the origin learns that the request won't.
		u.conn.closeWrite()
	default:
		u.interrupt = true
		_ = u.conn.SetReadDeadline(past)
		return
	}
	_ = u.conn.SetReadDeadline(c.responseLimit())
}
