package upstream

import (
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"gateway/internal/nonblock"
)

// turn is the part of a call that a connection without TLS spends between our
// last byte and the origin's first: a look at the connection, the request, the
// wait, the first bytes of the response. It runs as the callback of one
// RawConn.Read, which forgets what the poller has reported so far when it
// begins, and then waits whenever the callback returns false. So nothing has to
// be read before it is there (a read that would block costs a system call and
// tells nothing), and what comes between the look and the wait is not missed.
type turn struct {
	run   func(fd uintptr) bool // method value of Call.turnStep, bound once
	state turnState
	out   []byte // of the request, still to be sent
	n     int    // bytes received
	errno syscall.Errno
	ahead bool // n and errno are what the next read of the call returns
}

type turnState uint8

const (
	turnLook    turnState = iota
	turnStirred           // the connection had something to read before anything was asked: it can't be used
	turnSend              // the request is not sent, or not all of it
	turnWait              // the request is sent
	turnOver              // bytes, or the end, or an error came
)

// turnStep looks, sends and receives; false waits until the socket can be read.
func (c *Call) turnStep(fd uintptr) bool {
	t := &c.turn
	switch t.state {
	case turnLook:
		if !nonblock.Silent(int(fd), &c.spot) {
			t.state = turnStirred
			return true
		}
		t.state = turnSend
		for {
			n, errno := nonblock.Write(int(fd), t.out)
			if errno == syscall.EINTR {
				continue
			}
			if errno != 0 {
				t.errno = errno
				return true
			}
			c.sent.Store(true)
			if t.out = t.out[n:]; len(t.out) > 0 {
				return true // the socket is full
			}
			t.state = turnWait
			return false
		}
	case turnWait:
		c.reply.borrow(c.conn.endpoint)
		for {
			n, errno := nonblock.Read(int(fd), c.reply.buf)
			switch errno {
			case syscall.EINTR:
				continue
			case syscall.EAGAIN:
				return false
			}
			t.n, t.errno, t.state = n, errno, turnOver
			return true
		}
	}
	panic("BUG: a turn goes on after its end")
}

// converse is send for a connection that nobody has looked at since its last
// use, and receives the first bytes of the response too. stirred says that the
// connection can't be used, and that nothing was sent on it.
func (c *Call) converse(data []byte) (stirred bool, err error) {
	t := &c.turn
	if t.run == nil {
		t.run = c.turnStep
	}
	t.state, t.out, t.n, t.errno, t.ahead = turnLook, data, 0, 0, false
	err = c.conn.raw.Read(t.run)
	rest := t.out
	t.out = nil
	if t.state == turnStirred {
		return true, nil
	}
	if err != nil && !(errors.Is(err, os.ErrDeadlineExceeded) && c.tooEarly()) {
		return false, err
	}
	switch {
	case t.state == turnOver:
		t.ahead = true
	case t.state == turnWait: // woken by a deadline of an earlier use
	case t.state == turnSend && t.errno != 0 && t.errno != syscall.EAGAIN:
		return false, t.errno
	default: // the same, or the socket is full: the ordinary way
		if t.state == turnLook && !c.conn.quiet() {
			return true, nil
		}
		return false, c.sendAll(rest)
	}
	return false, nil
}

// firstRead is what the turn has received, as a read of the connection.
func (t *turn) firstRead() (int, error) {
	t.ahead = false
	switch {
	case t.errno != 0:
		return 0, os.NewSyscallError("read", t.errno)
	case t.n == 0:
		return 0, io.EOF
	}
	return t.n, nil
}

// tooEarly finds out whether a deadline that interrupted the call is one that
// an earlier use of the connection has left: then the right one takes its
// place, and the call goes on.
func (c *Call) tooEarly() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancelled || c.upload != nil || c.conn.limit.IsZero() {
		return false
	}
	if !c.until.IsZero() && !time.Now().Before(c.until) {
		return false
	}
	c.conn.limit = c.until
	_ = c.conn.SetDeadline(c.until)
	return true
}
