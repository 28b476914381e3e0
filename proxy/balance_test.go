package proxy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"gateway/internal/origin"
	"gateway/upstream"
)

// named starts origins that answer with their names: a, b, c, …
func named(t *testing.T, n int) (origins []*recorder, addresses []string) {
	t.Helper()
	for i := range n {
		o := record(t, origin.OK(string(rune('a'+i))))
		origins, addresses = append(origins, o), append(addresses, o.Address)
	}
	return origins, addresses
}

func TestClientsStickToTheServerThatAnsweredFirst(t *testing.T) {
	origins, addresses := named(t, 3)
	r := begin(t, app(addresses...)+"sticky = { cookie = \"srv\", max_age = \"1h\" }\n")
	ask := func(cookie string) (body, set string) {
		t.Helper()
		a := r.get("/", "Cookie: x=1; "+cookie)
		if cookies := a.Header.Values("Set-Cookie"); len(cookies) > 1 {
			t.Errorf("cookies %q", cookies)
		} else if len(cookies) == 1 {
			set = cookies[0]
		}
		return a.body, set
	}
	first, set := ask("y=2")
	cookie, attributes, _ := strings.Cut(set, "; ")
	if !strings.HasPrefix(cookie, "srv=") || attributes != "Path=/; HttpOnly; SameSite=Lax; Max-Age=3600" {
		t.Fatalf("cookie %q", set)
	}
	for range 10 {
		if body, set := ask(cookie); body != first || set != "" {
			t.Fatalf("%s, then %s with cookie %q", first, body, set)
		}
	}
	if _, set := ask("srv=forged"); set == "" {
		t.Error("a forged cookie is not replaced")
	}
	origins[first[0]-'a'].Close()
	body, set := ask(cookie)
	if body == first || len(body) != 1 || !strings.HasPrefix(set, "srv=") || strings.HasPrefix(set, cookie) {
		t.Errorf("without server %s: %s, cookie %q", first, body, set)
	}
}

func TestHashSendsEqualKeysToOneServer(t *testing.T) {
	_, addresses := named(t, 4)
	for _, c := range []struct {
		key     string
		request string // with %d for the key
	}{
		{"header:X-Key", "GET / HTTP/1.1\r\nHost: test\r\nX-Key: %d\r\n\r\n"},
		{"cookie:id", "GET / HTTP/1.1\r\nHost: test\r\nCookie: a=b; id=%d\r\n\r\n"},
		{"path", "GET /%d HTTP/1.1\r\nHost: test\r\n\r\n"},
		{"query:id", "GET /?a=b&id=%d HTTP/1.1\r\nHost: test\r\n\r\n"},
		{"ip", "GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 192.0.2.%d\r\n\r\n"},
	} {
		r := begin(t, "[client]\ntrusted_proxies = [\"127.0.0.0/8\"]\n", app(addresses...)+"balance = \"hash\"\nhash_key = \""+c.key+"\"\n")
		used := map[string]bool{}
		client := r.dial()
		for key := range 30 {
			server := ""
			for range 3 {
				client.send(fmt.Sprintf(c.request, key))
				a := client.receive("GET")
				if server != "" && a.body != server {
					t.Errorf("%s: key %d goes to %s, then to %s", c.key, key, server, a.body)
				}
				server = a.body
			}
			used[server] = true
		}
		if len(used) < 3 {
			t.Errorf("%s: 30 keys go to %d of 4 servers", c.key, len(used))
		}
	}
}

// held is an origin that answers when it is told to.
func held(t *testing.T) (o *origin.Origin, asked, released chan struct{}) {
	asked, released = make(chan struct{}, 100), make(chan struct{}, 100)
	return origin.Start(t, func(c *origin.Conn) {
		for {
			q := c.Read()
			asked <- struct{}{}
			c.Wait(released)
			c.Write(origin.OK(q.Target))
		}
	}), asked, released
}

