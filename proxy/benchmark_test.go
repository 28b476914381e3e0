package proxy

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"gateway/exchange"
	"gateway/internal/clock"
	"gateway/internal/origin"
	"gateway/wire"
)

// BenchmarkHandle is what a request costs without the kernel: client and origin
// are in memory. With -cpu 1,2 it shows how far processors are in each other's
// way.
func BenchmarkHandle(b *testing.B) {
	b.Run("hit", func(b *testing.B) { benchmarkHandle(b, "cache = true", "/c", 0) })
	b.Run("forward", func(b *testing.B) { benchmarkHandle(b, "", "/", 1) })
	b.Run("refuse", func(b *testing.B) { benchmarkHandle(b, `limit = { rate = "1/m", burst = 1 }`, "/", 0) })
}

// benchmarkHandle sends GETs through a route with the options, each of which
// reaches the origin so often.
func benchmarkHandle(b *testing.B, options, path string, asked int) {
	r := &running{t: b, log: &logs{}}
	r.configure("[upstream.app]\nservers = [\"192.0.2.1:80\"]\n[[route]]\nupstream = \"app\"\n%s", options)
	o := &memoryOrigin{answer: []byte("HTTP/1.1 200 OK\r\nServer: origin\r\nContent-Type: text/plain\r\nCache-Control: max-age=3600\r\nContent-Length: 1024\r\n\r\n" + origin.Filler(1024))}
	g, err := New(Options{Load: r.load, Version: "test", Log: slog.New(slog.NewTextHandler(r.log, nil)), Dial: o.dial})
	if err != nil {
		b.Fatal(err)
	}
	defer g.Close()
	request := []byte("GET " + path + " HTTP/1.1\r\nHost: bench.example.com\r\nUser-Agent: bench\r\nAccept: */*\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n")
	limits := wire.Limits{MaxTarget: 8 << 10, MaxHeader: 16 << 10, MaxFields: 100}
	send := func(c *memoryClient) {
		x := exchange.Acquire()
		if _, fault := x.Request.Parse(request, &limits); fault != wire.NoFault {
			b.Error(fault)
		}
		x.Client, x.Peer, x.Start = c, memoryPeer, clock.Mono()
		g.Handle(x)
	}
	var c memoryClient
	send(&c)
	send(&c)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		var c memoryClient
		for p.Next() {
			send(&c)
		}
		if c.failed {
			b.Error("an answer was cut off")
		}
	})
	b.StopTimer()
	forwarded := g.Status().Upstreams[0].Servers[0].Requests
	if want := uint64(asked * (b.N + 1)); forwarded < want || asked == 0 && forwarded > 1 {
		b.Errorf("%d requests were forwarded of %d", forwarded, b.N+2)
	}
}

var memoryPeer = netip.MustParseAddrPort("192.0.2.9:999")

// memoryClient takes answers and forgets them.
type memoryClient struct{ failed bool }

func (*memoryClient) ReadBody([]byte) (int, error)                 { panic("there is no body") }
func (*memoryClient) BodyTrailer() []byte                          { return nil }
func (*memoryClient) AbortBody()                                   {}
func (*memoryClient) Interim(int, *wire.Header)                    {}
func (*memoryClient) Begin(*exchange.Exchange, []byte, bool) error { return nil }
func (*memoryClient) Write([]byte) error                           { return nil }
func (*memoryClient) End([]byte) error                             { return nil }
func (c *memoryClient) Abort()                                     { c.failed = true }
func (*memoryClient) Begun() bool                                  { return false }
func (*memoryClient) CloseAfter()                                  {}
func (*memoryClient) Tunnel(exchange.Tunnel)                       {}

// memoryOrigin gives each request the same answer.
type memoryOrigin struct{ answer []byte }

func (o *memoryOrigin) dial(context.Context, string, string) (net.Conn, error) {
	return &memoryConn{origin: o}, nil
}

// memoryConn is a connection to it.
type memoryConn struct {
	origin *memoryOrigin
	left   []byte
}

func (c *memoryConn) Write(p []byte) (int, error) {
	if bytes.HasSuffix(p, []byte("\r\n\r\n")) {
		c.left = c.origin.answer
	}
	return len(p), nil
}

func (c *memoryConn) Read(p []byte) (int, error) {
	n := copy(p, c.left)
	c.left = c.left[n:]
	return n, nil
}

func (*memoryConn) Close() error                     { return nil }
func (*memoryConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (*memoryConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (*memoryConn) SetDeadline(time.Time) error      { return nil }
func (*memoryConn) SetReadDeadline(time.Time) error  { return nil }
func (*memoryConn) SetWriteDeadline(time.Time) error { return nil }
