package proxy

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gateway/internal/origin"
)

// hedged is a route to the upstream "app" with this delay.
func hedged(delay string) string {
	return "[[route]]\nbuffer_body = \"8B\"\nupstream = \"app\"\nhedge = \"" + delay + "\"\n"
}

// after is an upstream "app" whose first attempts go to one server, and whose
// hedges go to another one.
func after(first, hedge string) string {
	return "[upstream.app]\nservers = [\"" + first + "\", { address = \"" + hedge + "\", backup = true }]\n"
}

// hedges waits until so many hedges have been used, and have not.
func (r *running) hedges(won, lost float64) {
	r.t.Helper()
	r.counts(won, "gateway_hedges_total", `result="won"`)
	r.counts(lost, "gateway_hedges_total", `result="lost"`)
	r.counts(0, "gateway_upstream_in_flight")
	r.counts(0, "gateway_http_in_flight")
}

// silent is an origin that reads requests and answers none; gone gives a value
// for each connection that was ended by the other side.
func silent(t *testing.T) (o *origin.Origin, gone chan struct{}) {
	gone = make(chan struct{}, 1000)
	return origin.Start(t, func(c *origin.Conn) {
		c.Read()
		c.AwaitClose()
		gone <- struct{}{}
	}), gone
}

func TestSlowServerIsHedged(t *testing.T) {
	slow, gone := silent(t)
	good := record(t, origin.OK("good"))
	r := begin(t, after(slow.Address, good.Address), hedged("10ms"))
	for _, request := range []string{"GET / HTTP/1.1\r\nHost: test\r\n\r\n", "PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello"} {
		if a := r.do(request); a.StatusCode != 200 || a.body != "good" {
			t.Fatalf("%d %q", a.StatusCode, a.body)
		}
		within(t, "the slow attempt is cancelled", gone)
	}
	if last := good.last(t); last.Method != "PUT" || last.Body != "hello" {
		t.Errorf("the hedge is %q %q", last.Head, last.Body)
	}
	r.hedges(2, 0)
	r.counts(2, "gateway_upstream_requests_total", `result="cancelled"`)
	r.counts(0, "gateway_retries_total")
}

func TestHedgeLosesAgainstTheFirstAttempt(t *testing.T) {
	hedge, gone := silent(t)
	first := origin.Start(t, func(c *origin.Conn) {
		for {
			before := hedge.Requests()
			c.Read()
			for hedge.Requests() == before {
				c.Sleep(time.Millisecond)
			}
			c.Write(origin.Chunked("first, ", strings.Repeat("x", 100_000)))
		}
	})
	r := begin(t, after(first.Address, hedge.Address), hedged("10ms"))
	for range 3 {
		if a := r.get("/"); a.StatusCode != 200 || len(a.body) != 100_007 || a.err != nil {
			t.Fatalf("%d %.20q %v", a.StatusCode, a.body, a.err)
		}
		within(t, "the hedge is cancelled", gone)
	}
	r.hedges(0, 3)
}

// Whatever becomes of one of the two, the other one's response is used.
func TestHedgeStandsInForAnAttemptThatFails(t *testing.T) {
	const busy = "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"
	for _, c := range []struct {
		name      string
		fail      func(*origin.Conn)
		failing   int // the attempt that fails before the other one is answered: 0 the first one, 1 the hedge
		won, lost float64
	}{
		{"the first attempt is reset", (*origin.Conn).Reset, 0, 1, 0},
		{"the first attempt is refused", func(c *origin.Conn) { c.Write(busy) }, 0, 1, 0},
		{"the hedge is reset", (*origin.Conn).Reset, 1, 0, 1},
		{"the hedge is refused", func(c *origin.Conn) { c.Write(busy) }, 1, 0, 1},
	} {
		var number atomic.Int64
		both, failed := make(chan struct{}), make(chan struct{})
		script := func(n int) string {
			return origin.Start(t, func(o *origin.Conn) {
				o.Read()
				if number.Add(1) == 2 {
					close(both)
				}
				o.Wait(both)
				if n == c.failing {
					defer close(failed)
					c.fail(o)
					return
				}
				o.Wait(failed)
				o.Write(origin.OK("good"))
				o.AwaitClose()
			}).Address
		}
		r := begin(t, after(script(0), script(1))+"retry = { on = [\"reset\", \"503\"] }\n", hedged("10ms"))
		if a := r.get("/"); a.StatusCode != 200 || a.body != "good" {
			t.Errorf("%s: %d %q", c.name, a.StatusCode, a.body)
		}
		r.hedges(c.won, c.lost)
		if n := number.Load(); n != 2 {
			t.Errorf("%s: %d attempts", c.name, n)
		}
	}
}

