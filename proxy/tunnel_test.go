package proxy

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"gateway/internal/origin"
)

const (
	upgrade  = "GET /chat HTTP/1.1\r\nHost: test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: k\r\nSec-WebSocket-Version: 13\r\n\r\n"
	switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: a\r\n\r\n"
)

// echo agrees to an upgrade and sends back what comes, until it ends.
func echo(c *origin.Conn) {
	c.ReadHead()
	c.Write(switched)
	for {
		c.Write(string(c.Byte()))
	}
}

func TestUpgradeCarriesBytesInBothDirections(t *testing.T) {
	var got *origin.Request
	o := origin.Start(t, func(c *origin.Conn) {
		got = c.ReadHead()
		c.Write(switched + "early from origin")
		for {
			c.Write(string(c.Byte()))
		}
	})
	r := begin(t, app(o.Address))
	c := r.dial()
	c.send(upgrade + "early from client")
	head := c.head()
	want := "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: a\r\n"
	if !strings.HasPrefix(head, want) || field(head, "Upgrade") != "websocket" || !strings.EqualFold(field(head, "Connection"), "upgrade") ||
		field(head, "Content-Length")+field(head, "Transfer-Encoding") != "" {
		t.Errorf("the client got\n%s", head)
	}
	if text := c.next(34); text != "early from originearly from client" {
		t.Errorf("early bytes: %q", text)
	}
	if len(values(got.Head, "Connection")) != 1 || !strings.EqualFold(got.Field("Connection"), "upgrade") || got.Field("Upgrade") != "WebSocket" ||
		got.Field("Sec-WebSocket-Key") != "k" || got.Field("X-Forwarded-For") != "127.0.0.1" {
		t.Errorf("the origin got\n%s", got.Head)
	}
	for range 100 {
		c.send("ping")
		if text := c.next(4); text != "ping" {
			t.Fatalf("echo of %q", text)
		}
	}
	r.counts(1, "gateway_http_in_flight")
	r.counts(1, "gateway_upstream_in_flight")
	c.Close()
	r.counts(1, "gateway_http_requests_total", `status="101"`)
	r.counts(417, "gateway_http_request_bytes_total")
	r.counts(434, "gateway_http_response_bytes_total")
	r.counts(0, "gateway_http_in_flight")
	r.counts(0, "gateway_upstream_in_flight")
	r.counts(0, "gateway_upstream_connections")
	r.endedFor("done", 1)
}

func TestLargeTransfersThroughTunnels(t *testing.T) {
	const size = 4 << 20
	o := origin.Start(t, func(c *origin.Conn) {
		c.ReadHead()
		c.Write(switched)
		_, _ = io.Copy(c.Conn, io.MultiReader(strings.NewReader(""), c.Conn))
		c.CloseWrite()
	})
	r := begin(t, app(o.Address))
	c := r.dial()
	c.SetDeadline(time.Now().Add(60 * time.Second))
	c.send(upgrade)
	c.head()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		io.WriteString(c.Conn, origin.Filler(size))
		c.Conn.(*net.TCPConn).CloseWrite()
	}()
	text, err := c.rest()
	if err != nil || text != origin.Filler(size) {
		t.Errorf("%d bytes came back, %v", len(text), err)
	}
	within(t, "all is sent", sent)
}

func TestTunnelsCanBeHalfClosed(t *testing.T) {
	heard := make(chan struct{})
	o := origin.Start(t, func(c *origin.Conn) {
		if c.ReadHead().Target == "/origin-first" {
			c.Write(switched + "bye")
			c.CloseWrite()
			for text := ""; text != "still here"; {
				text += string(c.Byte())
			}
			close(heard)
			c.Exit()
		}
		c.Write(switched)
		c.AwaitClose() // the client's half
		c.Write("still here")
	})
	r := begin(t, app(o.Address))
	c := r.dial()
	c.send(upgrade)
	c.head()
	c.send("bye")
	c.Conn.(*net.TCPConn).CloseWrite()
	if text, err := c.rest(); text != "still here" || err != nil {
		t.Errorf("after the client's half: %q, %v", text, err)
	}
	c = r.dial()
	c.send(strings.Replace(upgrade, "/chat", "/origin-first", 1))
	c.head()
	if text, err := c.rest(); text != "bye" || err != nil {
		t.Errorf("the origin's half: %q, %v", text, err)
	}
	c.send("still here")
	within(t, "the origin hears the client", heard)
	c.Close()
	r.counts(2, "gateway_http_requests_total", `status="101"`)
}

