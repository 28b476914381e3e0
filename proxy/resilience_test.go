package proxy

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gateway/internal/load"
	"gateway/internal/origin"
)

// repeating starts an origin that answers with the target that was asked for, after
// what each may do to the connection before.
func repeating(t *testing.T, each func(c *origin.Conn, q *origin.Request)) *origin.Origin {
	t.Helper()
	return origin.Start(t, func(c *origin.Conn) {
		for {
			q := c.Read()
			if each != nil {
				each(c, q)
			}
			c.Write(origin.OK(q.Target))
		}
	})
}

// spared ends the load and fails the test if a client saw an error.
func spared(t *testing.T, l *load.Load) {
	t.Helper()
	l.Stopping()
	l.End()
	if l.Failed() != 0 {
		t.Errorf("%d of %d requests failed", l.Failed(), l.Answered())
	}
}

func answered(r *running, l *load.Load, more int64) {
	r.t.Helper()
	from := l.Answered()
	r.until("requests are answered", func() bool { return l.Answered() >= from+more })
}

func TestKillingAnOriginIsNotSeenByClients(t *testing.T) {
	var origins []*origin.Origin
	var addresses []string
	for range 3 {
		o := repeating(t, nil)
		origins, addresses = append(origins, o), append(addresses, o.Address)
	}
	r := begin(t, app(addresses...))
	l := load.Start(t)
	l.Add(load.Clients{Number: 8, Address: r.address})
	answered(r, l, 500)
	origins[1].Close()
	answered(r, l, 1000)
	r.until("the dead server is ejected", func() bool {
		return r.metric("gateway_upstream_ejections_total", addresses[1], `cause="consecutive"`) > 0
	})
	r.counts(0, "gateway_upstream_up", addresses[1])
	spared(t, l)
}

func TestFrozenOriginCostsItsTimeoutAndFewAttempts(t *testing.T) {
	var frozen atomic.Bool
	var origins []*origin.Origin
	for i := range 3 {
		origins = append(origins, repeating(t, func(c *origin.Conn, _ *origin.Request) {
			if i == 1 && frozen.Load() {
				c.Stall()
			}
		}))
	}
	r := begin(t, app(origins[0].Address, origins[1].Address, origins[2].Address),
		"first_byte_timeout = \"1s\"\nretry = { min_per_second = 0 }\n")
	l := load.Start(t)
	l.Add(load.Clients{Number: 8, Address: r.address})
	answered(r, l, 500)
	frozen.Store(true)
	r.until("the frozen server is ejected", func() bool { return r.metric("gateway_upstream_ejections_total") > 0 })
	answered(r, l, 500)
	spared(t, l)
	attempts := 0
	for _, o := range origins {
		attempts += o.Requests()
	}
	if attempts > int(l.Answered())*12/10 {
		t.Errorf("%d attempts for %d requests", attempts, l.Answered())
	}
}

func TestOriginThatResetsIsEjectedAndReturns(t *testing.T) {
	t.Run("within the head", func(t *testing.T) { resets(t, "HTTP/1.1 200 OK\r\nX-Half: ") })
	t.Run("before a byte, of connections in use", func(t *testing.T) { resets(t, "") })
}

// resets is an origin that ends half of its responses after this.
func resets(t *testing.T, half string) {
	var sick atomic.Bool
	var count, ejectedAfter atomic.Int64
	bad := repeating(t, func(c *origin.Conn, _ *origin.Request) {
		if n := count.Add(1); sick.Load() && n%2 == 0 {
			c.Write(half)
			c.Reset()
		}
	})
	r := begin(t, app(bad.Address, repeating(t, nil).Address, repeating(t, nil).Address),
		"eject = { time = \"300ms\" }\nslow_start = \"300ms\"\n")
	l := load.Start(t)
	l.Add(load.Clients{Number: 4, Address: r.address})
	answered(r, l, 500) // a busy server is not kept for what it did before
	count.Store(0)
	sick.Store(true)
	r.until("the sick server is ejected", func() bool {
		if r.metric("gateway_upstream_ejections_total", bad.Address) == 0 {
			return false
		}
		ejectedAfter.CompareAndSwap(0, count.Load())
		return true
	})
	sick.Store(false)
	if n := ejectedAfter.Load(); n > 60 {
		t.Errorf("ejected after %d requests", n)
	}
	r.until("the server is back", func() bool { return r.metric("gateway_upstream_up", bad.Address) == 1 })
	from := bad.Requests()
	r.until("the server gets requests", func() bool { return bad.Requests() > from+20 })
	spared(t, l)
}

