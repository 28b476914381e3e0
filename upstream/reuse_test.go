package upstream

import (
	"context"
	"net"
	"testing"
	"time"

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
	next := func(d time.Duration) { outcomes <- ask(t, &c, e, d) }
	go next(time.Minute)
	<-asked
	answer <- struct{}{}
	if got := <-outcomes; got != OK {
		t.Fatalf("outcome is %v", got)
	}
	c.End()
	// It passes while the connection is idle, and while it is used again.
	for _, passed := range []time.Time{past, time.Now().Add(20 * time.Millisecond)} {
		_ = idleConn(t, e).SetDeadline(passed)
		go next(time.Minute)
		<-asked
		time.Sleep(max(time.Until(passed)+10*time.Millisecond, 0))
		answer <- struct{}{}
		if got := <-outcomes; got != OK || !c.Reused() {
			t.Fatalf("outcome is %v, reused %v", got, c.Reused())
		}
		c.End()
	}
	// Its own interrupts it.
	go next(20 * time.Millisecond)
	<-asked
	if got := <-outcomes; got != TimedOut {
		t.Errorf("outcome is %v", got)
	}
	close(answer)
}

func TestCallMeetsConnectionsThatEndedWhileIdle(t *testing.T) {
	e := connected(t, 3, EndpointOptions{})
	idle := idleConns(e)
	// From our side, so that the end is there when this returns.
	for _, cn := range idle[1:] {
		_ = cn.watched.CloseRead()
	}
	for _, cn := range idle {
		cn.since = 1 << 62 // that long nobody will look
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

func TestCallWritesMoreThanTheSocketTakes(t *testing.T) {
	body := make([]byte, maxInline)
	server := fake.Start(t, func(c *fake.Conn) {
		for {
			if r := c.Read(); len(r.Body) != len(body) && len(r.Body) != 0 {
				t.Errorf("%d bytes came", len(r.Body))
			}
			c.Write(fake.OK("x"))
		}
	})
	small := func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		if err == nil {
			err = c.(*net.TCPConn).SetWriteBuffer(1)
		}
		return c, err
	}
	e := NewEndpoint(EndpointOptions{Network: server.Network, Address: server.Address, MaxIdle: 1, Dial: small})
	t.Cleanup(e.Retire)
	var c Call
	if got := ask(t, &c, e, time.Minute); got != OK {
		t.Fatalf("outcome is %v", got)
	}
	c.End()
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
