// Package load is clients for tests: they send requests all the time, one
// after the other on each connection, and tell when one of them fails.
//
//	l := load.Start(t)
//	l.Add(load.Clients{Number: 64, Address: address})
//	… reload, kill, stop …
//	l.Stopping() // from here on connections may be refused
//	l.End()
//	… l.Answered(), l.Failed() …
//
// A request has failed when a byte of it was written on a connection that was
// not announced closed, and no right answer came. The right answer is a 200
// whose body is what Clients.Want says; the rest of the answer does not matter.
package load

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Clients are clients of one kind.
type Clients struct {
	Number        int
	Address       string                         // "host:port"
	Path          string                         // that targets begin with: Path/client-connection-request
	Target        string                         // of all requests, instead of Path
	PerConnection int                            // requests on a connection, 0 for as many as it takes
	Transient     bool                           // the address comes and goes: refused connections are no failure
	TLS           *tls.Config                    // nil for plain connections
	Want          func(body, target string) bool // nil: the body is the target
}

// Load is running clients.
type Load struct {
	tb       testing.TB
	ctx      context.Context
	stop     context.CancelFunc
	wait     sync.WaitGroup
	stopping atomic.Bool

	sent, answered, failed, connections atomic.Int64
}

// patience bounds every answer.
const patience = 20 * time.Second

// reported is how many failures are reported one by one.
const reported = 10

// Start begins a load without clients. It ends with the test.
func Start(tb testing.TB) *Load {
	l := &Load{tb: tb}
	l.ctx, l.stop = context.WithCancel(context.Background())
	tb.Cleanup(l.End)
	return l
}

// Add starts clients.
func (l *Load) Add(c Clients) {
	if c.PerConnection == 0 {
		c.PerConnection = 1 << 60
	}
	if c.Want == nil {
		c.Want = func(body, target string) bool { return body == target }
	}
	for i := range c.Number {
		l.wait.Go(func() {
			for n := 0; l.ctx.Err() == nil; n++ {
				conn, err := c.connect()
				if err == nil {
					l.connections.Add(1)
					l.use(conn, &c, fmt.Sprintf("%s/%d-%d", c.Path, i, n))
					conn.Close()
					continue
				}
				if !c.Transient {
					if l.stopping.Load() {
						return
					}
					l.fail("connect to %s: %v", c.Address, err)
				}
				l.pause(5 * time.Millisecond)
			}
		})
	}
}

func (c *Clients) connect() (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", c.Address, patience)
	if err != nil || c.TLS == nil {
		return conn, err
	}
	conn.SetDeadline(time.Now().Add(patience))
	secure := tls.Client(conn, c.TLS)
	if err := secure.Handshake(); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

// use sends requests on a connection until its end is announced.
func (l *Load) use(conn net.Conn, c *Clients, prefix string) {
	in := bufio.NewReader(conn)
	for i := 0; i < c.PerConnection && l.ctx.Err() == nil; i++ {
		target := c.Target
		if target == "" {
			target = fmt.Sprintf("%s-%d", prefix, i)
		}
		conn.SetDeadline(time.Now().Add(patience))
		l.sent.Add(1)
		if _, err := io.WriteString(conn, "GET "+target+" HTTP/1.1\r\nHost: test\r\n\r\n"); err != nil {
			l.fail("send %s: %v", target, err)
			return
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			l.fail("no answer to %s: %v", target, err)
			return
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != 200 || !c.Want(string(body), target) {
			l.fail("wrong answer to %s: status %d, body %.200q, %v", target, resp.StatusCode, body, err)
			return
		}
		l.answered.Add(1)
		if resp.Close {
			return
		}
		l.pause(time.Millisecond)
	}
}

// pause leaves the machine to others for a moment.
func (l *Load) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-l.ctx.Done():
	}
}

func (l *Load) fail(format string, args ...any) {
	if l.failed.Add(1) <= reported {
		l.tb.Errorf(format, args...)
	}
}

// Stopping tells that the server is about to stop: refused connections are no
// failure from here on.
func (l *Load) Stopping() { l.stopping.Store(true) }

// End stops the clients and waits for them. A request under way is finished.
func (l *Load) End() {
	l.stop()
	l.wait.Wait()
}

// Sent is the number of requests of which a byte was written.
func (l *Load) Sent() int64 { return l.sent.Load() }

// Answered is the number of requests with the right answer.
func (l *Load) Answered() int64 { return l.answered.Load() }

// Failed is the number of requests and connections that have failed; the first
// ones have been reported to the test.
func (l *Load) Failed() int64 { return l.failed.Load() }

// Connections is the number of connections opened.
func (l *Load) Connections() int64 { return l.connections.Load() }