// Whatever happens to connections, a POST reaches the origins once at most, and
// who is told 200 has been served.
func TestPostsOverFlappingOriginsAreNeverDoubled(t *testing.T) {
	const posts, clients = 10_000, 8
	var mu sync.Mutex
	seen := map[string]int{}
	var turn atomic.Int64
	flapping := func() string {
		return origin.Start(t, func(c *origin.Conn) {
			for {
				q := c.ReadHead()
				if err := c.ReadBody(q); err != nil {
					c.Exit()
				}
				mu.Lock()
				seen[q.Body]++
				mu.Unlock()
				switch turn.Add(1) % 7 {
				case 0:
					c.Reset()
				case 2:
					c.Cut()
				case 4:
					c.Write("HTTP/1.1 200 OK\r\nContent-Le")
					c.Reset()
				case 5:
					c.Write(origin.OK(q.Body)) // and closes without a word
					c.Exit()
				}
				c.Write(origin.OK(q.Body))
			}
		}).Address
	}
	r := begin(t, app(flapping(), flapping(), refusing(t)), "eject = false\nretry = { attempts = 3, budget = \"100%\" }\n")
	var ok, bad atomic.Int64
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			c := r.dial()
			for n := range posts / clients {
				c.SetDeadline(time.Now().Add(patience))
				id := fmt.Sprintf("%d-%d", i, n)
				c.send(fmt.Sprintf("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n%s", len(id), id))
				a := c.receive("POST")
				mu.Lock()
				times := seen[id]
				mu.Unlock()
				switch {
				case a.StatusCode == 200 && a.body == id && times == 1:
					ok.Add(1)
				case a.StatusCode == 502 && times <= 1:
					bad.Add(1)
				default:
					t.Errorf("%s is answered %d %q, origins have seen it %d times", id, a.StatusCode, a.body, times)
				}
				if a.Close {
					t.Errorf("the connection ends with %d", a.StatusCode)
					return
				}
			}
		})
	}
	all.Wait()
	for id, times := range seen {
		if times != 1 {
			t.Errorf("%s was served %d times", id, times)
		}
	}
	if ok.Load()+bad.Load() != posts || ok.Load() == 0 || bad.Load() == 0 {
		t.Errorf("%d were served and %d failed", ok.Load(), bad.Load())
	}
}

func TestAllServersDownIs503UntilOneIsBack(t *testing.T) {
	a, b := repeating(t, nil), repeating(t, nil)
	r := begin(t, app(a.Address, b.Address)+"health = { interval = \"50ms\", fails = 1, passes = 1 }\n")
	r.until("the servers are up", func() bool { return r.get("/").StatusCode == 200 })
	a.Close()
	b.Close()
	r.until("the servers are down", func() bool { return r.metric("gateway_upstream_up") == 0 })
	before := r.metric("gateway_upstream_requests_total")
	for range 20 {
		a := r.get("/")
		a.refused(t, 503, "no_server")
		if a.Header.Get("Retry-After") == "" {
			t.Fatal("no Retry-After")
		}
	}
	r.counts(before, "gateway_upstream_requests_total")
	origin.StartAt(t, "tcp", b.Address, func(c *origin.Conn) {
		for {
			c.Read()
			c.Write(origin.OK("back"))
		}
	})
	r.until("a server is back", func() bool { return r.get("/").StatusCode == 200 })
}

func TestRetryStormIsBounded(t *testing.T) {
	requests, attempts, failed, floor := storm(t)
	t.Logf("%d attempts for %d requests, of which %d failed; the floor is %d", attempts, requests, failed, floor)
	if attempts > requests*12/10+floor || attempts < requests*11/10 {
		t.Errorf("%d attempts for %d requests and a floor of %d", attempts, requests, floor)
	}
}

