package loadgen

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gateway/wire"
)

// maxHead bounds the head of an answer.
const maxHead = 256 << 10

// state of a connection.
type state uint8

const (
	closed state = iota
	connecting
	idle
	busy
)

// conn is one of the connections of a loop; it is opened again when it ends.
type conn struct {
	lane       *lane
	loop       *loop
	slot       int32
	generation int32 // of the descriptor: events of former ones are stale
	fd         int
	state      state
	retry      time.Duration // when to connect again
	secure     *secure       // nil for plain connections
	out        []byte        // rest of a request that did not fit the socket

	due, sent time.Duration // of the request under way; sent also of a connect
	method    wire.Method

	response  wire.Response
	chunks    wire.Chunked
	carry     []byte // head so far
	inBody    bool
	rest      int64 // of the body, or wire.LengthChunked, wire.LengthUntilClose
	lastReply bool  // the connection ends with this answer
	hungUp    bool
}

// connect begins to open the connection.
func (c *conn) connect() {
	c.generation++
	c.state, c.sent, c.hungUp = connecting, c.loop.now(), false
	if c.lane.site.secure {
		generation := c.generation
		c.loop.run.shaking.Go(func() { c.shake(generation) })
		return
	}
	fd, err := dial(c.loop.run.addresses[c.lane.site.address])
	if err == nil {
		c.fd = fd
		err = c.loop.poll.Add(fd, c.slot, c.generation)
	}
	if err != nil {
		c.lose(ConnectFailed)
	}
}

// dial begins to connect a socket that does not block.
func dial(a *net.TCPAddr) (fd int, err error) {
	family, to := unix.AF_INET, unix.Sockaddr(nil)
	if ip := a.IP.To4(); ip != nil {
		to = &unix.SockaddrInet4{Port: a.Port, Addr: [4]byte(ip)}
	} else {
		family = unix.AF_INET6
		to = &unix.SockaddrInet6{Port: a.Port, Addr: [16]byte(a.IP.To16())}
	}
	if fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, err
	}
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if err = unix.Connect(fd, to); err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (c *conn) event(e Event) {
	c.hungUp = c.hungUp || e.HungUp
	switch c.state {
	case connecting:
		if e.HungUp {
			c.lose(ConnectFailed)
		} else if e.Writable {
			c.ready()
		}
	case idle:
		if e.HungUp || e.Readable && c.secure == nil {
			c.lane.remove(c)
			c.again() // the server has had enough of it, or sends what nobody asked for
		}
	case busy:
		if e.Writable && len(c.out) > 0 && !c.flush() {
			return
		}
		if e.Readable {
			c.receive()
		}
	}
}

// ready gives the connection its next request, or lets it wait for one.
func (c *conn) ready() {
	c.state = idle
	if l := c.loop; l.sending && c.lane.rate == 0 {
		if now := l.now(); !c.lane.done(now) {
			c.send(now)
			return
		}
	}
	c.lane.push(c)
}

// send sends a request that was due at that time.
func (c *conn) send(due time.Duration) {
	l := c.loop
	t := c.lane.pick()
	c.state, c.due, c.method = busy, due, t.method
	c.inBody, c.lastReply, c.carry, c.out = false, false, c.carry[:0], c.out[:0]
	l.busy++
	c.sent = l.now()
	if due >= l.measured {
		c.lane.spend()
		l.tally.current.bytesOut += int64(len(t.text))
	}
	if c.secure != nil {
		if _, err := c.secure.Write(t.text); err != nil {
			c.lose(Broken)
		}
		return
	}
	n, errno := Send(c.fd, t.text)
	if errno != 0 && errno != syscall.EAGAIN {
		c.lose(Broken)
		return
	}
	if n < len(t.text) {
		c.out = append(c.out, t.text[n:]...)
	}
}

// flush sends the rest of a request; false when the connection was lost.
func (c *conn) flush() bool {
	n, errno := Send(c.fd, c.out)
	if errno != 0 && errno != syscall.EAGAIN {
		c.lose(Broken)
		return false
	}
	c.out = c.out[:copy(c.out, c.out[n:])]
	return true
}

