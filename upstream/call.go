package upstream

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"gateway/internal/clock"
	"gateway/wire"
)

// Call is one request to one origin and the response to it: an attempt. The
// zero value is ready; it is reused by Reset and keeps its buffers small
// between uses. One goroutine uses a Call; Cancel alone is safe from others.
type Call struct {
	// The request, set before Do. All slices are borrowed until End.

	Method  wire.Method // decides whether the response can have a body
	Head    []byte      // request line, fields, framing and blank line, ready to send
	Body    []byte      // whole body, sent with Head; nil without one or with Upload
	Upload  Upload      // body that is streamed, nil without one
	Length  int64       // bytes that Upload will give; wire.LengthChunked: it is sent chunked
	Upgrade bool        // status 101 is acceptable
	Fresh   bool        // not idempotent: reuse only connections idle for less than a second, after a look at them
	Interim Interim     // receives interim responses, nil to drop them

	// Deadlines; zero means none.

	ConnectTimeout   time.Duration
	TryTimeout       time.Duration // from the beginning of Do until the head of the response is complete
	FirstByteTimeout time.Duration // from the end of the request until the head of the response has begun; again after an interim one
	BetweenTimeout   time.Duration // between two reads of the response, and writes of the request
	Deadline         time.Time     // of the whole exchange

	// Response is the head of the final response after Do returned OK, valid
	// until End.
	Response wire.Response

	// Times of the use, clock.Mono in ns.

	Began    int64 // Ready, or Do without it
	Answered int64 // Do had what it returned OK with: the head, and the body if that is small

	// State of the use, of the calling goroutine unless said otherwise.

	sent      atomic.Bool // an upload sets it from its own goroutine
	reused    bool
	aged      bool // the connection had been idle for freshFor at least
	began     bool // a byte of a response has arrived
	spoiled   bool // the connection can't be used again, whatever the response says
	armed     bool // the read deadline that stands suits the next read
	fault     wire.Fault
	cause     error
	uploadErr error
	reply     reply
	tryLimit  time.Time // what TryTimeout comes to; zero without
	ready     bool      // Ready was called, for the next Do

	// mu guards what follows and is never held across I/O. Only the calling
	// goroutine sets using, waiting, answered, conn and upload, and so may read them
	// without it.
	mu        sync.Mutex
	using     bool // between Ready or Do and End
	cancelled bool
	waiting   bool               // the head of a response has not begun; see phase
	answered  bool               // the head of the final response is there; see phase
	conn      *conn              // while the call has one
	upload    *upload            // while there is one
	abortDial context.CancelFunc // while dialling
}

// Upload is a request body that is streamed to the origin.
type Upload interface {
	// ReadBody reads body bytes; io.EOF at the end.
	ReadBody(p []byte) (int, error)
	// BodyTrailer is the trailer section after io.EOF, nil without one.
	BodyTrailer() []byte
	// AbortBody makes a ReadBody that blocks return soon: the response is
	// complete and nobody needs the rest.
	AbortBody()
}

// Interim receives interim responses (1xx other than 101).
type Interim interface {
	Interim(status int, h *wire.Header)
}

// Outcome is how an attempt ended, up to the head of the response.
type Outcome uint8

const (
	OK              Outcome = iota
	ConnectRefused          // the origin, or the way to it, refused the connection
	ConnectTimedOut         // no connection in time
	TLSFailed               // handshake or verification failed
	NoResources             // out of local descriptors, ports or memory: not the origin's fault
	Stale                   // a connection that had been idle for a second at least was closed without a byte of a response
	Reset                   // closed or reset before the head of the response was complete
	TimedOut                // no first byte, or no progress, in time
	DeadlinePassed          // the deadline of the exchange passed
	Invalid                 // the response breaks HTTP; Fault says how
	UploadFailed            // the client's body could not be read; UploadError says why
	Cancelled               // Cancel was called
	OutcomeCount            // number of values above
)

// String is the outcome's name in metrics and logs.
func (o Outcome) String() string {
	if o < OutcomeCount {
		return outcomeNames[o]
	}
	return "unknown"
}

