package proxy

import (
	"bufio"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gateway/internal/origin"
)

// failing reads each request, counts it in, and then fails.
func failing(count *atomic.Int64, fail func(*origin.Conn)) origin.Script {
	return func(c *origin.Conn) {
		c.Read()
		count.Add(1)
		fail(c)
	}
}

func TestRequestsMoveOnFromAServerThatFails(t *testing.T) {
	var count atomic.Int64
	for _, c := range []struct {
		result string
		server string
		post   bool // also what can't be sent twice, since nothing was sent
	}{
		{"connect_refused", refusing(t), true},
		{"reset", origin.Start(t, failing(&count, (*origin.Conn).Reset)).Address, false},
		{"reset", origin.Start(t, failing(&count, (*origin.Conn).Cut)).Address, false},
		{"reset", origin.Start(t, failing(&count, func(c *origin.Conn) { c.Write("HTTP/1.1 200 OK\r\nX: "); c.Cut() })).Address, false},
		{"reset", origin.Start(t, failing(&count, func(c *origin.Conn) { c.Write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"); c.Cut() })).Address, false},
		{"timed_out", origin.Start(t, failing(&count, (*origin.Conn).Stall)).Address, false},
	} {
		good := record(t, origin.OK("good"))
		r := begin(t, app(c.server, good.Address)+"first_byte_timeout = \"100ms\"\neject = false\n")
		retried := func() float64 { return r.metric("gateway_retries_total", `result="`+c.result+`"`) }
		for i := 0; retried() < 1; i++ { // until the failing server was the first
			if a := r.get("/"); a.StatusCode != 200 || a.body != "good" {
				t.Fatalf("%s: GET %d is answered %d %s", c.result, i, a.StatusCode, a.body)
			}
		}
		for i := 0; retried() < 2; i++ {
			if a := r.do("PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello"); a.body != "good" || good.last(t).Body != "hello" {
				t.Fatalf("%s: PUT %d is answered %d %s, body %q", c.result, i, a.StatusCode, a.body, good.last(t).Body)
			}
		}
		count.Store(0)
		var statuses []int
		for range 2 {
			a := r.do("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello")
			statuses = append(statuses, a.StatusCode)
		}
		slices.Sort(statuses)
		switch {
		case c.post && !slices.Equal(statuses, []int{200, 200}):
			t.Errorf("%s: POST is answered %v though nothing was sent", c.result, statuses)
		case !c.post && (statuses[0] != 200 || statuses[1] < 502 || count.Load() != 1):
			t.Errorf("%s: POST is answered %v, the failing server got %d", c.result, statuses, count.Load())
		}
	}
}

func TestPostIsSentOnceAtMost(t *testing.T) {
	var count atomic.Int64
	var servers []string
	for range 3 {
		servers = append(servers, origin.Start(t, failing(&count, (*origin.Conn).Reset)).Address)
	}
	r := begin(t, app(servers...)+"retry = { attempts = 3 }\n")
	for _, body := range []string{"Content-Length: 0\r\n\r\n", "Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"} {
		count.Store(0)
		r.do("POST / HTTP/1.1\r\nHost: test\r\n"+body).refused(t, 502, "origin_reset")
		if n := count.Load(); n != 1 {
			t.Errorf("%q was sent %d times", body, n)
		}
	}
}

func TestStreamedBodyIsNotRepeated(t *testing.T) {
	var count atomic.Int64
	bad := failing(&count, (*origin.Conn).Reset)
	r := begin(t, app(origin.Start(t, bad).Address, origin.Start(t, bad).Address), "[[route]]\nbuffer_body = \"4B\"\nupstream = \"app\"\n")
	r.do("PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello").refused(t, 502, "origin_reset")
	if n := count.Load(); n != 1 {
		t.Errorf("the request was sent %d times", n)
	}
	// A body of which nothing was read is still there.
	good := record(t, origin.OK("good"))
	r = begin(t, app(refusing(t), good.Address), "[[route]]\nbuffer_body = \"4B\"\nupstream = \"app\"\n")
	for range 2 {
		if a := r.do("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello"); a.body != "good" || good.last(t).Body != "hello" {
			t.Errorf("%d %s, body %q", a.StatusCode, a.body, good.last(t).Body)
		}
	}
}

// A body that was being waited for when the attempt failed can't be read from
// its beginning any more: the client learns of the failure, not of a bad body.
func TestFailureWhileTheBodyIsWaitedFor(t *testing.T) {
	o := func() string {
		return origin.Start(t, func(c *origin.Conn) {
			c.ReadHead()
			c.Sleep(50 * time.Millisecond)
			c.Reset()
		}).Address
	}
	r := begin(t, app(o(), o()), "[[route]]\nbuffer_body = \"0B\"\nupstream = \"app\"\n")
	a := r.do("PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\n")
	a.refused(t, 502, "origin_reset")
	if !a.Close {
		t.Error("the connection stays although the body may still come")
	}
}

func TestAttemptsGoToDifferentServersAndHaveALimit(t *testing.T) {
	var counts [4]atomic.Int64
	var servers []string
	for i := range counts {
		servers = append(servers, origin.Start(t, failing(&counts[i], (*origin.Conn).Reset)).Address)
	}
	for attempts := 1; attempts <= 5; attempts++ {
		r := begin(t, app(servers...)+fmt.Sprintf("retry = { attempts = %d }\n", attempts))
		for i := range counts {
			counts[i].Store(0)
		}
		r.get("/").refused(t, 502, "origin_reset")
		want, sum := int64(min(attempts, len(servers))), int64(0)
		for i := range counts {
			n := counts[i].Load()
			if sum += n; n > 1 {
				t.Errorf("a server was tried %d times", n)
			}
		}
		if sum != want {
			t.Errorf("%d attempts instead of %d", sum, want)
		}
		r.counts(float64(want-1), "gateway_retries_total")
	}
}

func TestBudgetBoundsRepeatedAttempts(t *testing.T) {
	for budget, allowed := range map[string]bool{"0%": false, "100%": true} {
		var count atomic.Int64
		bad, good := origin.Start(t, failing(&count, (*origin.Conn).Reset)), record(t, origin.OK("good"))
		r := begin(t, app(bad.Address, good.Address)+"retry = { budget = \""+budget+"\", min_per_second = 0 }\neject = false\n")
		failed := 0.0
		for count.Load() < 3 {
			if a := r.get("/"); a.StatusCode != 200 {
				a.refused(t, 502, "origin_reset")
				failed++
			}
		}
		if allowed != (failed == 0) || !allowed && failed != 3 {
			t.Errorf("budget %s: %v requests failed", budget, failed)
		}
		r.counts(3-failed, "gateway_retries_total")
		r.counts(failed, "gateway_retry_budget_exhausted_total")
	}
}

func TestClosedIdleConnectionsNeverSurface(t *testing.T) {
	o := record(t, origin.OK("hello"))
	r := begin(t, app(o.Address)+"retry = { attempts = 1 }\n")
	c := r.dial()
	for i := range 100 {
		for _, method := range []string{"GET", "POST"} {
			c.send(method + " / HTTP/1.1\r\nHost: test\r\n\r\n")
			if a := c.receive(method); a.StatusCode != 200 {
				t.Fatalf("%s %d: %d %s", method, i, a.StatusCode, a.body)
			}
		}
		r.until("the connection is idle", func() bool { return o.CloseIdle() > 0 })
		if i%2 == 0 {
			time.Sleep(time.Millisecond) // the FIN has arrived, or is on its way
		}
	}
}

// aged is how long a connection has to be idle for its end to say nothing about
// the server.
const aged = 1100 * time.Millisecond

// The origin closes when the next request comes: what no look can foresee.
func TestStaleConnectionIsReplacedForFree(t *testing.T) {
	const repetitions = 10 // each with an origin of its own, so that their connections grow old at the same time
	var count atomic.Int64
	var parts []string
	for i := range repetitions {
		o := origin.Start(t, func(c *origin.Conn) {
			c.Read()
			c.Write(origin.OK("hello"))
			c.Read()
			count.Add(1)
		})
		parts = append(parts, fmt.Sprintf("[upstream.app%d]\nservers = [%q]\nretry = { attempts = 1, budget = \"0%%\", min_per_second = 0 }\n"+
			"[[route]]\npath = \"/%d\"\nupstream = \"app%d\"\n", i, o.Address, i, i))
	}
	r := begin(t, parts...)
	get := func() {
		t.Helper()
		for i := range repetitions {
			if a := r.get(fmt.Sprintf("/%d", i)); a.StatusCode != 200 {
				t.Fatalf("GET %d: %d %s", i, a.StatusCode, a.body)
			}
		}
	}
	get() // leaves connections behind
	time.Sleep(aged)
	get()
	r.counts(repetitions, "gateway_retries_total", `result="stale"`)
	if count.Load() != repetitions {
		t.Errorf("%d stale connections", count.Load())
	}
	// What may have been carried out is not repeated.
	r.do("POST /0 HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nhi").refused(t, 502, "origin_reset")
	if count.Load() != repetitions+1 {
		t.Errorf("the POST was sent %d times", count.Load()-repetitions)
	}
}

// A connection that was in use a moment ago does not end by itself: the server
// answers for it, and a repetition is one like any other.
func TestEndOfAConnectionInUseCounts(t *testing.T) {
	script := func(c *origin.Conn) {
		c.Read()
		c.Write(origin.OK("hello"))
		c.Read()
	}
	ask := func(r *running, want int) {
		t.Helper()
		if a := r.get("/"); a.StatusCode != want {
			t.Errorf("%d %s", a.StatusCode, a.body)
		}
	}
	// There is nobody else: the same server is asked over a new connection.
	r := begin(t, app(origin.Start(t, script).Address))
	for range 5 {
		ask(r, 200)
	}
	r.counts(4, "gateway_retries_total", `result="reset"`)
	r.counts(4, "gateway_upstream_requests_total", `result="reset"`)
	r.counts(0, "gateway_retries_total", `result="stale"`)

	r = begin(t, app(origin.Start(t, script).Address)+"retry = { budget = \"0%\", min_per_second = 0 }\n")
	ask(r, 200)
	ask(r, 502)
	r.counts(1, "gateway_retry_budget_exhausted_total")

	r = begin(t, app(origin.Start(t, script).Address)+"retry = { attempts = 1 }\n")
	ask(r, 200)
	ask(r, 502)

	// Somebody else is asked first.
	r = begin(t, app(origin.Start(t, script).Address, record(t, origin.OK("good")).Address)+"eject = false\n")
	for range 8 {
		ask(r, 200)
	}
	r.counts(2, "gateway_retries_total", `result="reset"`)
}

// A server that dies closes its connections and then refuses new ones: finding
// out must not use up the attempts.
func TestStaleConnectionDoesNotCountAsAnAttempt(t *testing.T) {
	dying, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	wait.Go(func() {
		c, err := dying.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		in := bufio.NewReader(c)
		request := func() {
			for line := ""; line != "\r\n"; {
				if line, err = in.ReadString('\n'); err != nil {
					return
				}
			}
		}
		request()
		fmt.Fprint(c, origin.OK("dying"))
		dying.Close()
		request()
	})
	defer wait.Wait()
	defer dying.Close()
	good := record(t, origin.OK("good"))
	r := begin(t, app(dying.Addr().String(), good.Address))
	got := []string{r.get("/").body, r.get("/").body}
	time.Sleep(aged)
	got = append(got, r.get("/").body)
	slices.Sort(got[:2])
	if want := []string{"dying", "good", "good"}; !slices.Equal(got, want) {
		t.Errorf("the answers are %q, want %q", got, want)
	}
	r.until("the dying server was asked again", func() bool { r.get("/"); return r.metric("gateway_retries_total", `result="stale"`) > 0 })
}

func TestNoServerIs503(t *testing.T) {
	sick := record(t, "HTTP/1.1 500 Sick\r\nContent-Length: 0\r\n\r\n")
	r := begin(t, app(sick.Address)+"health = { interval = \"10ms\", fails = 1 }\n")
	r.until("the server is found sick", func() bool { return r.metric("gateway_upstream_up") == 0 })
	a := r.get("/")
	a.refused(t, 503, "no_server")
	if a.Header.Get("Retry-After") == "" || a.Header.Get("Proxy-Status") != "gateway; error=destination_unavailable" {
		t.Errorf("%v", a.Header)
	}
	r.counts(0, "gateway_upstream_requests_total")
	r.endedFor("no_server", 1)
}

func TestFullServersAre503(t *testing.T) {
	asked, released := make(chan struct{}), make(chan struct{})
	o := origin.Start(t, func(c *origin.Conn) {
		c.Read()
		asked <- struct{}{}
		c.Wait(released)
		c.Write(origin.OK("hello"))
	})
	r := begin(t, app(o.Address)+"max_connections = 1\n")
	c := r.dial()
	c.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
	within(t, "the origin is asked", asked)
	a := r.get("/")
	a.refused(t, 503, "servers_full")
	if a.Header.Get("Retry-After") == "" || a.Header.Get("Proxy-Status") != "gateway; error=connection_limit_reached" {
		t.Errorf("%v", a.Header)
	}
	close(released)
	if a := c.receive("GET"); a.body != "hello" {
		t.Errorf("%d %q", a.StatusCode, a.body)
	}
}

func TestRefusedConnectionIs502(t *testing.T) {
	r := begin(t, app(refusing(t)))
	a := r.get("/")
	a.refused(t, 502, "connect_failed")
	if a.Header.Get("Proxy-Status") != "gateway; error=connection_refused" || a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%v", a.Header)
	}
	r.endedFor("connect_failed", 1)
	r.counts(1, "gateway_upstream_requests_total", `result="connect_refused"`)
	r.counts(0, "gateway_retries_total") // there was nobody else
	if a := r.do("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n"); a.StatusCode != 502 || a.body != "" || a.ContentLength <= 0 {
		t.Errorf("HEAD: %d %q, length %d", a.StatusCode, a.body, a.ContentLength)
	}
}

// Running out of descriptors is our trouble: the client gets 503, the server is
// not blamed, and nothing is tried again.
func TestLackOfDescriptorsBlamesNoServer(t *testing.T) {
	o := origin.Start(t, func(c *origin.Conn) {
		c.Read()
		c.Write(origin.OK("hello")) // and closes: each request needs a new connection
	})
	r := begin(t, app(o.Address))
	c := r.dial()
	ask := func() answer {
		c.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
		return c.receive("GET")
	}
	if a := ask(); a.body != "hello" {
		t.Fatalf("%d %q", a.StatusCode, a.body)
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := syscall.Rlimit{Cur: 3, Max: limit.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	restore := sync.OnceFunc(func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) })
	defer restore()
	a := ask()
	restore()
	a.refused(t, 503, "no_resources")
	if a.Header.Get("Retry-After") == "" || a.Header.Get("Proxy-Status") != "gateway; error=proxy_internal_error" {
		t.Errorf("%v", a.Header)
	}
	r.counts(1, "gateway_upstream_requests_total", `result="no_resources"`)
	r.counts(1, "gateway_upstream_up")
	if a := ask(); a.body != "hello" {
		t.Errorf("afterwards: %d %q", a.StatusCode, strings.TrimSpace(a.body))
	}
}