func TestBothAttemptsFail(t *testing.T) {
	for attempts := 2; attempts <= 4; attempts++ {
		var number atomic.Int64
		both := make(chan struct{})
		script := func(c *origin.Conn) {
			c.Read()
			if number.Add(1) == 2 {
				close(both)
			}
			c.Wait(both)
			c.Reset()
		}
		var addresses []string
		for range 4 {
			addresses = append(addresses, origin.Start(t, script).Address)
		}
		r := begin(t, app(addresses...)+fmt.Sprintf("retry = { attempts = %d, backoff = \"0s\" }\n", attempts), hedged("5ms"))
		r.get("/").refused(t, 502, "origin_reset")
		if n := number.Load(); n != int64(attempts) { // of different servers, the hedge included
			t.Errorf("%d attempts instead of %d", n, attempts)
		}
		r.hedges(0, 1)
	}
}

func TestWhatIsNotHedged(t *testing.T) {
	o := func() string {
		return origin.Start(t, func(c *origin.Conn) {
			for {
				c.Read()
				c.Sleep(60 * time.Millisecond)
				c.Write(origin.OK("slow"))
			}
		}).Address
	}
	const get = "GET / HTTP/1.1\r\nHost: test\r\n\r\n"
	for _, c := range []struct{ what, options, route, request string }{
		{"not idempotent", "", hedged("1ms"), "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n"},
		{"streamed", "", hedged("1ms"), "PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\n123456789"},
		{"fast enough", "", hedged("10s"), get},
		{"off", "", hedged("off"), get},
		{"percentile not known", "", hedged("p95"), get},
		{"beyond the budget", "retry = { budget = \"0%\", min_per_second = 0 }\n", hedged("1ms"), get},
		{"nobody else", "max_connections = 1\n", hedged("1ms"), get},
	} {
		servers := []string{o(), o()}
		if c.what == "nobody else" {
			servers = servers[:1]
		}
		r := begin(t, app(servers...)+c.options, c.route)
		if a := r.do(c.request); a.body != "slow" {
			t.Errorf("%s: %d %q", c.what, a.StatusCode, a.body)
		}
		r.hedges(0, 0)
		r.counts(1, "gateway_upstream_requests_total", `result="ok"`)
		if c.options != "" && c.what == "beyond the budget" {
			r.counts(1, "gateway_retry_budget_exhausted_total")
		}
	}
}

func TestClientThatLeavesEndsBothAttempts(t *testing.T) {
	a, goneA := silent(t)
	b, goneB := silent(t)
	r := begin(t, app(a.Address, b.Address), hedged("1ms"))
	c := r.dial()
	c.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
	r.until("both are asked", func() bool { return a.Requests() == 1 && b.Requests() == 1 })
	c.Close()
	within(t, "one attempt is cancelled", goneA)
	within(t, "the other attempt is cancelled", goneB)
	r.endedFor("client_left", 1)
	r.hedges(0, 1)
	r.counts(2, "gateway_upstream_requests_total", `result="cancelled"`)
}