func TestTunnelsEndWithEitherSide(t *testing.T) {
	closed := make(chan struct{}, 1)
	o := origin.Start(t, func(c *origin.Conn) {
		q := c.ReadHead()
		c.Write(switched)
		switch q.Target {
		case "/close":
		case "/reset":
			c.Reset()
		default:
			c.AwaitClose()
			closed <- struct{}{}
		}
	})
	r := begin(t, app(o.Address))
	for _, target := range []string{"/close", "/reset"} {
		c := r.dial()
		c.send(strings.Replace(upgrade, "/chat", target, 1))
		c.head()
		if text, _ := c.rest(); text != "" {
			t.Errorf("%s: %q", target, text)
		}
		c.Close()
	}
	for _, leave := range []func(*client){func(c *client) { c.Close() }, (*client).reset} {
		c := r.dial()
		c.send(upgrade)
		c.head()
		leave(c)
		within(t, "the origin learns of it", closed)
	}
	r.counts(4, "gateway_http_requests_total", `status="101"`)
	r.counts(0, "gateway_upstream_in_flight")
}

func TestIdleTunnelsAreClosed(t *testing.T) {
	o := origin.Start(t, echo)
	r := begin(t, app(o.Address), "[[route]]\ntunnel_idle_timeout = \"1s\"\ntimeout = \"100ms\"\nupstream = \"app\"\n")
	busy, idle := r.dial(), r.dial()
	for _, c := range []*client{busy, idle} {
		c.send(upgrade)
		c.head()
	}
	began, ended := time.Now(), make(chan time.Duration, 1)
	go func() {
		idle.in.ReadByte()
		ended <- time.Since(began)
	}()
	for time.Since(began) < 1500*time.Millisecond {
		busy.send("x")
		if text := busy.next(1); text != "x" {
			t.Fatalf("echo of %q", text)
		}
		time.Sleep(20 * time.Millisecond)
	}
	select {
	case took := <-ended:
		if took < 900*time.Millisecond {
			t.Errorf("closed after %v", took)
		}
	case <-time.After(patience):
		t.Error("the idle tunnel stays")
	}
	r.counts(1, "gateway_http_in_flight")
}

func TestRefusedUpgradesAreOrdinaryAnswers(t *testing.T) {
	o := origin.Start(t, func(c *origin.Conn) {
		for {
			if c.Read().Field("Upgrade") != "" {
				c.Write("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
			} else {
				c.Write(origin.OK("hello"))
			}
		}
	})
	r := begin(t, app(o.Address))
	c := r.dial()
	c.send(upgrade)
	if a := c.receive("GET"); a.StatusCode != 403 || a.body != "no" || a.Close {
		t.Errorf("%d %q, close %v", a.StatusCode, a.body, a.Close)
	}
	c.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
	if a := c.receive("GET"); a.body != "hello" {
		t.Errorf("%d %q", a.StatusCode, a.body)
	}
	if n := o.Connections(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestUpgradesThatNobodyAgreedOnAre502(t *testing.T) {
	for _, answer := range []string{
		"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket, other\r\n\r\n",
	} {
		closed := make(chan struct{})
		o := origin.Start(t, func(c *origin.Conn) {
			c.ReadHead()
			c.Write(answer + "evil")
			c.AwaitClose()
			close(closed)
		})
		r := begin(t, app(o.Address))
		c := r.dial()
		c.send(upgrade)
		a := c.receive("GET")
		a.refused(t, 502, "upgrade_failed")
		if a.Header.Get("Proxy-Status") != "gateway; error=http_upgrade_failed" || a.Header.Get("Upgrade") != "" {
			t.Errorf("%q: %v", answer, a.Header)
		}
		within(t, "the origin's connection is closed", closed)
		r.counts(0, "gateway_upstream_in_flight")
	}
}

func TestUpgradesAreNotForwardedWhereTheyAreOff(t *testing.T) {
	o := record(t, origin.OK("hello"))
	r := begin(t, app(o.Address), "[[route]]\npath = \"/chat\"\nwebsocket = false\nupstream = \"app\"\n[[route]]\nupstream = \"app\"\n")
	for what, request := range map[string]string{
		"websocket = false": upgrade,
		"HTTP/1.0":          "GET / HTTP/1.0\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"not named":         "GET / HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\n\r\n",
	} {
		if a := r.do(request); a.StatusCode != 200 || a.body != "hello" {
			t.Errorf("%s: %d %q", what, a.StatusCode, a.body)
		}
		if q := o.last(t); q.Field("Upgrade")+q.Field("Connection") != "" {
			t.Errorf("%s: the origin got\n%s", what, q.Head)
		}
	}
}
