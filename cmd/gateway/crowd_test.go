package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// crowd is clients of a gateway, each with one connection for its whole life.
// They ask one thing after the other and note each answer. A connection that
// breaks, or an answer that does not come, fails the test.
type crowd struct {
	t       testing.TB
	wait    sync.WaitGroup
	over    atomic.Bool
	answers atomic.Int64

	mu    sync.Mutex
	noted []note
}

// habit is what a client asks for, again and again.
type habit struct {
	name    string // shared by clients that do the same
	route   string // that takes the requests
	request func(client, number int) (method, path, body string)
}

// note is an answer as it was received.
type note struct {
	habit  *habit
	status int
	begun  time.Time
	took   time.Duration

	own   bool // the gateway's own answer, about a dependency that is down …
	right bool // … with all that belongs to it
}

func (n *note) ended() time.Time { return n.begun.Add(n.took) }

// rest is what a client does between two requests: the machine is shared.
const rest = 5 * time.Millisecond

// gather starts clients, their habits in turn.
func gather(t testing.TB, address string, clients int, habits []habit) *crowd {
	c := &crowd{t: t}
	t.Cleanup(c.leave)
	for i := range clients {
		c.wait.Go(func() { c.live(address, i, &habits[i%len(habits)]) })
	}
	return c
}

func (c *crowd) live(address string, client int, h *habit) {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		c.t.Errorf("client %d: %v", client, err)
		return
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	var noted []note
	defer func() {
		c.mu.Lock()
		c.noted = append(c.noted, noted...)
		c.mu.Unlock()
	}()
	for number := 0; !c.over.Load(); number++ {
		method, path, body := h.request(client, number)
		n := note{habit: h, begun: time.Now()}
		conn.SetDeadline(n.begun.Add(patience))
		_, err := fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n%s", method, path, len(body), body)
		if err != nil {
			c.t.Errorf("client %d: %s %s: %v", client, method, path, err)
			return
		}
		resp, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			c.t.Errorf("client %d: %s %s: %v", client, method, path, err)
			return
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.Close {
			c.t.Errorf("client %d: %s %s: %v, close %v", client, method, path, err, resp.Close)
			return
		}
		n.took = time.Since(n.begun)
		n.status = resp.StatusCode
		n.own = resp.Header.Get("X-Served-By") == ""
		n.right = resp.Header.Get("Proxy-Status") == "gateway; error=destination_unavailable" && resp.Header.Get("Retry-After") != ""
		noted = append(noted, n)
		c.answers.Add(1)
		time.Sleep(rest)
	}
}

// proceed waits for so many more answers, and returns when it began to.
func (c *crowd) proceed(answers int64) (began time.Time) {
	c.t.Helper()
	began = time.Now()
	enough := c.answers.Load() + answers
	for c.answers.Load() < enough {
		if time.Since(began) > patience {
			c.t.Fatalf("no %d answers within %v", answers, patience)
		}
		time.Sleep(time.Millisecond)
	}
	return began
}

// leave ends the clients after their last answer. What they noted is in the
// order of time then.
func (c *crowd) leave() {
	if c.over.Swap(true) {
		return
	}
	c.wait.Wait()
	slices.SortFunc(c.noted, func(a, b note) int { return a.begun.Compare(b.begun) })
}

// within are the notes of requests that began and ended between two moments.
func (c *crowd) within(from, to time.Time) (some []note) {
	for _, n := range c.noted {
		if n.begun.After(from) && n.ended().Before(to) {
			some = append(some, n)
		}
	}
	return some
}

// waits are median and maximum of what the answers took.
func waits(notes []note) (median, longest time.Duration) {
	if len(notes) == 0 {
		return 0, 0
	}
	took := make([]time.Duration, len(notes))
	for i := range notes {
		took[i] = notes[i].took
	}
	slices.Sort(took)
	return took[len(took)/2].Round(10 * time.Microsecond), took[len(took)-1].Round(100 * time.Microsecond)
}