var outcomeNames = [OutcomeCount]string{
	OK: "ok", ConnectRefused: "connect_refused", ConnectTimedOut: "connect_timed_out", TLSFailed: "tls_failed",
	NoResources: "no_resources", Stale: "stale", Reset: "reset", TimedOut: "timed_out",
	DeadlinePassed: "deadline_passed", Invalid: "invalid", UploadFailed: "upload_failed", Cancelled: "cancelled",
}

// ErrCancelled is what Next returns after Cancel.
var ErrCancelled = errors.New("call cancelled")

// FaultError is what Next returns when the body of a response breaks HTTP.
type FaultError struct{ Fault wire.Fault }

func (f *FaultError) Error() string { return "invalid response: " + f.Fault.String() }

// maxInline is the largest Body that is sent in one piece, before the
// response is looked at: both ends' socket buffers take it, so that an origin
// that answers without reading can't block it. Larger ones are uploaded.
const maxInline = 64 << 10

// past is a deadline that interrupts at once.
var past = time.Unix(1, 0)

// Ready ends what the call was used for, and makes Cancel count from here on,
// for the Do that follows: whoever hands the call to somebody who may cancel it
// calls Ready before. The attempt's time runs from here on.
func (c *Call) Ready() {
	c.End()
	c.mu.Lock()
	c.using, c.cancelled, c.waiting, c.answered = true, false, true, false
	c.mu.Unlock()
	c.ready = true
	c.Began = clock.Mono()
}

// Do sends the request to the endpoint and reads the head of the final
// response, and its body if that is small. After any outcome the caller may
// look at Sent; after OK it reads the body with Whole, or with Next until an
// error, or not at all, and calls End. After another outcome, and also after
// End, Do may be called again. It never retries.
func (c *Call) Do(e *Endpoint) Outcome {
	if !c.ready {
		c.Ready()
	}
	c.ready = false
	c.sent.Store(false)
	c.reused, c.aged, c.began, c.spoiled, c.armed = false, false, false, false, false
	c.fault, c.cause, c.uploadErr = wire.NoFault, nil, nil
	c.Response.Reset()
	outcome := c.attempt(e)
	if outcome != OK {
		c.End()
	}
	return outcome
}

func (c *Call) attempt(e *Endpoint) Outcome {
	start := clock.TimeAt(c.Began)
	if c.tryLimit = (time.Time{}); c.TryTimeout > 0 {
		c.tryLimit = start.Add(c.TryTimeout)
	}
	if !c.Deadline.IsZero() && !start.Before(c.Deadline) {
		return DeadlinePassed
	}
	cn := e.take(c.Fresh)
	if c.reused, c.aged = cn != nil, cn != nil && cn.idled >= freshFor; !c.reused {
		var outcome Outcome
		if cn, outcome = c.dial(e, start); outcome != OK {
			return outcome
		}
		start = clock.Now()
	}
	if c.Upload != nil || len(c.Body) > maxInline {
		if !c.attach(cn, c.Deadline) {
			return Cancelled
		}
		c.startUpload()
		return c.receive(e)
	}
	if !c.attach(cn, c.within(c.limit(start, c.FirstByteTimeout))) {
		return Cancelled
	}
	if outcome := c.send(start); outcome != OK {
		return outcome
	}
	return c.receive(e)
}

// attach makes the connection the call's own, within reach of Cancel, and
// sets its deadline for both directions.
func (c *Call) attach(cn *conn, deadline time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancelled {
		cn.abort()
		return false
	}
	c.conn, c.armed = cn, true
	_ = cn.SetDeadline(deadline) // this also replaces whatever the connection's last use has left
	return true
}

