package listener

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"gateway/exchange"
	"gateway/internal/clock"
	"gateway/wire"
)

// Conn is a client's connection, and the exchange.Client of the exchanges that
// arrive on it, one after the other. One goroutine owns it; what others may
// touch is marked.
//
// A connection is waiting for a request, reading a head, inside an exchange
// (whose body ReadBody reads), or closing. The read deadline of the socket is
// armed as rarely as possible: an armed one that comes too early costs one
// wake-up, in which it is moved to where it belongs.
type Conn struct {
	front  *Front
	socket *Socket
	raw    net.Conn // the socket; Close and the deadlines are safe from any goroutine
	steady steady   // the socket, for writing
	stream net.Conn // what HTTP flows through: steady or a tls.Conn on it
	fd     int      // descriptor of the socket, for the sweeper; -1 when unknown
	key    clientKey
	secure bool
	peer   netip.AddrPort
	local  netip.AddrPort
	o      *settings // of the current request

	sleeper *sleeper // as a loop knows the connection; nil for an ordinary one
	spot    [1]byte  // memory for the first byte of a request

	waiting  atomic.Int64 // clock since when a request is awaited, 0 otherwise
	retiring atomic.Bool  // to be closed as soon as nothing is being received

	// Reading.

	armed    int64              // read deadline of the socket, 0 for none
	since    int64              // when the connection began, or its last exchange ended
	began    int64              // when the first byte of the head arrived; 0 when it came with the last request
	arrived  int64              // when the last byte of the head arrived; 0 likewise
	room     int                // size of fasthttp's buffer
	head     []byte             // the head so far, in fasthttp's buffer
	complete bool               // head ends with the blank line
	readErr  error              // why the last read of a head failed
	x        *exchange.Exchange // of the head, until it is served
	rest     []byte             // received bytes beyond the head or body that was asked for
	restMem  *buffer            // memory of rest
	requests int64              // heads received
	last     bool               // no further request is read from this connection
	linger   bool               // the client may still be sending: close so that it can read the answer

	body   body
	answer answer
	tunnel exchange.Tunnel // takes over when the exchange has ended
	flight flight
	feed   feed
}

// newConn is a connection of the front that has no socket yet.
func newConn(f *Front, o *settings) *Conn {
	c := &Conn{front: f, fd: -1, o: o, since: clock.Mono()}
	c.steady.timeout = int64(o.WriteTimeout)
	c.stream = &c.steady
	c.feed.c = c
	c.flight.shard = f.flights.pick()
	return c
}

// wrap makes the connection that of an accepted socket.
func (c *Conn) wrap(s *Socket, raw net.Conn) {
	c.socket, c.raw, c.steady.Conn, c.secure = s, raw, raw, s.address.Secure
	c.peer, c.local = addrPort(raw.RemoteAddr()), addrPort(raw.LocalAddr())
}

// addrPort is the unmapped address of a TCP connection's end.
func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		p := t.AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	}
	return netip.AddrPort{}
}

// run serves the connection to its end.
func (c *Conn) run(o *settings) {
	defer c.end()
	c.fd = descriptor(c.raw)
	if c.secure && !c.handshake(o) {
		return
	}
	c.drive()
}

// handshake begins TLS.
func (c *Conn) handshake(o *settings) bool {
	if o.keys == nil {
		c.front.log.Error("no certificate for a secure listener", "listener", c.socket.address.String())
		return false
	}
	t := tls.Server(&c.steady, o.keys.config.Load())
	// The deadline bounds the whole handshake, in both directions.
	limit := time.Now().Add(o.HeaderTimeout)
	c.steady.bound = limit
	_ = c.raw.SetDeadline(limit)
	if err := t.Handshake(); err != nil {
		c.front.log.Debug("TLS handshake failed", "listener", c.socket.address.String(), "client", c.peer.String(), "error", err)
		return false
	}
	_ = c.raw.SetDeadline(time.Time{})
	c.steady.bound = time.Time{}
	c.stream = t
	c.since = clock.Mono()
	return true
}

