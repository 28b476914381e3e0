package proxy

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"gateway/internal/origin"
)

func TestUploadsArriveAsTheyWereSent(t *testing.T) {
	o := record(t, origin.OK(""))
	r := begin(t, app(o.Address), "[[route]]\npath = \"/stream\"\nbuffer_body = \"0B\"\nupstream = \"app\"\n[[route]]\nupstream = \"app\"\n")
	large := origin.Filler(200 << 10)
	for _, path := range []string{"/stream", "/"} {
		for _, c := range []struct{ head, body, want, trailer string }{
			{"Content-Length: 5\r\n", "hello", "hello", ""},
			{fmt.Sprintf("Content-Length: %d\r\n", len(large)), large, large, ""},
			{"Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n", "hello", ""},
			{"Transfer-Encoding: chunked\r\n", "0\r\n\r\n", "", ""},
			{"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n", "5\r\nhello\r\n0\r\nX-Sum: 1\r\nx-more: 2\r\n\r\n", "hello", "X-Sum: 1\r\nx-more: 2\r\n"},
			{"Transfer-Encoding: chunked\r\n", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(large), large), large, ""},
		} {
			a := r.do("POST " + path + " HTTP/1.1\r\nHost: test\r\n" + c.head + "\r\n" + c.body)
			q := o.last(t)
			if a.StatusCode != 200 || q.Body != c.want || q.Trailer != c.trailer || q.Chunked != strings.Contains(c.head, "chunked") {
				t.Errorf("%s %q: status %d, %d bytes, trailer %q, head\n%s", path, c.head, a.StatusCode, len(q.Body), q.Trailer, q.Head)
			}
		}
	}
	if n := o.Connections(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestUploadInSinglePiecesIsPassedOnAtOnce(t *testing.T) {
	got := make(chan byte)
	o := origin.Start(t, func(c *origin.Conn) {
		c.ReadHead()
		for range 5 {
			got <- c.Byte()
		}
		c.Write(origin.OK("thanks"))
		c.AwaitClose()
	})
	r := begin(t, app(o.Address), "[[route]]\nbuffer_body = \"0B\"\nupstream = \"app\"\n")
	c := r.dial()
	c.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\n")
	for _, b := range []byte("hello") {
		c.send(string(b))
		if g := <-got; g != b {
			t.Fatalf("the origin got %q, want %q", g, b)
		}
	}
	if a := c.receive("POST"); a.body != "thanks" {
		t.Errorf("%d %q", a.StatusCode, a.body)
	}
}

func TestContinueIsSentOnceAndOnlyWhenTheBodyIsWanted(t *testing.T) {
	o := record(t, origin.OK("thanks"))
	r := begin(t, app(o.Address), `
[[route]]
path = "/small"
max_body = "10B"
upstream = "app"

[[route]]
path = "/denied"
deny = ["127.0.0.1"]
upstream = "app"

[[route]]
path = "/fixed"
respond = { status = 409 }

[[route]]
path = ["/", "/chunked"]
upstream = "app"

[[route]]
path = "/stream"
buffer_body = "0B"
upstream = "app"
`)
	const body = "hello, world"
	for _, c := range []struct {
		path   string
		status int // of the first head
	}{{"/", 100}, {"/stream", 100}, {"/chunked", 100}, {"/small", 413}, {"/denied", 403}, {"/fixed", 409}, {"/none", 404}} {
		client := r.dial()
		framing, sent := "Content-Length: 12\r\n", body
		if c.path == "/chunked" {
			framing, sent = "Transfer-Encoding: chunked\r\n", "c\r\n"+body+"\r\n0\r\n\r\n"
		}
		client.send("POST " + c.path + " HTTP/1.1\r\nHost: test\r\nExpect: 100-Continue\r\n" + framing + "\r\n")
		if c.status == 100 {
			if head := client.head(); head != "HTTP/1.1 100 Continue\r\n\r\n" {
				t.Errorf("%s: the client got %q", c.path, head)
			}
			client.send(sent)
			if a := client.receive("POST"); a.StatusCode != 200 || a.body != "thanks" || a.Close {
				t.Errorf("%s: %d %q, close %v", c.path, a.StatusCode, a.body, a.Close)
			}
			if q := o.last(t); q.Body != body || q.Field("Expect") != "" {
				t.Errorf("%s: the origin got\n%s%q", c.path, q.Head, q.Body)
			}
			continue
		}
		if a := client.receive("POST"); a.StatusCode != c.status || !a.Close {
			t.Errorf("%s: %d, close %v", c.path, a.StatusCode, a.Close)
		}
		if rest, err := client.rest(); rest != "" || err != nil {
			t.Errorf("%s: after the answer came %q, %v", c.path, rest, err)
		}
		client.Close()
	}
	// Nobody waits, or nobody may: no 100 is sent.
	for _, request := range []string{
		"POST / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 12\r\n\r\n" + body,
		"POST / HTTP/1.0\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 12\r\n\r\n" + body,
		"POST / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\n\r\n",
	} {
		if a := r.do(request); a.StatusCode != 200 {
			t.Errorf("%q: %d", request, a.StatusCode)
		}
	}
	if n := o.Requests(); n != 7 {
		t.Errorf("the origin got %d requests", n)
	}
}

// A client that writes a large body must see an answer that comes early, and
// neither side may wait for the other forever.
func TestEarlyAnswerToAnUploadReachesTheClient(t *testing.T) {
	const size = 64 << 20
	for what, end := range map[string]func(*origin.Conn){
		"closes":        func(c *origin.Conn) {},
		"resets":        func(c *origin.Conn) { c.Sleep(100 * time.Millisecond); c.Reset() },
		"does not read": (*origin.Conn).Stall,
		"reads on":      (*origin.Conn).AwaitClose,
	} {
		o := origin.Start(t, func(c *origin.Conn) {
			c.ReadHead()
			c.Write("HTTP/1.1 413 Content Too Large\r\nContent-Length: 8\r\n\r\ntoo much")
			end(c)
		})
		r := begin(t, app(o.Address), "[[route]]\nmax_body = \"1GiB\"\nupstream = \"app\"\n")
		for _, framing := range []string{fmt.Sprintf("Content-Length: %d\r\n", size), "Transfer-Encoding: chunked\r\n"} {
			c := r.dial()
			written := make(chan struct{})
			go func() {
				defer close(written)
				io.WriteString(c.Conn, "POST / HTTP/1.1\r\nHost: test\r\n"+framing+"\r\n")
				piece := origin.Filler(64 << 10)
				if strings.HasPrefix(framing, "Transfer") {
					piece = fmt.Sprintf("%x\r\n%s\r\n", len(piece), piece)
				}
				for range size / (64 << 10) {
					if _, err := io.WriteString(c.Conn, piece); err != nil {
						return
					}
				}
			}()
			if a := c.receive("POST"); a.StatusCode != 413 || a.body != "too much" || a.err != nil || !a.Close {
				t.Errorf("the origin %s, %q: %d %q, %v, close %v", what, framing, a.StatusCode, a.body, a.err, a.Close)
			}
			c.Close()
			within(t, "the client's writer ends", written)
		}
		r.endedFor("done", 2)
		r.counts(0, "gateway_upstream_in_flight")
	}
}

func TestSlowBodiesAre408(t *testing.T) {
	incomplete := make(chan error, 10)
	o := origin.Start(t, func(c *origin.Conn) {
		incomplete <- c.ReadBody(c.ReadHead())
	})
	r := begin(t, "[client]\nbody_timeout = \"100ms\"\nheader_timeout = \"200ms\"", app(o.Address))
	for i, head := range []string{"Content-Length: 10\r\n", "Transfer-Encoding: chunked\r\n", "Content-Length: 100000\r\n"} {
		c := r.dial()
		c.send("POST / HTTP/1.1\r\nHost: test\r\n" + head + "\r\n")
		if i == 1 {
			c.send("5\r\nhello\r\n")
		} else {
			c.send("hello")
		}
		a := c.receive("POST")
		a.refused(t, 408, "client_slow")
		if !a.Close || !c.closed() {
			t.Errorf("%q: close %v", head, a.Close)
		}
		if i > 0 {
			if err := <-incomplete; err != io.ErrUnexpectedEOF {
				t.Errorf("%q: the origin sees the end as %v", head, err)
			}
		}
	}
	r.endedFor("client_slow", 3)
	// So is a head that does not come.
	c := r.dial()
	c.send("GET / HTTP/1.1\r\nHo")
	if a := c.receive("GET"); a.StatusCode != 408 || !a.Close || !c.closed() {
		t.Errorf("head: %d, close %v", a.StatusCode, a.Close)
	}
	r.endedFor("client_slow", 4)
	r.counts(0, "gateway_upstream_requests_total", `result="ok"`)
}

func TestBodiesBeyondTheLimitAre413(t *testing.T) {
	o := record(t, origin.OK("thanks"))
	r := begin(t, app(o.Address), "[[route]]\nmax_body = \"100KiB\"\nupstream = \"app\"\n")
	chunked := func(n int) string {
		return "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n" +
			fmt.Sprintf("%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n", n/2, origin.Filler(n/2), n-n/2, origin.Filler(n-n/2))
	}
	length := func(n int) string {
		return fmt.Sprintf("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n%s", n, origin.Filler(n))
	}
	for _, request := range []string{length(100 << 10), chunked(100 << 10)} {
		if a := r.do(request); a.StatusCode != 200 || len(o.last(t).Body) != 100<<10 {
			t.Errorf("%.80q: %d, %d bytes", request, a.StatusCode, len(o.last(t).Body))
		}
	}
	n := o.Requests()
	for _, request := range []string{length(100<<10 + 1), chunked(100<<10 + 1), chunked(1 << 20)} {
		c := r.dial()
		sent := make(chan struct{})
		go func() {
			io.WriteString(c.Conn, request+smuggled) // may be cut off
			close(sent)
		}()
		a := c.receive("POST")
		a.refused(t, 413, "body_too_large")
		if !a.Close {
			t.Errorf("%.80q: the connection stays", request)
		}
		c.Close()
		within(t, "the request is sent", sent)
	}
	r.endedFor("body_too_large", 3)
	if got := len(o.all()); got != n {
		t.Errorf("the origin got %d complete requests, want %d", got, n)
	}
}

func TestUploadThatIsCutNeverLooksComplete(t *testing.T) {
	type end struct {
		target string
		err    error
	}
	ends := make(chan end, 10)
	o := origin.Start(t, func(c *origin.Conn) {
		q := c.ReadHead()
		ends <- end{q.Target, c.ReadBody(q)}
	})
	r := begin(t, app(o.Address))
	cuts := 0.0
	for _, cut := range []func(*client){
		func(c *client) { c.Close() },
		(*client).reset,
		func(c *client) { c.Conn.(*net.TCPConn).CloseWrite() },
	} {
		for target, request := range map[string]string{
			"/small":    "Content-Length: 10\r\n\r\nhello", // held here until it is complete
			"/large":    "Content-Length: 100000\r\n\r\n" + origin.Filler(70000),
			"/chunked":  "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
			"/chunk":    "Transfer-Encoding: chunked\r\n\r\n10\r\nhello",
			"/end":      "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
			"/trailers": "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: 1\r\n",
		} {
			cuts++
			c := r.dial()
			c.send("PUT " + target + " HTTP/1.1\r\nHost: test\r\n" + request)
			if target != "/small" {
				r.until("the origin has been asked", func() bool { return float64(o.Requests()) >= cuts-float64(int(cuts-1)/6)-1 })
			}
			cut(c)
			r.endedFor("client_left", cuts)
			c.Close()
		}
	}
	for n := o.Requests(); n > 0; n-- {
		if e := <-ends; e.target == "/small" || e.err == nil {
			t.Errorf("%s reached the origin with %v", e.target, e.err)
		}
	}
}

func TestBodiesOfRequestsThatNobodyReads(t *testing.T) {
	r := begin(t, "[[route]]\nrespond = { body = \"no thanks\" }\n")
	c := r.dial()
	for _, body := range []string{
		"Content-Length: 10\r\n\r\n0123456789",
		"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		fmt.Sprintf("Content-Length: %d\r\n\r\n%s", 1<<20, origin.Filler(1<<20)),
	} {
		c.send("POST / HTTP/1.1\r\nHost: test\r\n" + body)
		a := c.receive("POST")
		if a.body != "no thanks" || a.err != nil {
			t.Errorf("%.40q: %q, %v", body, a.body, a.err)
		}
		if a.Close {
			c.Close()
			c = r.dial()
		}
	}
}
