package proxy

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
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
	b.Run("hit", func(b *testing.B) { benchmarkHandle(b, "cache = true", 100, 0) })
	b.Run("hit of one URL", func(b *testing.B) { benchmarkHandle(b, "cache = true", 1, 0) })
	b.Run("forward", func(b *testing.B) { benchmarkHandle(b, "", 100, 1) })
	b.Run("refuse", func(b *testing.B) { benchmarkHandle(b, `limit = { rate = "1/m", burst = 1 }`, 100, 0) })
}

// benchmarkHandle sends GETs of so many URLs through a route with the options,
// each of which reaches the origin so often.
func benchmarkHandle(b *testing.B, options string, urls, asked int) {
	o := &memoryOrigin{answer: []byte("HTTP/1.1 200 OK\r\nServer: origin\r\nContent-Type: text/plain\r\nCache-Control: max-age=3600\r\nContent-Length: 1024\r\n\r\n" + origin.Filler(1024))}
	g := create(b, o.dial, "[upstream.app]\nservers = [\"192.0.2.1:80\"]\n[[route]]\nupstream = \"app\"\n%s", options)
	defer g.Close()
	var requests [][]byte
	for i := range urls {
		requests = append(requests, fmt.Appendf(nil, "GET /%d HTTP/1.1\r\nHost: bench.example.com\r\nUser-Agent: bench\r\nAccept: */*\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n", i))
	}
	limits := wire.Limits{MaxTarget: 8 << 10, MaxHeader: 16 << 10, MaxFields: 100}
	send := func(c *memoryClient) {
		x := exchange.Acquire()
		if _, fault := x.Request.Parse(requests[c.sent%urls], &limits); fault != wire.NoFault {
			b.Error(fault)
		}
		x.Client, x.Peer, x.Start = c, memoryPeer, clock.Mono()
		c.sent++
		g.Handle(x)
	}
	var c memoryClient
	for range urls + 1 {
		send(&c)
	}
	before := g.Status().Upstreams[0].Servers[0].Requests
	b.ReportAllocs()
	b.ResetTimer()
	var clients atomic.Int64
	b.RunParallel(func(p *testing.PB) {
		c := memoryClient{sent: 37 * int(clients.Add(1))} // not all at the same URL
		for p.Next() {
			send(&c)
		}
		if c.failed {
			b.Error("an answer was cut off")
		}
	})
	b.StopTimer()
	if forwarded := g.Status().Upstreams[0].Servers[0].Requests - before; forwarded != uint64(asked*b.N) {
		b.Errorf("%d requests of %d were forwarded", forwarded, b.N)
	}
}

var memoryPeer = netip.MustParseAddrPort("192.0.2.9:999")

// memoryClient takes answers and forgets them.
type memoryClient struct {
	sent   int
	failed bool
}

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
	_      [128]byte // two of them are not to share what one changes
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
