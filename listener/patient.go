package listener

import (
	"runtime/debug"

	"gateway/exchange"
	"gateway/internal/clock"
)

// carryOn serves a connection to its end that a loop has watched so far, and
// that now has to wait for its client, with what has been received of it.
func (c *Conn) carryOn() {
	defer c.end()
	if c.promote() != nil {
		return
	}
	if c.last {
		c.conclude()
		return
	}
	c.drive()
}

// drive serves the requests of an ordinary connection.
func (c *Conn) drive() {
	o := c.front.settings.Load()
	if !o.PlainFront || c.patient() {
		c.room = o.server.ReadBufferSize
		// The error tells nothing that refuse, which fasthttp calls, does not know.
		_ = o.server.ServeConn(&c.feed)
	}
	c.conclude()
}

// end closes an ordinary connection, also after a panic, and counts it out.
func (c *Conn) end() {
	// One connection's bug must not end the process.
	if p := recover(); p != nil {
		c.front.log.Error("panic in connection", "listener", c.socket.address.String(), "panic", p, "stack", string(debug.Stack()))
	}
	c.land()
	_ = c.raw.Close()
	c.keepRest(nil)
	if c.x != nil {
		exchange.Release(c.x)
	}
	c.socket.active.Add(-1)
	c.front.census.drop(c)
	c.front.census.leave(c.key)
}

// patient serves plain requests of an ordinary connection. It reports true when
// it has met something else, which then lies in rest, and false when no request
// follows. While the connection is idle it holds no buffer: the first byte of a
// request is read alone. (With TLS that costs no system call.)
func (c *Conn) patient() (more bool) {
	for {
		if len(c.rest) == 0 {
			if _, err := c.receive(c.spot[:]); err != nil {
				return false
			}
			m := acquireBuffer()
			m.b = append(m.b, c.spot[0])
			// Should it fail, then it will do so again for whoever goes on.
			if n, err := c.read(m.b[1:cap(m.b)], c.began+int64(c.o.HeaderTimeout)); err == nil {
				m.b = m.b[:1+n]
			}
			c.rest, c.restMem = m.b, m
			c.arrived = clock.Mono()
		}
		m := c.restMem
		m.keep = true // what the request is made of
		served := c.plain(true)
		if served {
			c.serve(exchange.Done)
		}
		m.keep = false
		switch {
		case !served:
			return true
		case c.restMem != m:
			m.release()
		}
		if c.last {
			return false
		}
	}
}
