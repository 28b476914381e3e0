package proxy

import (
	"crypto/sha256"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"gateway/internal/origin"
	"gateway/internal/pipe"
)

const spliced = "gateway_http_response_spliced_bytes_total"

// largeOrigin answers /N with N bytes, of which it sends no more than of says.
func largeOrigin(t *testing.T, of func(c *origin.Conn, n int)) *origin.Origin {
	return origin.Start(t, func(c *origin.Conn) {
		for {
			var n int
			fmt.Sscanf(c.Read().Target, "/%d", &n)
			c.Write(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", n))
			of(c, n)
		}
	})
}

// Large bodies are not copied, small ones are; both connections serve the next
// request, and what is counted is the same.
func TestLargeBodiesAreSpliced(t *testing.T) {
	o := largeOrigin(t, func(c *origin.Conn, n int) { c.Fill(n) })
	r := begin(t, app(o.Address))
	c := r.dial()
	total := 0
	for _, n := range []int{3 << 20, 10, 200_000, 1 << 20, 3<<20 + 1} {
		c.send(fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: test\r\n\r\n", n))
		resp := c.continued("GET")
		b, err := io.ReadAll(resp.Body)
		if err != nil || sha256.Sum256(b) != sha256.Sum256([]byte(origin.Filler(n))) {
			t.Errorf("%d bytes of %d, %v", len(b), n, err)
		}
		total += n
	}
	r.counts(float64(total), "gateway_http_response_bytes_total")
	if n := r.metric(spliced); n < float64(total)*3/4 || n > float64(total) {
		t.Errorf("%.0f bytes of %d were not copied", n, total)
	}
	if n := o.Connections(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// Where something between the sockets has to see the bytes, or to let them go
// slowly, they are read.
func TestWhatIsLookedAtIsNotSpliced(t *testing.T) {
	o := origin.Start(t, func(c *origin.Conn) {
		for {
			c.Read()
			c.Write("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nCache-Control: max-age=60\r\nContent-Length: 1000000\r\n\r\n")
			c.Fill(1_000_000)
		}
	})
	r := begin(t, "[cache]\n[upstream.app]\nservers = [\""+o.Address+"\"]\n[[route]]\npath = \"/cached\"\nupstream = \"app\"\ncache = true\n[[route]]\npath = \"/coded\"\nupstream = \"app\"\ncompress = [\"gzip\"]\n[limit.slow]\nkey = \"ip\"\nbandwidth = \"100MiB\"\n[[route]]\npath = \"/paced\"\nupstream = \"app\"\nlimit = \"slow\"\n")
	for _, request := range []string{"GET /cached HTTP/1.1\r\nHost: test\r\n\r\n", "GET /paced HTTP/1.1\r\nHost: test\r\n\r\n", "GET /coded HTTP/1.1\r\nHost: test\r\nAccept-Encoding: gzip\r\n\r\n"} {
		c := r.dial()
		c.send(request)
		resp := c.continued("GET")
		if n, err := io.Copy(io.Discard, resp.Body); n == 0 || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
		c.Close()
	}
	r.counts(0, spliced)
}

func TestSplicedBodyThatIsCutNeverLooksComplete(t *testing.T) {
	for name, c := range map[string]struct {
		end    func(c *origin.Conn)
		reason string
	}{
		"closed":  {func(c *origin.Conn) { c.Exit() }, "origin_truncated"},
		"reset":   {func(c *origin.Conn) { c.Reset() }, "origin_truncated"},
		"stalled": {func(c *origin.Conn) { c.Stall() }, "origin_stalled"},
	} {
		t.Run(name, func(t *testing.T) {
			reached := make(chan struct{})
			o := largeOrigin(t, func(o *origin.Conn, n int) {
				o.Fill(n / 2)
				o.Wait(reached)
				c.end(o)
			})
			r := begin(t, app(o.Address)+"between_timeout = \"200ms\"\n")
			client := r.dial()
			client.send("GET /4000000 HTTP/1.1\r\nHost: test\r\n\r\n")
			resp := client.continued("GET")
			got, err := io.ReadFull(resp.Body, make([]byte, 2_000_000))
			if err != nil {
				t.Fatal(got, err)
			}
			close(reached)
			if n, err := io.Copy(io.Discard, resp.Body); n != 0 || err == nil {
				t.Errorf("%d more bytes, %v", n, err)
			}
			r.endedFor(c.reason, 1)
			if r.metric(spliced) == 0 {
				t.Error("nothing was spliced")
			}
		})
	}
}

// Who leaves or stops reading in the middle frees the origin's connection.
func TestClientsLeaveSplicedBodies(t *testing.T) {
	o := largeOrigin(t, func(c *origin.Conn, n int) { c.Fill(n) })
	r := begin(t, "[client]\nwrite_timeout = \"200ms\"", app(o.Address))
	for _, reason := range []string{"client_left", "client_stalled"} {
		c := r.dial()
		c.send("GET /1000000000 HTTP/1.1\r\nHost: test\r\n\r\n")
		resp := c.continued("GET")
		if n, err := io.ReadFull(resp.Body, make([]byte, 2_000_000)); err != nil {
			t.Fatal(n, err)
		}
		if reason == "client_left" {
			c.Close()
		}
		r.endedFor(reason, 1)
	}
	r.counts(0, "gateway_upstream_in_flight")
	if r.metric(spliced) == 0 {
		t.Error("nothing was spliced")
	}
}

// An origin that sends more than it has announced loses its connection; nobody
// gets the rest.
func TestMoreThanASplicedBodyGoesNowhere(t *testing.T) {
	o := origin.Start(t, func(c *origin.Conn) {
		c.Read()
		c.Write("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
		c.Fill(1_000_000)
		c.Write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
		c.AwaitClose()
	})
	r := begin(t, app(o.Address))
	for range 3 {
		c := r.dial()
		c.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
		resp := c.continued("GET")
		if b, err := io.ReadAll(resp.Body); len(b) != 1_000_000 || err != nil || strings.Contains(string(b), "evil") {
			t.Errorf("%d bytes, %v", len(b), err)
		}
		c.Close()
		time.Sleep(20 * time.Millisecond)
	}
	if n := o.Connections(); n != 3 {
		t.Errorf("%d connections", n)
	}
}

// Without a pipe bodies are copied.
func TestNoPipeIsLeft(t *testing.T) {
	var all []*pipe.Pipe
	for p := pipe.Acquire(); p != nil; p = pipe.Acquire() {
		all = append(all, p)
	}
	o := largeOrigin(t, func(c *origin.Conn, n int) { c.Fill(n) })
	r := begin(t, app(o.Address))
	if a := r.get("/3000000"); a.body != origin.Filler(3_000_000) {
		t.Errorf("%d bytes, %v", len(a.body), a.err)
	}
	r.counts(0, spliced)
	for _, p := range all {
		p.Release()
	}
	if a := r.get("/3000000"); a.body != origin.Filler(3_000_000) {
		t.Errorf("%d bytes, %v", len(a.body), a.err)
	}
	if r.metric(spliced) == 0 {
		t.Error("nothing was spliced")
	}
}