// What a disabled server works on ends well; then no connection to it is left.
// A drained one keeps its connections.
func TestDisabledServerKeepsNoConnections(t *testing.T) {
	asked := make(chan struct{}, 3)
	released := map[string]chan struct{}{"/1": make(chan struct{}), "/2": make(chan struct{}), "/3": make(chan struct{})}
	o := origin.Start(t, func(c *origin.Conn) {
		for {
			q := c.Read()
			asked <- struct{}{}
			c.Wait(released[q.Target])
			c.Write(origin.OK(q.Target))
		}
	})
	r := begin(t, app(o.Address, refusing(t))+"eject = false\nhealth = false\n")
	ask := func(path string) *client {
		t.Helper()
		c := r.dial()
		c.send("GET " + path + " HTTP/1.1\r\nHost: test\r\n\r\n")
		within(t, "the origin is asked", asked)
		return c
	}
	order := func(want upstream.Order) {
		t.Helper()
		if err := r.SetOrder("app", o.Address, want); err != nil {
			t.Fatal(err)
		}
	}
	kept := func(what string, want int) {
		t.Helper()
		r.until(what, func() bool { return o.Open() == want })
		r.counts(float64(want), "gateway_upstream_connections", o.Address, `state="idle"`)
		r.counts(0, "gateway_upstream_connections", o.Address, `state="active"`)
	}
	answer := func(c *client, path string) {
		t.Helper()
		close(released[path])
		if a := c.receive("GET"); a.body != path {
			t.Errorf("%d %q", a.StatusCode, a.body)
		}
	}
	first, second := ask("/1"), ask("/2")
	answer(first, "/1")
	order(upstream.Drained)
	r.get("/").refused(t, 502, "connect_failed") // the other server
	r.until("one connection is idle", func() bool {
		return r.metric("gateway_upstream_connections", o.Address, `state="idle"`) == 1
	})
	order(upstream.Disabled)
	r.get("/").refused(t, 502, "connect_failed")
	r.until("the idle connection is closed", func() bool { return o.Open() == 1 })
	answer(second, "/2")
	kept("no connection is left", 0)
	order(upstream.Enabled)
	answer(ask("/3"), "/3")
	kept("a connection is kept", 1)
}

