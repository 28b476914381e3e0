package listener

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"gateway/exchange"
)

// tunnel is an exchange.Tunnel that is a function.
type tunnel func(net.Conn)

func (f tunnel) Run(c net.Conn) { f(c) }

// upgrading answers 101 and echoes what comes through the tunnel, behind a
// greeting that names the path: the exchange is still there.
func upgrading(ended chan<- string) handler {
	return func(x *exchange.Exchange) {
		if x.Request.Upgrade == nil {
			echo(x)
			return
		}
		x.Own(101)
		path := x.Request.Path
		if x.Client.Begin(x, nil, true) == nil {
			x.Client.Tunnel(tunnel(func(c net.Conn) {
				io.WriteString(c, string(path)+"\n")
				_, err := io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
				if err != nil {
					ended <- err.Error()
				} else {
					ended <- ""
				}
			}))
		}
	}
}

func TestTunnel(t *testing.T) {
	ended := make(chan string, 1)
	f, s := start(t, options(), upgrading(ended))
	c := dial(t, s)
	c.get("/first")
	// What comes with the request is early data of the tunnel.
	c.send("GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nearly ")
	res, err := http.ReadResponse(c.r, nil)
	if err != nil || res.StatusCode != 101 || res.Header.Get("Upgrade") != "echo" || res.Header.Get("Connection") != "Upgrade" {
		t.Fatalf("got %v, %v", res, err)
	}
	// Buffers that the request used meet other requests meanwhile.
	for range 3 {
		dial(t, s).get("/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx")
	}
	c.send("late\n")
	r := bufio.NewReader(c.r)
	for _, want := range []string{"/chat\n", "early late\n"} {
		if got, err := r.ReadString('\n'); got != want {
			t.Fatalf("got %q, %v; want %q", got, err, want)
		}
	}
	if n := s.Active(); n == 0 {
		t.Error("a tunnel is no active connection")
	}
	if err := f.Drain(expired(t), 0); err == nil {
		t.Error("Drain does not wait for tunnels")
	}
	c.Conn.(*net.TCPConn).CloseWrite()
	if why := <-ended; why != "" {
		t.Errorf("tunnel ended with %s", why)
	}
	if b, err := io.ReadAll(r); len(b) > 0 || err != nil {
		t.Errorf("end: %q, %v", b, err)
	}
}

func expired(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func TestCloseCutsTunnels(t *testing.T) {
	ended := make(chan string, 1)
	f, s := start(t, options(), upgrading(ended))
	c := dial(t, s)
	c.send("GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	http.ReadResponse(c.r, nil)
	f.Close()
	<-ended
	if s.Active() != 0 {
		t.Error("the tunnel's connection is still active")
	}
}
