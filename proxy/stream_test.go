package proxy

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"gateway/internal/origin"
)

// Each event is received before the next one is sent: nothing waits for more.
func TestEventsAreFlushedAtOnce(t *testing.T) {
	for framing, script := range map[string]func(c *origin.Conn, i int){
		"chunked": func(c *origin.Conn, i int) { c.Write(fmt.Sprintf("9\r\ndata: %d\n\n\r\n", i)) },
		"close":   func(c *origin.Conn, i int) { c.Write(fmt.Sprintf("data: %d\n\n", i)) },
		"length":  func(c *origin.Conn, i int) { c.Write(fmt.Sprintf("data: %d\n\n", i)) },
	} {
		received := make(chan struct{})
		o := origin.Start(t, func(c *origin.Conn) {
			c.Read()
			c.Write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" +
				map[string]string{"chunked": "Transfer-Encoding: chunked\r\n", "length": "Content-Length: 1000000\r\n"}[framing] + "\r\n")
			if framing != "length" {
				c.Wait(received) // the head alone reaches the client
			}
			for i := range 5 {
				script(c, i)
				c.Wait(received)
			}
			if framing == "chunked" {
				c.Write("0\r\n\r\n")
			}
		})
		r := begin(t, app(o.Address))
		for _, version := range []string{"1.1", "1.0"} {
			c := r.dial()
			c.send("GET / HTTP/" + version + "\r\nHost: test\r\n\r\n")
			resp := c.continued("GET")
			if framing != "length" {
				received <- struct{}{}
			}
			event := make([]byte, len("data: 0\n\n"))
			for i := range 5 {
				if _, err := io.ReadFull(resp.Body, event); err != nil || string(event) != fmt.Sprintf("data: %d\n\n", i) {
					t.Fatalf("%s, HTTP/%s: event %d is %q, %v", framing, version, i, event, err)
				}
				received <- struct{}{}
			}
			if _, err := io.ReadAll(resp.Body); err != nil && framing != "length" {
				t.Errorf("%s, HTTP/%s: the end is %v", framing, version, err)
			}
		}
	}
}

func TestLargeBodiesArriveIntact(t *testing.T) {
	const size = 20 << 20
	want := sha256.Sum256([]byte(origin.Filler(size)))
	framed := map[string]string{"length": fmt.Sprintf("Content-Length: %d\r\n", size), "chunked": "Transfer-Encoding: chunked\r\n", "close": ""}
	o := origin.Start(t, func(c *origin.Conn) {
		for {
			q := c.Read()
			if q.Method == "POST" {
				c.Write(origin.OK(fmt.Sprintf("%x", sha256.Sum256([]byte(q.Body)))))
				continue
			}
			framing := strings.TrimPrefix(q.Target, "/")
			c.Write("HTTP/1.1 200 OK\r\n" + framed[framing] + "\r\n")
			if framing == "chunked" {
				for left := size; left > 0; left -= size / 20 {
					c.Write(fmt.Sprintf("%x\r\n", size/20))
					c.Conn.Write([]byte(origin.Filler(size)[size-left : size-left+size/20]))
					c.Write("\r\n")
				}
				c.Write("0\r\n\r\n")
			} else {
				c.Fill(size)
			}
			if framing == "close" {
				return
			}
		}
	})
	r := begin(t, app(o.Address), "[[route]]\nupstream = \"app\"\nmax_body = \"100MiB\"\n")
	for framing := range framed {
		for _, version := range []string{"1.1", "1.0"} {
			c := r.dial()
			c.SetDeadline(time.Now().Add(60 * time.Second))
			c.send("GET /" + framing + " HTTP/" + version + "\r\nHost: test\r\n\r\n")
			resp := c.continued("GET")
			h := sha256.New()
			if n, err := io.Copy(h, resp.Body); n != size || err != nil || !bytes.Equal(h.Sum(nil), want[:]) {
				t.Errorf("down, %s, HTTP/%s: %d bytes, %v", framing, version, n, err)
			}
			c.Close()
		}
	}
	r.counts(6*size, "gateway_http_response_bytes_total")
	for _, head := range []string{
		fmt.Sprintf("Content-Length: %d\r\n", size),
		"Transfer-Encoding: chunked\r\n",
		fmt.Sprintf("Content-Length: %d\r\nExpect: 100-continue\r\n", size),
	} {
		c := r.dial()
		c.SetDeadline(time.Now().Add(60 * time.Second))
		c.send("POST / HTTP/1.1\r\nHost: test\r\n" + head + "\r\n")
		if strings.Contains(head, "Expect") {
			if resp := c.continued("POST"); resp.StatusCode != 100 {
				t.Fatalf("status %d instead of 100", resp.StatusCode)
			}
		}
		body := origin.Filler(size)
		for len(body) > 0 {
			n := min(len(body), 100_000)
			if strings.Contains(head, "chunked") {
				c.send(fmt.Sprintf("%x\r\n%s\r\n", n, body[:n]))
			} else {
				c.send(body[:n])
			}
			body = body[n:]
		}
		if strings.Contains(head, "chunked") {
			c.send("0\r\n\r\n")
		}
		if a := c.receive("POST"); a.body != fmt.Sprintf("%x", want) {
			t.Errorf("up, %q: %d %q", head, a.StatusCode, a.body)
		}
		c.Close()
	}
}