func TestRequestsQueueForAServer(t *testing.T) {
	o, asked, released := held(t)
	r := begin(t, app(o.Address)+"max_connections = 1\nqueue = 2\nqueue_timeout = \"10s\"\n")
	waiting := func(n float64) {
		t.Helper()
		r.until("requests wait", func() bool { return r.metric("gateway_upstream_queue_length") == n })
	}
	var clients []*client
	for i := range 3 {
		c := r.dial()
		c.send(fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: test\r\n\r\n", i))
		clients = append(clients, c)
		if i == 0 {
			within(t, "the origin is asked", asked)
		} else {
			waiting(float64(i))
		}
	}
	a := r.get("/")
	a.refused(t, 503, "queue_full")
	if a.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	clients[1].Close() // the first in the line leaves it
	waiting(1)
	released <- struct{}{}
	within(t, "the origin is asked", asked)
	released <- struct{}{}
	for _, i := range []int{0, 2} {
		if a := clients[i].receive("GET"); a.body != fmt.Sprintf("/%d", i) {
			t.Errorf("%d: %d %q", i, a.StatusCode, a.body)
		}
	}
	if o.Requests() != 2 {
		t.Errorf("the origin got %d requests", o.Requests())
	}
	r.endedFor("client_left", 1)
	r.counts(1, "gateway_upstream_queue_refused_total", `cause="full"`)
	r.counts(2, "gateway_upstream_queued_total")
}

func TestWaitsInTheQueueEnd(t *testing.T) {
	for _, c := range []struct {
		options, route string
		status         int
		reason         string
	}{
		{"queue_timeout = \"50ms\"\n", "", 503, "queue_timed_out"},
		{"queue_timeout = \"10s\"\n", "timeout = \"50ms\"\n", 504, "exchange_timeout"},
	} {
		o, asked, released := held(t)
		r := begin(t, app(o.Address)+"max_connections = 1\nqueue = 1\n"+c.options,
			"[[route]]\npath = \"/hold\"\nupstream = \"app\"\n", "[[route]]\nupstream = \"app\"\n"+c.route)
		hold := r.dial()
		hold.send("GET /hold HTTP/1.1\r\nHost: test\r\n\r\n")
		within(t, "the origin is asked", asked)
		r.get("/").refused(t, c.status, c.reason)
		released <- struct{}{}
		hold.receive("GET")
		r.counts(0, "gateway_upstream_queue_length")
		r.counts(0, "gateway_upstream_in_flight")
	}
}

func TestSplitGivesEachClientItsShare(t *testing.T) {
	_, addresses := named(t, 3)
	r := begin(t, "[client]\ntrusted_proxies = [\"127.0.0.0/8\"]\n", app(addresses[0]),
		"[upstream.canary]\nservers = [\""+addresses[1]+"\"]\n[upstream.other]\nservers = [\""+addresses[2]+"\"]\n",
		"[[route]]\nupstream = \"app\"\nsplit = { canary = \"10%\", other = \"20%\" }\n")
	const clients = 2000
	counts := map[string]int{}
	c := r.dial()
	c.SetDeadline(time.Now().Add(time.Minute))
	for i := range clients {
		server := ""
		for range 2 {
			c.send(fmt.Sprintf("GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 198.18.%d.%d\r\n\r\n", i/250, i%250))
			a := c.receive("GET")
			if server != "" && a.body != server {
				t.Fatalf("client %d is sent to %s, then to %s", i, server, a.body)
			}
			server = a.body
		}
		counts[server]++
	}
	for server, want := range map[string]int{"a": 70, "b": 10, "c": 20} {
		if got := counts[server] * 100 / clients; got < want-4 || got > want+4 {
			t.Errorf("%s gets %d%% of the clients, want %d%%", server, got, want)
		}
	}
}

func TestMirrorGetsCopies(t *testing.T) {
	main, shadow := record(t, origin.OK("main")), record(t, origin.OK("shadow"))
	r := begin(t, app(main.Address), "[upstream.shadow]\nhost = \"shadow.test\"\nservers = [\""+shadow.Address+"\"]\n",
		"[[route]]\nbuffer_body = \"100B\"\nupstream = \"app\"\nmirror = { upstream = \"shadow\" }\n")
	if a := r.do("POST /a?b=c HTTP/1.1\r\nHost: test\r\nX-Some: thing\r\nContent-Length: 5\r\n\r\nhello"); a.body != "main" {
		t.Errorf("%d %q", a.StatusCode, a.body)
	}
	r.until("the copy is answered", func() bool { return r.metric("gateway_mirror_total", `result="sent"`) == 1 })
	got, want := shadow.last(t), main.last(t)
	if got.Body != "hello" || got.Head != strings.Replace(want.Head, "Host: test\r\n", "Host: shadow.test\r\n", 1) {
		t.Errorf("the shadow got %q %q, the server %q", got.Head, got.Body, want.Head)
	}
	// What is streamed is not copied.
	r.do("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 101\r\n\r\n" + strings.Repeat("x", 101))
	r.do("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n")
	shadow.Close()
	r.get("/")
	r.until("the copy has failed", func() bool { return r.metric("gateway_mirror_total", `result="failed"`) == 1 })
	if n := len(shadow.all()); n != 1 {
		t.Errorf("the shadow got %d requests", n)
	}
}

func TestMirrorNeverDelays(t *testing.T) {
	main := record(t, origin.OK("main"))
	frozen := origin.Start(t, func(c *origin.Conn) {
		c.Read()
		c.Stall()
	})
	r := begin(t, app(main.Address), "[upstream.shadow]\nservers = [\""+frozen.Address+"\"]\n",
		"[[route]]\nupstream = \"app\"\nmirror = { upstream = \"shadow\", share = \"100%\" }\n")
	const requests = 300
	c := r.dial()
	for range requests {
		c.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
		if a := c.receive("GET"); a.body != "main" {
			t.Fatalf("%d %q", a.StatusCode, a.body)
		}
	}
	dropped := r.metric("gateway_mirror_total", `result="dropped"`)
	if dropped < requests-mirrorWorkers-mirrorQueue || dropped > requests-mirrorWorkers {
		t.Errorf("%v of %d copies were dropped", dropped, requests)
	}
	if n := frozen.Requests(); n > mirrorWorkers {
		t.Errorf("%d copies at the same time", n)
	}
}

// Routes that matter less stand behind the others, and are refused first.
func TestUnimportantRoutesAreShedFirst(t *testing.T) {
	o, asked, released := held(t)
	r := begin(t, app(o.Address)+"max_connections = 1\nqueue = 2\nqueue_timeout = \"10s\"\n",
		"[[route]]\npath = \"/low\"\nupstream = \"app\"\npriority = \"low\"\n", "[[route]]\nupstream = \"app\"\n")
	send := func(path string) *client {
		t.Helper()
		c := r.dial()
		c.send("GET " + path + " HTTP/1.1\r\nHost: test\r\n\r\n")
		return c
	}
	waiting := func(n float64) {
		t.Helper()
		r.until("requests wait", func() bool { return r.metric("gateway_upstream_queue_length") == n })
	}
	first := send("/")
	within(t, "the origin is asked", asked)
	low := send("/low")
	waiting(1)
	a := r.get("/low") // half of the queue is for others
	a.refused(t, 503, "queue_full")
	if a.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	normal := send("/normal")
	waiting(2)
	released <- struct{}{}
	first.receive("GET")
	within(t, "the origin is asked", asked)
	released <- struct{}{}
	if a := normal.receive("GET"); a.body != "/normal" {
		t.Errorf("%d %q", a.StatusCode, a.body)
	}
	within(t, "the origin is asked", asked)
	released <- struct{}{}
	if a := low.receive("GET"); a.body != "/low" {
		t.Errorf("%d %q", a.StatusCode, a.body)
	}
}