// send writes head and body in one piece.
func (c *Call) send(start time.Time) Outcome {
	if c.FirstByteTimeout <= 0 && c.BetweenTimeout > 0 {
		// The deadline that attach has set does not bound the write.
		c.mu.Lock()
		if !c.cancelled {
			_ = c.conn.SetWriteDeadline(c.limit(start, c.BetweenTimeout))
		}
		c.mu.Unlock()
	}
	data := c.Head
	var joined *buffer
	if len(c.Body) > 0 {
		if n := len(c.Head) + len(c.Body); n <= maxBuffer {
			joined = acquireBuffer(n)
			data = joined.b[:n]
		} else {
			data = make([]byte, n)
		}
		copy(data[copy(data, c.Head):], c.Body)
	}
	_, touched, err := c.conn.write(data)
	joined.release()
	if touched {
		c.sent.Store(true)
	}
	if err != nil {
		c.spoiled = true
		if !hungUp(err) {
			return c.failed(err)
		}
		// The origin closed. It may have answered before (408, 413, 503), and
		// reading can't block now.
	}
	return OK
}

// limit is the earlier one of the exchange's deadline and from plus d; zero
// when there is neither.
func (c *Call) limit(from time.Time, d time.Duration) time.Time {
	if d <= 0 {
		return c.Deadline
	}
	t := from.Add(d)
	if !c.Deadline.IsZero() && c.Deadline.Before(t) {
		return c.Deadline
	}
	return t
}

// within is the earlier one of a deadline and that of the attempt.
func (c *Call) within(t time.Time) time.Time {
	if !c.tryLimit.IsZero() && (t.IsZero() || c.tryLimit.Before(t)) {
		return c.tryLimit
	}
	return t
}

func (c *Call) deadlinePassed() bool {
	return !c.Deadline.IsZero() && !clock.Now().Before(c.Deadline)
}

// await waits for the origin's next bytes before there is memory for them.
func (c *Call) await() error {
	if !c.armed {
		if err := c.arm(); err != nil {
			return err
		}
		c.armed = true
	}
	return c.conn.await()
}

// read is where a call gets something from its origin, but for Pass.
func (c *Call) read(p []byte) (int, error) {
	if err := c.rearm(); err != nil {
		return 0, err
	}
	n, err := c.conn.Read(p)
	if n > 0 && c.waiting {
		c.began = true
		c.phase(false, false)
	}
	return n, err
}

// phase notes how far the response has come. Nobody else looks at that without
// an upload.
func (c *Call) phase(waiting, answered bool) {
	if c.upload != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
	}
	c.waiting, c.answered = waiting, answered
}

// rearm is arm, unless the deadline is set already.
func (c *Call) rearm() error {
	if c.armed {
		c.armed = false
		return nil
	}
	return c.arm()
}

// arm sets the read deadline for the phase that the call is in. While the
// request is being uploaded the origin may be silent: the upload's own
// progress is watched, and its end sets the deadline.
func (c *Call) arm() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancelled {
		return ErrCancelled
	}
	deadline := c.Deadline
	if u := c.upload; u != nil && u.interrupt {
		deadline = past
	} else if u == nil || u.over {
		deadline = c.responseLimit()
	}
	return c.conn.SetReadDeadline(deadline)
}

// responseLimit is until when the origin has to send something, its request
// being complete. Called with mu held.
func (c *Call) responseLimit() time.Time {
	switch {
	case c.waiting:
		return c.within(c.limit(clock.Now(), c.FirstByteTimeout))
	case !c.answered:
		return c.within(c.limit(clock.Now(), c.BetweenTimeout))
	}
	return c.limit(clock.Now(), c.BetweenTimeout)
}

// failed classifies an error of the connection before the head of the final
// response.
func (c *Call) failed(err error) Outcome {
	c.mu.Lock()
	cancelled, uploadErr := c.cancelled, error(nil)
	if u := c.upload; u != nil && u.interrupt {
		uploadErr = u.err
		if err = u.writeErr; err == nil {
			err = u.err
		}
	}
	c.mu.Unlock()
	c.cause = err
	switch {
	case cancelled:
		return Cancelled
	case uploadErr != nil:
		return UploadFailed // End takes the error over
	case errors.Is(err, os.ErrDeadlineExceeded):
		if c.deadlinePassed() {
			return DeadlinePassed
		}
		return TimedOut
	case noResources(err):
		return NoResources
	case c.began:
		return Reset
	case c.aged:
		// The origin's keep-alive timeout, most likely. Those are longer than
		// freshFor: what ends a connection that was in use a moment ago is a
		// server that fails, or stops.
		return Stale
	}
	// With TLS 1.3 an origin refuses a client's certificate after the client
	// has finished its handshake.
	if op := (*net.OpError)(nil); c.conn.records != nil && errors.As(err, &op) && (op.Op == "remote error" || op.Op == "local error") {
		return TLSFailed
	}
	return Reset
}

