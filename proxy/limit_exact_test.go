package proxy

import (
	"fmt"
	"math"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"gateway/exchange"
	"gateway/listener"
)

// timed is a gateway with a second front, whose exchanges begin when the
// test's clock says: limits decide as of then.
type timed struct {
	*running
	socket *listener.Socket
	now    atomic.Int64 // as clock.Mono
}

// Handle sets the clock of an exchange.
func (c *timed) Handle(x *exchange.Exchange) {
	x.Start = c.now.Load()
	c.Gateway.Handle(x)
}

// startTimed is start with that front.
func startTimed(t testing.TB, format string, args ...any) *timed {
	t.Helper()
	c := &timed{running: start(t, format, args...)}
	c.now.Store(int64(time.Hour))
	front := listener.New(c, c.running.Gateway.log)
	front.Apply(c.snapshot.Load().config.Client, 0, nil)
	t.Cleanup(front.Close)
	address, err := listener.ParseAddress("127.0.0.1:0")
	if err == nil {
		c.socket, err = front.Bind(address, false)
	}
	if err != nil {
		t.Fatal(err)
	}
	c.socket.Serve()
	c.address = c.socket.Addr().String()
	return c
}

// pass moves the clock.
func (c *timed) pass(d time.Duration) { c.now.Add(int64(d)) }

// TestLimitsAdmitExactlyThroughSockets counts what passes on a clock that the
// test moves: ⌊burst + rate·t⌋, whether clients wait for their answers before
// they ask again, or come when they come.
func TestLimitsAdmitExactlyThroughSockets(t *testing.T) {
	type load struct {
		rate, burst int
		span        time.Duration
	}
	loads := []load{{10, 5, 20 * time.Second}, {10, 1, 10 * time.Second}, {100, 100, 4 * time.Second}, {1000, 30, 400 * time.Millisecond}, {5000, 1, 80 * time.Millisecond}, {5000, 200, 120 * time.Millisecond}}
	text := ""
	for i, l := range loads {
		text += fmt.Sprintf("[limit.l%d]\nrate = \"%d/s\"\nburst = %d\nkey = \"header:X-Key\"\n", i, l.rate, l.burst)
	}
	for i := range loads {
		text += fmt.Sprintf("[[route]]\nhost = \"l%d.test\"\nlimit = \"l%d\"\nrespond = { status = 204 }\n", i, i)
	}
	c := startTimed(t, "%s", text)
	type asker struct {
		*client
		request string
	}
	connect := func(i int, key string) asker {
		k := c.dial()
		k.SetDeadline(time.Now().Add(12 * patience))
		return asker{k, fmt.Sprintf("GET / HTTP/1.1\r\nHost: l%d.test\r\nX-Key: %s\r\n\r\n", i, key)}
	}
	check := func(i int, loop string, admitted, asked int, span time.Duration) {
		t.Helper()
		l := loads[i]
		want := math.Floor(float64(l.burst) + float64(l.rate)*span.Seconds() + 1e-9)
		t.Logf("%d/s burst %d, %s loop: %d of %d admitted in %v, want %.0f", l.rate, l.burst, loop, admitted, asked, span, want)
		if math.Abs(float64(admitted)-want) > 1 {
			t.Errorf("%d/s burst %d, %s loop: %d of %d admitted in %v, want %.0f", l.rate, l.burst, loop, admitted, asked, span, want)
		}
	}
	for i, l := range loads {
		token := time.Second / time.Duration(l.rate)
		step := token * 2 / 5
		if l.burst == 1 { // a bucket that holds one token is full when it comes
			step = token / 2
		}
		k := connect(i, "closed")
		began, admitted, asked := c.now.Load(), 0, 0
		denied := answer{}
		for end := began + int64(l.span); ; c.pass(step) {
			k.send(k.request)
			a := k.receive("GET")
			asked++
			switch a.StatusCode {
			case 204:
				admitted++
			case 429:
				denied = a
			default:
				t.Fatalf("status %d", a.StatusCode)
			}
			if c.now.Load() >= end {
				break
			}
		}
		check(i, "closed", admitted, asked, time.Duration(c.now.Load()-began))
		if denied.Response == nil {
			t.Fatal("nothing was denied")
		}
		// Who waits as it is told is let in.
		for {
			k.send(k.request)
			if a := k.receive("GET"); a.StatusCode == 429 {
				after, err := strconv.Atoi(a.Header.Get("Retry-After"))
				if err != nil {
					t.Fatal(err)
				}
				c.pass(time.Duration(after) * time.Second)
				break
			}
		}
		k.send(k.request)
		if a := k.receive("GET"); a.StatusCode != 204 {
			t.Errorf("%d/s: status %d after the time of Retry-After", l.rate, a.StatusCode)
		}

		// Four clients send two requests each at the same moments, in which
		// fewer tokens come than that.
		var clients []asker
		for range 4 {
			clients = append(clients, connect(i, "open"))
		}
		began, admitted, asked = c.now.Load(), 0, 0
		for end := began + int64(l.span); ; c.pass(token * 11 / 2) {
			for _, k := range clients {
				k.send(k.request + k.request)
			}
			for _, k := range clients {
				for range 2 {
					asked++
					if k.receive("GET").StatusCode == 204 {
						admitted++
					}
				}
			}
			if c.now.Load() >= end {
				break
			}
		}
		if l.burst >= 8 {
			check(i, "open", admitted, asked, time.Duration(c.now.Load()-began))
		} else if moments := asked / 8; admitted > moments*l.burst || admitted < moments*l.burst-1 {
			// A bucket smaller than what comes in between overflows.
			t.Errorf("%d/s burst %d, open loop: %d admitted at %d moments", l.rate, l.burst, admitted, moments)
		}
	}
}