// storm asks origins that all fail every second request. floor is the number of
// repeated attempts that are allowed in any case.
func storm(t *testing.T) (requests, attempts, failed, floor int) {
	const perSecond, window = 1, 10 // the budget looks at so many seconds
	requests = 1000
	var origins []*origin.Origin
	var addresses []string
	for range 3 {
		var n atomic.Int64
		o := repeating(t, func(c *origin.Conn, _ *origin.Request) {
			switch n.Add(1) % 4 {
			case 1:
				c.Write("HTTP/1.1 200 OK\r\nX-Half: ")
				c.Reset()
			case 3:
				c.Reset() // most often of a connection that was used before
			}
		})
		origins, addresses = append(origins, o), append(addresses, o.Address)
	}
	r := begin(t, app(addresses...)+"eject = false\nretry = { attempts = 3, min_per_second = "+strconv.Itoa(perSecond)+" }\n")
	c := r.dial()
	c.SetDeadline(time.Now().Add(time.Minute))
	begun := time.Now()
	for range requests {
		c.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
		if a := c.receive("GET"); a.StatusCode != 200 {
			failed++
		}
	}
	for _, o := range origins {
		attempts += o.Requests()
	}
	if exhausted := r.metric("gateway_retry_budget_exhausted_total"); failed == 0 || exhausted < float64(failed)/2 {
		t.Errorf("%d requests failed, the budget was exhausted %v times", failed, exhausted)
	}
	return requests, attempts, failed, perSecond * (window + int(time.Since(begun).Seconds()) + 1)
}

func TestStatusesAreRepeatedOnRequest(t *testing.T) {
	const busy = "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n%s\r\nbusy"
	good := record(t, origin.OK("good"))
	f := func(fields, method, retry string, want ...string) {
		t.Helper()
		bad := record(t, fmt.Sprintf(busy, fields))
		r := begin(t, app(bad.Address, good.Address)+"eject = false\nretry = { "+retry+" }\n")
		var got []string
		for range 2 {
			a := r.do(method + " / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n")
			got = append(got, fmt.Sprintf("%d %s", a.StatusCode, a.body))
		}
		if got[0] != "200 good" { // whose turn it was
			got[0], got[1] = got[1], got[0]
		}
		if strings.Join(got, "|") != strings.Join(want, "|") {
			t.Errorf("%q %s %s: %q", fields, method, retry, got)
		}
		retries := 0.0
		if want[1] == "200 good" {
			retries = 1
		}
		r.counts(retries, "gateway_retries_total", `result="status"`)
		r.counts(0, "gateway_upstream_in_flight")
	}
	f("", "GET", `on = ["reset"]`, "200 good", "503 busy")
	f("", "GET", `on = ["reset", "503"]`, "200 good", "200 good")
	f("", "GET", `on = "502"`, "200 good", "503 busy")
	f("", "POST", `on = "503"`, "200 good", "503 busy")
	f("Retry-After: 0\r\n", "GET", `on = "503"`, "200 good", "200 good")
	f("Retry-After: 5\r\n", "GET", `on = "503"`, "200 good", "503 busy")
	f("", "GET", `on = "503", budget = "0%", min_per_second = 0`, "200 good", "503 busy")
	// Nobody else to ask: the response stands, whole or in pieces.
	for _, response := range []string{fmt.Sprintf(busy, ""), "HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbusy\r\n0\r\n\r\n"} {
		r := begin(t, app(record(t, response).Address, record(t, response).Address)+"eject = false\nretry = { on = \"503\", attempts = 4 }\n")
		if a := r.get("/"); a.StatusCode != 503 || a.body != "busy" || a.err != nil {
			t.Errorf("%d %q %v", a.StatusCode, a.body, a.err)
		}
		r.counts(2, "gateway_upstream_requests_total", `result="ok"`)
		r.counts(0, "gateway_upstream_in_flight")
	}
}

func TestEachAttemptHasItsTime(t *testing.T) {
	dripping := origin.Start(t, func(c *origin.Conn) {
		c.Read()
		c.Write("HTTP/1.1 200 OK\r\nX-Drip: ")
		for {
			c.Write(".")
			c.Sleep(10 * time.Millisecond)
		}
	})
	r := begin(t, app(dripping.Address, repeating(t, nil).Address)+"retry = { try_timeout = \"100ms\" }\n")
	for range 2 {
		if a := r.get("/"); a.body != "/" {
			t.Errorf("%d %q", a.StatusCode, a.body)
		}
	}
	r.counts(1, "gateway_retries_total", `result="timed_out"`)
	// The body may take longer.
	slow := origin.Start(t, func(c *origin.Conn) {
		c.Read()
		c.Write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na")
		c.Sleep(200 * time.Millisecond)
		c.Write("b")
	})
	r = begin(t, app(slow.Address)+"retry = { try_timeout = \"100ms\" }\n")
	if a := r.get("/"); a.body != "ab" {
		t.Errorf("%d %q", a.StatusCode, a.body)
	}
}