// endOfHead is the length of the head that b begins with, 0 when it is not
// complete. The first seen bytes have been looked at before.
func endOfHead(b []byte, seen int) int {
	from := max(seen-3, 0)
	if from < 2 && len(b) > 1 && b[0] == '\r' && b[1] == '\n' {
		from = 2 // an empty line before the request line ends nothing
	}
	if at := bytes.Index(b[from:], crlfcrlf); at >= 0 {
		return from + at + len(crlfcrlf)
	}
	return 0
}

var crlfcrlf = []byte("\r\n\r\n")

// receive reads bytes of a head from the client, within idle_timeout or
// header_timeout.
func (c *Conn) receive(p []byte) (int, error) {
	if len(c.head) > 0 {
		if c.began == 0 {
			c.began = clock.Mono()
		}
		n, err := c.read(p, c.began+int64(c.o.HeaderTimeout))
		c.arrived = clock.Mono()
		return n, err
	}
	c.waiting.Store(c.since)
	for {
		c.o = c.front.settings.Load()
		limit := c.since + int64(c.o.IdleTimeout)
		if c.requests == 0 {
			limit = c.since + int64(c.o.HeaderTimeout)
		}
		n, err := c.read(p, limit)
		if err == errRetired && c.readable() {
			c.retiring.Store(false)
			continue
		}
		c.waiting.Store(0)
		c.began = clock.Mono()
		c.arrived = c.began
		return n, err
	}
}

// retire ends the connection if no byte of a request arrives before its
// goroutine has seen to it. Safe from any goroutine.
func (c *Conn) retire() {
	if c.retiring.CompareAndSwap(false, true) {
		_ = c.raw.SetReadDeadline(time.Unix(1, 0))
	}
}

var (
	errRetired = errors.New("connection retired")
	errAborted = errors.New("request body aborted")
)

// read reads from the client, until limit (as clock.Mono). It allocates
// nothing.
func (c *Conn) read(p []byte, limit int64) (int, error) {
	if c.armed == 0 || c.armed > limit {
		c.arm(limit)
	}
	for {
		// Whoever interrupts sets a flag and then a deadline, which we may just
		// have replaced.
		if c.body.broken.Load() {
			return 0, errAborted
		}
		if c.retiring.Load() && c.waiting.Load() != 0 {
			return 0, errRetired
		}
		n, err := c.stream.Read(p)
		if n > 0 || err == nil {
			return n, nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, err
		}
		if clock.Mono() >= limit {
			return 0, os.ErrDeadlineExceeded
		}
		c.arm(limit)
	}
}

// arm sets the read deadline.
func (c *Conn) arm(limit int64) {
	c.armed = limit
	_ = c.raw.SetReadDeadline(time.Now().Add(time.Duration(limit - clock.Mono())))
}

// readable reports whether bytes of the client wait in the socket.
func (c *Conn) readable() bool { return c.fd >= 0 && peek(c.fd) }

// keepRest makes b, which may be a part of rest, the bytes to be read next.
func (c *Conn) keepRest(b []byte) {
	switch {
	case len(b) == 0:
		if c.restMem != nil {
			c.restMem.release()
		}
		c.rest, c.restMem = nil, nil
	case c.restMem == nil:
		c.restMem = acquireBuffer()
		c.restMem.b = append(c.restMem.b, b...)
		c.rest = c.restMem.b
	default:
		c.rest = b
	}
}

// parse makes an exchange of the head as far as it has arrived.
func (c *Conn) parse() {
	o := c.front.settings.Load()
	c.o = o
	x := exchange.Acquire()
	c.x = x
	n, fault := x.Request.Parse(c.head, &o.limits)
	switch {
	case fault != wire.NoFault:
	case n != len(c.head) || !c.complete: // ends elsewhere, or nowhere yet
		fault = c.incomplete(x, &o.limits)
	case x.Request.Upgrade != nil:
		// A tunnel keeps the exchange for longer than fasthttp its buffer.
		c.head = bytes.Clone(c.head)
		x.Request.Parse(c.head, &o.limits)
	}
	x.Fault = fault
}