// receive reads until the answer is complete or nothing more is there.
func (c *conn) receive() {
	generation, buffer := c.generation, c.loop.buffer
	for {
		n, more, ended := c.read(buffer)
		if n > 0 && c.measured() {
			c.loop.tally.current.bytesIn += int64(n)
		}
		if n > 0 && c.consume(buffer[:n]) {
			return
		}
		if c.state != busy || c.generation != generation {
			return // lost
		}
		if ended {
			if c.inBody && c.rest == wire.LengthUntilClose {
				c.lastReply = true
				c.complete()
			} else {
				c.lose(Broken)
			}
			return
		}
		if !more {
			return
		}
	}
}

// read reads once; more is false when nothing will be there at another try.
func (c *conn) read(b []byte) (n int, more, ended bool) {
	if c.secure != nil {
		n, err := c.secure.Read(b)
		return n, err == nil, err != nil && err != errWouldBlock
	}
	n, errno := Read(c.fd, b)
	switch {
	case errno == syscall.EAGAIN:
		return 0, false, false
	case errno != 0 || n == 0:
		return 0, false, true
	}
	return n, n == len(b) || c.hungUp, false
}

// consume takes bytes of the answer; true when it was the last of them.
func (c *conn) consume(b []byte) bool {
	for !c.inBody {
		whole := b
		if len(c.carry) > 0 {
			c.carry = append(c.carry, b...)
			whole = c.carry
		}
		n, fault := c.response.Parse(whole, c.method, 0)
		if fault != wire.NoFault || n == 0 && len(whole) > maxHead || n > 0 && c.response.Status == 101 {
			c.lose(Malformed)
			return false
		}
		if n == 0 {
			if len(c.carry) == 0 {
				c.carry = append(c.carry, b...)
			}
			return false
		}
		b = whole[n:]
		if c.response.Status < 200 { // interim
			b = append([]byte(nil), b...)
			c.carry = c.carry[:0]
			continue
		}
		c.inBody, c.rest, c.lastReply = true, c.response.Length, c.response.Close
		if c.rest == wire.LengthChunked {
			c.chunks.Reset()
		}
	}
	switch c.rest {
	case wire.LengthUntilClose:
		return false
	case wire.LengthChunked:
		for {
			_, n, done, fault := c.chunks.Decode(b)
			if fault != wire.NoFault {
				c.lose(Malformed)
				return false
			}
			b = b[n:]
			if done {
				break
			}
			if len(b) == 0 {
				return false
			}
		}
	default:
		n := min(c.rest, int64(len(b)))
		c.rest -= n
		b = b[n:]
		if c.rest > 0 {
			return false
		}
	}
	if len(b) > 0 {
		c.lose(Malformed)
		return false
	}
	c.complete()
	return true
}

func (c *conn) measured() bool { return c.due >= c.loop.measured }

// complete counts the answer and goes on.
func (c *conn) complete() {
	l := c.loop
	l.busy--
	l.tally.answered.Add(1)
	if c.measured() {
		now := l.now()
		l.last = now
		i := l.tally.current
		i.answered++
		i.statuses[c.response.Status]++
		i.latency.RecordValue(int64(now - c.due))
		if c.lane.rate > 0 {
			i.service.RecordValue(int64(now - c.sent))
		}
	}
	if c.lastReply || c.hungUp {
		c.again()
		return
	}
	c.ready()
}

// again replaces a connection that ended in peace.
func (c *conn) again() {
	c.close()
	if c.measured() {
		c.loop.tally.current.reconnects++
	}
	if c.loop.sending {
		c.connect()
	}
}

// lose counts the request under way as failed, and closes the connection.
func (c *conn) lose(f Failure) {
	l := c.loop
	now := l.now()
	if c.state == busy {
		l.busy--
		if c.measured() {
			l.fail(f, now-c.due, now-c.sent)
		}
	} else if f == ConnectFailed && l.sending && now >= l.measured && !c.lane.done(now) {
		// A closed loop would have sent a request now; in an open one the
		// request is still to be sent.
		if c.lane.rate == 0 {
			c.lane.spend()
		}
		l.fail(f, 0, 0)
	}
	c.close()
	c.retry = now + reconnectIn
	if f == TimedOut || f == Broken || f == Malformed {
		c.retry = now
	}
}

func (c *conn) close() {
	c.generation++
	if c.fd >= 0 {
		unix.Close(c.fd)
	}
	c.fd, c.secure, c.state = -1, nil, closed
}
