// Package origin is an HTTP/1.1 server for tests that does exactly what its
// script says, to the byte: it answers, stalls, resets, truncates and lies.
//
//	o := origin.Start(t, func(c *origin.Conn) {
//		c.Read()                                        // a whole request
//		c.Write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhal")
//		c.Reset()                                       // RST instead of the other seven bytes
//	})
//	… send requests to o.Address …
//
// A script runs once for each connection, on a goroutine of its own, and the
// connection is closed when it returns. A step that fails (the peer has gone,
// the origin was closed) ends the script there, so scripts check no errors.
// An origin is closed, and its scripts have ended, when the test is over.
package origin

import (
	"crypto/tls"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

// Script plays one connection.
type Script func(c *Conn)

// Origin is a listening origin.
type Origin struct {
	Network string // "tcp" or "unix"
	Address string // "127.0.0.1:port", or the path of the socket

	listener    net.Listener
	script      Script
	closing     chan struct{}
	connections atomic.Int64
	requests    atomic.Int64
	running     sync.WaitGroup

	mu   sync.Mutex
	open map[*Conn]struct{}
}

// Start listens on a free TCP port of 127.0.0.1.
func Start(tb testing.TB, s Script) *Origin {
	tb.Helper()
	return start(tb, "tcp", "127.0.0.1:0", nil, s)
}

// StartAt is Start on a given address of "tcp" or "unix": an origin that comes
// back after it was closed.
func StartAt(tb testing.TB, network, address string, s Script) *Origin {
	tb.Helper()
	return start(tb, network, address, nil, s)
}

// StartUnix listens on a Unix socket in a folder of the test's own.
func StartUnix(tb testing.TB, s Script) *Origin {
	tb.Helper()
	return start(tb, "unix", filepath.Join(tb.TempDir(), "origin.sock"), nil, s)
}

// StartTLS is Start with TLS on each connection.
func StartTLS(tb testing.TB, config *tls.Config, s Script) *Origin {
	tb.Helper()
	return start(tb, "tcp", "127.0.0.1:0", config, s)
}

func start(tb testing.TB, network, address string, config *tls.Config, s Script) *Origin {
	tb.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		tb.Fatalf("start origin: %v", err)
	}
	o := &Origin{
		Network: network, Address: l.Addr().String(), listener: l, script: s,
		closing: make(chan struct{}), open: make(map[*Conn]struct{}),
	}
	o.running.Add(1)
	go o.accept(config)
	tb.Cleanup(o.Close)
	return o
}

// Connections is the number of connections accepted so far.
func (o *Origin) Connections() int { return int(o.connections.Load()) }

// Requests is the number of request heads read so far by Read and ReadHead.
func (o *Origin) Requests() int { return int(o.requests.Load()) }

// Open is the number of connections whose scripts have not ended.
func (o *Origin) Open() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.open)
}

// Close stops listening, closes all connections and waits for the scripts to
// end. Calling it again does nothing.
func (o *Origin) Close() {
	o.mu.Lock()
	select {
	case <-o.closing:
	default:
		close(o.closing)
		o.listener.Close()
		for c := range o.open {
			c.Conn.Close()
		}
	}
	o.mu.Unlock()
	o.running.Wait()
}

// CloseIdle closes the connections whose scripts wait for a request, as an
// origin does that restarts or whose keep-alive timeout is over. It returns
// how many it closed; a script that has just answered may not wait yet.
func (o *Origin) CloseIdle() (closed int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for c := range o.open {
		if c.waiting.Swap(false) {
			c.Conn.Close()
			closed++
		}
	}
	return closed
}

func (o *Origin) accept(config *tls.Config) {
	defer o.running.Done()
	for {
		nc, err := o.listener.Accept()
		if err != nil {
			return
		}
		c := newConn(o, nc, config, int(o.connections.Add(1)-1))
		o.mu.Lock()
		select {
		case <-o.closing:
			nc.Close()
		default:
			o.open[c] = struct{}{}
			o.running.Add(1)
			go c.play()
		}
		o.mu.Unlock()
	}
}