// serve runs the exchange whose head has arrived, or failed to arrive for the
// given reason.
func (c *Conn) serve(failed exchange.Reason) {
	if c.x == nil {
		c.parse()
	}
	x := c.x
	c.x = nil
	switch {
	case x.Fault == wire.NoFault:
		failed = exchange.Done // whatever fasthttp has against it
	case failed == exchange.Done:
		failed = exchange.BadRequest
	}
	x.Client, x.Peer, x.Local, x.Secure = c, c.peer, c.local, c.secure
	x.Reason = failed
	if x.Start = c.arrived; x.Start == 0 {
		x.Start = clock.Mono()
	}
	c.requests++
	c.steady.timeout = int64(c.o.WriteTimeout)
	c.body.begin(x)
	c.answer.begin(x)
	c.last = c.last || x.Fault != wire.NoFault
	c.linger = c.last

	c.takeOff(x)
	c.front.handler.Handle(x) // x is gone after this
	c.land()
	c.finish()
}

// finish ends an exchange and prepares for the next one.
func (c *Conn) finish() {
	if !c.answer.settled() {
		c.Abort() // nothing, or not all of it, was answered
	}
	if c.answer.failed {
		c.last, c.linger = true, false
	}
	if c.body.left.Load() != 0 && !c.answer.failed {
		// What the client still sends is not a request.
		if c.last || !c.drain() {
			c.last, c.linger = true, true
		}
	}
	c.head, c.complete, c.began, c.arrived = nil, false, 0, 0
	c.since = clock.Coarse()
}

// lingerTime bounds how long an answered client that still sends is listened
// to, and lingerBytes how much.
const (
	lingerTime  = 2 * time.Second
	lingerBytes = 64 << 20
)

// conclude ends the connection when fasthttp has let go of it.
func (c *Conn) conclude() {
	c.waiting.Store(0)
	limit := time.Now().Add(lingerTime)
	if t := c.tunnel; t != nil {
		c.steady.off = true
		_ = c.raw.SetDeadline(time.Time{})
		t.Run(&tunnelConn{c: c})
		limit = time.Now().Add(lingerTime)
		c.last = false
	}
	if c.answer.failed {
		return
	}
	c.steady.off, c.steady.bound = false, limit
	_ = c.raw.SetDeadline(limit)
	if t, ok := c.stream.(*tls.Conn); ok {
		_ = t.CloseWrite()
	}
	// Closing a socket with unread bytes in it resets the connection, and the
	// reset may overtake the answer (RFC 9112 section 9.6).
	if c.last && (c.linger || len(c.rest) > 0 || c.readable()) {
		discard(c.raw, limit, lingerBytes)
	}
}

// discard closes the writing side and reads until the client closes its own,
// or a bound is reached.
func discard(raw net.Conn, limit time.Time, bytes int) {
	if h, ok := raw.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite()
	}
	b := acquireBuffer()
	defer b.release()
	p := b.b[:cap(b.b)]
	for bytes > 0 && time.Now().Before(limit) {
		n, err := raw.Read(p)
		if err != nil {
			return
		}
		bytes -= n
	}
}

// buffer is pooled memory.
type buffer struct {
	b    []byte
	keep bool // somebody else needs it still: release does nothing
}

// bufferSize is the payload of a TLS record: answers up to this size, head
// included, are written at once.
const bufferSize = 16 << 10

var buffers = sync.Pool{New: func() any { return &buffer{b: make([]byte, 0, bufferSize)} }}

func acquireBuffer() *buffer { return buffers.Get().(*buffer) }

func (b *buffer) release() {
	if b.keep || cap(b.b) > 4*bufferSize {
		return // needed, or grown for a rare case
	}
	b.b = b.b[:0]
	buffers.Put(b)
}
