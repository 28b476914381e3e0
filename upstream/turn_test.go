package upstream

import (
	"testing"
	"time"

	"gateway/internal/nonblock"
	fake "gateway/internal/origin"
	"gateway/wire"
)

// ask is a GET of the call, with this much time for the first byte.
func ask(t *testing.T, c *Call, e *Endpoint, firstByte time.Duration) Outcome {
	t.Helper()
	c.Reset()
	c.Method, c.Head = wire.MethodGet, []byte("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
	c.ConnectTimeout, c.FirstByteTimeout, c.BetweenTimeout = time.Minute, firstByte, time.Minute
	return c.Do(e)
}

// idleConns are the idle connections of the endpoint.
func idleConns(e *Endpoint) (all []*conn) {
	for i := range e.idle.stacks {
		s := &e.idle.stacks[i]
		s.mu.Lock()
		all = append(all, s.conns...)
		s.mu.Unlock()
	}
	return all
}

// idleConn is the one idle connection of the endpoint.
func idleConn(t *testing.T, e *Endpoint) *conn {
	t.Helper()
	all := idleConns(e)
	if len(all) != 1 {
		t.Fatalf("%d idle connections", len(all))
	}
	return all[0]
}

func TestDeadlineOfAnEarlierUseInterruptsNobody(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	server := fake.Start(t, func(c *fake.Conn) {
		for {
			c.Read()
			asked <- struct{}{}
			<-answer
			c.Write(fake.OK("x"))
		}
	})
	e := NewEndpoint(EndpointOptions{Network: server.Network, Address: server.Address, MaxIdle: 1})
	t.Cleanup(e.Retire)
	var c Call
	outcomes := make(chan Outcome)
	next := func() { outcomes <- ask(t, &c, e, time.Minute) }
	go next()
	<-asked
	answer <- struct{}{}
	if got := <-outcomes; got != OK {
		t.Fatalf("outcome is %v", got)
	}
	c.End()
	cn := idleConn(t, e)
	limit := cn.limit
	if limit.IsZero() {
		t.Fatal("no deadline is known")
	}

	// It passes while the origin is thinking.
	go next()
	<-asked
	if cn.limit != limit {
		t.Error("the deadline was moved without need")
	}
	_ = cn.SetDeadline(past)
	answer <- struct{}{}
	if got := <-outcomes; got != OK || !c.Reused() {
		t.Fatalf("outcome is %v, reused %v", got, c.Reused())
	}
	c.End()

	// It has passed before the request.
	cn = idleConn(t, e)
	_ = cn.SetDeadline(past)
	go next()
	<-asked
	answer <- struct{}{}
	if got := <-outcomes; got != OK || !c.Reused() {
		t.Fatalf("outcome is %v, reused %v", got, c.Reused())
	}
	c.End()
}

func TestDeadlineThatSuitsStays(t *testing.T) {
	e := connected(t, 1, EndpointOptions{})
	cn, now := idleConn(t, e), time.Now()
	f := func(limit, deadline time.Duration, want bool) {
		t.Helper()
		cn.limit = now.Add(limit)
		if got := cn.suits(now.Add(deadline), now); got != want {
			t.Errorf("a deadline in %v for one in %v: %v", limit, deadline, got)
		}
	}
	f(50*time.Second, time.Minute, true)
	f(time.Minute, time.Minute, true)
	f(61*time.Second, time.Minute, false) // too late
	f(29*time.Second, time.Minute, false) // too early
	f(-time.Second, time.Minute, false)
	cn.limit = time.Time{}
	if cn.suits(now, now) {
		t.Error("an unknown deadline stays")
	}
	cn.limit = now.Add(time.Minute)
	if cn.suits(time.Time{}, now) {
		t.Error("a deadline stays where none is wanted")
	}
}

func TestTurnMeetsConnectionsThatEndedWhileIdle(t *testing.T) {
	e := connected(t, 3, EndpointOptions{})
	idle := idleConns(e)
	// From our side, so that the end is there when this returns.
	for _, cn := range idle[1:] {
		_ = cn.socket.(*nonblock.Conn).Conn.(interface{ CloseRead() error }).CloseRead()
	}
	var c Call
	if got := ask(t, &c, e, time.Minute); got != OK || !c.Reused() {
		t.Fatalf("outcome is %v, reused %v", got, c.Reused())
	}
	c.End()
	if open, _ := e.Stats(); open != 1 {
		t.Errorf("%d connections are open", open)
	}
}

func TestTurnWritesMoreThanTheSocketTakes(t *testing.T) {
	body := make([]byte, maxInline)
	server := fake.Start(t, func(c *fake.Conn) {
		for {
			if r := c.Read(); len(r.Body) != len(body) && len(r.Body) != 0 {
				t.Errorf("%d bytes came", len(r.Body))
			}
			c.Write(fake.OK("x"))
		}
	})
	e := NewEndpoint(EndpointOptions{Network: server.Network, Address: server.Address, MaxIdle: 1})
	t.Cleanup(e.Retire)
	var c Call
	if got := ask(t, &c, e, time.Minute); got != OK {
		t.Fatalf("outcome is %v", got)
	}
	c.End()
	if err := idleConn(t, e).socket.(*nonblock.Conn).Conn.(interface{ SetWriteBuffer(int) error }).SetWriteBuffer(1); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		c.Reset()
		c.Method, c.Head = wire.MethodPost, []byte("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 65536\r\n\r\n")
		c.Body, c.Length = body, int64(len(body))
		c.ConnectTimeout, c.FirstByteTimeout, c.BetweenTimeout = time.Minute, time.Minute, time.Minute
		if got := c.Do(e); got != OK || !c.Reused() {
			t.Fatalf("outcome is %v, reused %v, cause %v", got, c.Reused(), c.Cause())
		}
		c.End()
	}
}

// A response that is larger than what was expected takes a buffer of its own;
// the next one like it does not.
func TestMemorySuitsTheLastResponse(t *testing.T) {
	sizes := []int{16 << 10, 16 << 10, 10, 10, 48 << 10, 48 << 10}
	separate := []bool{true, false, false, false, true, true}
	served := 0
	server := fake.Start(t, func(c *fake.Conn) {
		for ; ; served++ {
			c.Read()
			c.Write(fake.OK(fake.Filler(sizes[served])))
		}
	})
	e := NewEndpoint(EndpointOptions{Network: server.Network, Address: server.Address, MaxIdle: 1})
	t.Cleanup(e.Retire)
	var c Call
	for i, size := range sizes {
		if got := ask(t, &c, e, time.Minute); got != OK {
			t.Fatalf("outcome %d is %v", i, got)
		}
		if body, ok := c.Whole(); !ok || len(body) != size {
			t.Errorf("response %d: %d bytes, whole %v; want %d", i, len(body), ok, size)
		}
		if got := c.reply.body != nil; got != separate[i] {
			t.Errorf("response %d of %d bytes, a buffer for its body: %v", i, size, got)
		}
		c.End()
		if c.reply.head != nil {
			t.Errorf("response %d: memory is kept", i)
		}
	}
}