// Sent reports whether a byte of the request may have reached the origin.
func (c *Call) Sent() bool { return c.sent.Load() }

// Reused reports whether the attempt went over a connection used before.
func (c *Call) Reused() bool { return c.reused }

// Fault is the violation behind Invalid.
func (c *Call) Fault() wire.Fault { return c.fault }

// UploadError is the error behind UploadFailed. After OK and End it is what
// was wrong with the rest of the client's body, if anything was.
func (c *Call) UploadError() error { return c.uploadErr }

// Cause is the error of the connection behind an outcome other than OK, or
// behind an incomplete body, for logs; it may be nil.
func (c *Call) Cause() error { return c.cause }

// Hijack hands over the connection after status 101, with the bytes read
// beyond the head (valid until End), and without a deadline. The call no
// longer owns the connection and Cancel no longer reaches it.
func (c *Call) Hijack() (conn net.Conn, early []byte) {
	if c.conn == nil || c.Response.Status != 101 {
		panic("BUG: hijack without a switch of protocols")
	}
	c.mu.Lock()
	cn := c.conn
	c.conn = nil
	_ = cn.SetDeadline(time.Time{})
	c.mu.Unlock()
	cn.endpoint.open.Add(-1)
	return cn.Conn, c.reply.rest()
}

// End gives the connection back if the response ended exactly at its
// boundary, closes it otherwise, waits for the upload to have stopped, and
// releases the buffers. Calling it again does nothing.
func (c *Call) End() {
	if !c.using { // written by this goroutine only
		return
	}
	c.finish(false, false)
	c.ready = false
	c.reply.release()
}

// finish parts from the connection: to the idle ones if it can be reused. The
// call remains in use, or not.
func (c *Call) finish(reusable, using bool) {
	var panicked any
	if u := c.upload; u != nil {
		complete := u.stop(reusable)
		c.mu.Lock()
		c.upload = nil
		c.mu.Unlock()
		c.uploadErr, panicked = u.err, u.panicked
		reusable = reusable && complete
	}
	c.mu.Lock()
	cn := c.conn
	c.conn, c.using = nil, using || panicked != nil // then End comes again
	reusable = reusable && !c.cancelled && !c.spoiled
	c.mu.Unlock()
	if cn != nil {
		if reusable {
			cn.endpoint.put(cn, max(c.Answered, c.reply.filled))
		} else {
			cn.abort()
		}
	}
	if panicked != nil { // on the goroutine where panics are contained
		panic(panicked)
	}
}

// Cancel interrupts Do and Next from another goroutine; they return Cancelled
// or an error. Between two uses of the call, that is after End and before Ready
// or Do, it does nothing.
func (c *Call) Cancel() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.using || c.cancelled {
		return
	}
	c.cancelled = true
	if c.abortDial != nil {
		c.abortDial()
	}
	if c.conn != nil {
		_ = c.conn.SetDeadline(past)
	}
}

// Reset ends the call if need be and forgets everything but its buffers' capacity.
func (c *Call) Reset() {
	if c.Head == nil && !c.using { // nothing but its time may have been set
		c.Deadline = time.Time{}
		return
	}
	c.End()
	c.Method, c.Head, c.Body, c.Upload, c.Length = 0, nil, nil, nil, 0
	c.Upgrade, c.Fresh, c.Interim = false, false, nil
	c.ConnectTimeout, c.TryTimeout, c.FirstByteTimeout, c.BetweenTimeout, c.Deadline = 0, 0, 0, 0, time.Time{}
	c.Response.Reset()
	c.sent.Store(false)
	c.Began, c.Answered = 0, 0
	c.reused, c.fault, c.cause, c.uploadErr = false, wire.NoFault, nil, nil
	c.reply.chunked.Reset()
}