func TestTrailersAreRelayed(t *testing.T) {
	for _, pieces := range [][]string{
		{"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\nx-more: 2\r\n\r\n"}, // at once
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "5\r\nhello\r\n", "0\r\nX-Sum: 1\r\n", "x-more: 2\r\n\r\n"},
	} {
		o := origin.Start(t, func(c *origin.Conn) {
			for {
				if te := c.Read().Field("TE"); te != "trailers" {
					t.Errorf("the origin got TE %q", te)
				}
				c.WriteEach(10*time.Millisecond, pieces...)
			}
		})
		r := begin(t, app(o.Address))
		for range 2 {
			a := r.get("/", "TE: trailers, deflate", "Connection: TE")
			if a.body != "hello" || a.err != nil || a.Trailer.Get("X-Sum") != "1" || a.Trailer.Get("X-More") != "2" {
				t.Errorf("%q, %v, trailer %v", a.body, a.err, a.Trailer)
			}
		}
		if n := o.Connections(); n != 1 {
			t.Errorf("%d connections for two answers", n)
		}
	}
}

func TestBothDirectionsStreamAtOnce(t *testing.T) {
	o := origin.Start(t, func(c *origin.Conn) {
		c.ReadHead()
		c.Write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		for i := range 5 {
			var line strings.Builder
			for !strings.HasSuffix(line.String(), fmt.Sprintf("ping%d\r\n", i)) {
				line.WriteByte(c.Byte())
			}
			c.Write(fmt.Sprintf("5\r\npong%d\r\n", i))
		}
		c.Write("0\r\n\r\n")
		c.AwaitClose()
	})
	r := begin(t, app(o.Address))
	c := r.dial()
	c.send("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n")
	resp := c.continued("POST")
	for i := range 5 {
		c.send(fmt.Sprintf("5\r\nping%d\r\n", i))
		pong := make([]byte, 5)
		if _, err := io.ReadFull(resp.Body, pong); err != nil || string(pong) != fmt.Sprintf("pong%d", i) {
			t.Fatalf("%q, %v", pong, err)
		}
	}
	c.send("0\r\n\r\n")
	if rest, err := io.ReadAll(resp.Body); len(rest) > 0 || err != nil {
		t.Errorf("the end is %q, %v", rest, err)
	}
}

func TestClientThatLeavesFreesTheOrigin(t *testing.T) {
	asked, closed := make(chan struct{}, 1), make(chan struct{}, 1)
	o := origin.Start(t, func(c *origin.Conn) {
		if c.ReadHead().Target == "/stream" {
			c.Write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
		}
		asked <- struct{}{}
		c.AwaitClose()
		closed <- struct{}{}
	})
	r := begin(t, app(o.Address))
	for how, leave := range map[string]func(*client){"close": func(c *client) { c.Close() }, "reset": (*client).reset} {
		for phase, request := range map[string]string{
			"before the head": "GET / HTTP/1.1\r\nHost: test\r\n\r\n",
			"in a stream":     "GET /stream HTTP/1.1\r\nHost: test\r\n\r\n",
			"in an upload":    "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\nhello",
		} {
			c := r.dial()
			c.send(request)
			within(t, "the origin is asked", asked)
			if phase == "in a stream" {
				c.head()
			}
			left := time.Now()
			leave(c)
			within(t, "the origin's connection is closed", closed)
			// A quarter of a second to look, one to find; the rest is slack.
			if took := time.Since(left); took > 2*time.Second {
				t.Errorf("%s %s: the origin was let go after %v", how, phase, took)
			}
		}
	}
	r.endedFor("client_left", 6)
	r.counts(4, "gateway_http_requests_total", `status="499"`)
	r.counts(2, "gateway_http_requests_total", `status="200"`)
	r.counts(0, "gateway_upstream_requests_total", `result="ok"`)
	r.counts(0, "gateway_upstream_in_flight")
}

func TestClientThatStopsReadingIsCutOff(t *testing.T) {
	closed := make(chan struct{})
	o := origin.Start(t, func(c *origin.Conn) {
		c.Read()
		c.Write("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
		defer close(closed)
		c.Fill(1000000000)
	})
	r := begin(t, "[client]\nwrite_timeout = \"200ms\"", app(o.Address))
	c := r.dial()
	c.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
	c.head()
	within(t, "the origin is let go", closed)
	r.endedFor("client_stalled", 1)
	if _, err := c.rest(); err == nil {
		t.Error("the answer looks complete")
	}
}