// Attempts and hedges end at about the same time, in all orders: every answer
// is whole and that of its request.
func TestHedgesRace(t *testing.T) {
	script := func(c *origin.Conn) {
		for n := 0; ; n++ {
			q := c.Read()
			c.Sleep(time.Duration(len(q.Target)*n%5) * 500 * time.Microsecond)
			switch n % 6 {
			case 1:
				c.Write(origin.Chunked(q.Target, strings.Repeat("x", 40_000), q.Target))
			case 3:
				c.Write("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
			case 5:
				c.Reset()
			default:
				c.Write(origin.OK(q.Target))
			}
		}
	}
	var addresses []string
	for range 4 {
		addresses = append(addresses, origin.Start(t, script).Address)
	}
	r := begin(t, app(addresses...)+"balance = \"p2c\"\neject = false\nretry = { attempts = 8, budget = \"100%\", on = [\"reset\", \"503\"], min_per_second = 10000, backoff = \"0s\" }\n", hedged("1ms"))
	const clients, each = 8, 150
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			c := r.dial()
			for n := range each {
				c.SetDeadline(time.Now().Add(patience))
				target := fmt.Sprintf("/%d-%d", i, n)
				c.send("GET " + target + " HTTP/1.1\r\nHost: test\r\n\r\n")
				if a := c.receive("GET"); a.err != nil || a.StatusCode == 200 && a.body != target && a.body != target+strings.Repeat("x", 40_000)+target {
					t.Errorf("%s: %d %.30q %v", target, a.StatusCode, a.body, a.err)
				}
			}
		})
	}
	all.Wait()
	r.counts(0, "gateway_upstream_in_flight")
	r.counts(clients*each, "gateway_http_requests_total")
	if r.metric("gateway_hedges_total", `result="won"`) == 0 {
		t.Error("no hedge was used")
	}
	r.counts(0, "gateway_panics_total")
}

// The delay is learned from the pool's answers.
func TestHedgeAfterAPercentile(t *testing.T) {
	var stuck atomic.Bool
	first := origin.Start(t, func(c *origin.Conn) {
		for {
			c.Read()
			if stuck.Load() {
				c.AwaitClose()
				return
			}
			c.Write(origin.OK("good"))
		}
	})
	r := begin(t, after(first.Address, record(t, origin.OK("good")).Address), hedged("p95"))
	c := r.dial()
	ask := func() {
		t.Helper()
		c.SetDeadline(time.Now().Add(patience))
		c.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
		if a := c.receive("GET"); a.body != "good" {
			t.Fatalf("%d %q", a.StatusCode, a.body)
		}
	}
	pool := r.snapshot.Load().pools["app"]
	hedging := r.snapshot.Load().routes[0].target.hedging
	r.until("the percentile is known", func() bool { ask(); return pool.HedgeAfter(hedging) > 0 })
	won, _ := pool.Hedges()
	stuck.Store(true)
	ask()
	r.until("the hedge is used", func() bool { now, _ := pool.Hedges(); return now > won })
}

func TestSessionsAreNotHedged(t *testing.T) {
	var slow atomic.Bool
	script := func(c *origin.Conn) {
		for {
			c.Read()
			if slow.Load() {
				c.Sleep(50 * time.Millisecond)
			}
			c.Write(origin.OK("good"))
		}
	}
	r := begin(t, app(origin.Start(t, script).Address, origin.Start(t, script).Address)+"sticky = true\n", hedged("1ms"))
	set, _, _ := strings.Cut(r.get("/").Header.Get("Set-Cookie"), ";")
	won, lost := r.metric("gateway_hedges_total", "won"), r.metric("gateway_hedges_total", "lost")
	slow.Store(true)
	if a := r.get("/", "Cookie: "+set); a.body != "good" || a.Header.Get("Set-Cookie") != "" {
		t.Errorf("%d %q %v", a.StatusCode, a.body, a.Header)
	}
	r.hedges(won, lost)
}
