package proxy

import (
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"gateway/internal/origin"
)

func TestSilentOriginIs504(t *testing.T) {
	o := origin.Start(t, func(c *origin.Conn) {
		switch c.Read().Target {
		case "/head":
			c.Write("HTTP/1.1 200 OK\r\nX: ")
		case "/interim":
			c.Write("HTTP/1.1 103 Early Hints\r\n\r\n")
		}
		c.Stall()
	})
	r := begin(t, app(o.Address)+"first_byte_timeout = \"50ms\"\nbetween_timeout = \"50ms\"\nretry = { attempts = 1 }\n")
	for _, path := range []string{"/", "/head"} {
		a := r.get(path)
		a.refused(t, 504, "origin_timeout")
		if a.Header.Get("Proxy-Status") != "gateway; error=http_response_timeout" || a.Close {
			t.Errorf("%s: %v, close %v", path, a.Header, a.Close)
		}
	}
	c := r.dial()
	c.send("GET /interim HTTP/1.1\r\nHost: test\r\n\r\n")
	c.head()
	c.receive("GET").refused(t, 504, "origin_timeout")
	r.endedFor("origin_timeout", 3)
	r.counts(3, "gateway_upstream_requests_total", `result="timed_out"`)
}

func TestStalledBodyIs504OrCut(t *testing.T) {
	o := origin.Start(t, func(c *origin.Conn) {
		if c.Read().Target == "/small" {
			c.Write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
		} else {
			c.Write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
		}
		c.Stall()
	})
	r := begin(t, app(o.Address)+"between_timeout = \"50ms\"\nretry = { attempts = 1 }\n")
	a := r.get("/small")
	a.refused(t, 504, "origin_stalled")
	if a.Header.Get("Proxy-Status") != "gateway; error=connection_read_timeout" {
		t.Errorf("%v", a.Header)
	}
	if a := r.get("/stream"); a.StatusCode != 200 || a.body != "hello" || a.err == nil {
		t.Errorf("%d %q, %v", a.StatusCode, a.body, a.err)
	}
	r.endedFor("origin_stalled", 2)
	r.counts(2, "gateway_upstream_requests_total", `result="timed_out"`)
}

func TestSlowOriginThatMovesIsNotTimedOut(t *testing.T) {
	o := origin.Start(t, func(c *origin.Conn) {
		c.Read()
		c.Write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		for range 10 {
			c.Sleep(100 * time.Millisecond)
			c.Write("1\r\n.\r\n")
		}
		c.Write("0\r\n\r\n")
	})
	r := begin(t, app(o.Address)+"first_byte_timeout = \"700ms\"\nbetween_timeout = \"700ms\"\n")
	if a := r.get("/"); a.body != ".........." || a.err != nil {
		t.Errorf("%q, %v", a.body, a.err)
	}
}

func TestRouteTimeoutEndsTheWholeExchange(t *testing.T) {
	o := origin.Start(t, func(c *origin.Conn) {
		switch q := c.ReadHead(); q.Target {
		case "/drip":
			c.Write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			for {
				c.Write("1\r\n.\r\n")
				c.Sleep(10 * time.Millisecond)
			}
		case "/small":
			c.Write("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
			for {
				c.Write(".")
				c.Sleep(10 * time.Millisecond)
			}
		case "/flood":
			c.Write("HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n")
			for {
				c.Fill(1 << 20)
			}
		default:
			c.ReadBody(q)
			c.Stall()
		}
	})
	r := begin(t, app(o.Address, refusing(t)), "eject = false\n[[route]]\ntimeout = \"250ms\"\nupstream = \"app\"\n")
	// slowly sends bytes until the connection ends.
	slowly := func(c *client) {
		for {
			if _, err := c.Conn.Write([]byte(".")); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	began := time.Now()
	for _, request := range []string{
		"GET / HTTP/1.1\r\nHost: test\r\n\r\n",
		"GET /small HTTP/1.1\r\nHost: test\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello",
		"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 60000\r\n\r\n",  // held here until it is complete
		"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 600000\r\n\r\n", // streamed
	} {
		c := r.dial()
		c.send(request)
		go slowly(c)
		a := c.receive("GET")
		a.refused(t, 504, "exchange_timeout")
		c.Close()
	}
	for _, target := range []string{"/drip", "/flood"} {
		c := r.dial()
		c.send("GET " + target + " HTTP/1.1\r\nHost: test\r\n\r\n")
		resp := c.continued("GET")
		buf, n := make([]byte, 1000), 0
		for err := error(nil); err == nil; n++ { // reads slowly
			_, err = resp.Body.Read(buf)
			time.Sleep(time.Millisecond)
		}
		if n == 0 {
			t.Errorf("%s: nothing arrived", target)
		}
		c.Close()
	}
	if took := time.Since(began); took > 7*time.Second {
		t.Errorf("seven exchanges of 250 ms took %v", took)
	}
	r.endedFor("exchange_timeout", 7)
	r.counts(2, "gateway_upstream_requests_total", `result="deadline_passed"`) // all other times the client was slow, or may have been
	r.counts(0, "gateway_upstream_in_flight")
}

// deaf is an address that accepts no more connections and refuses none.
func deaf(t *testing.T) string {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
	for range 10 {
		c, err := net.DialTimeout("tcp", address, 100*time.Millisecond)
		if err != nil {
			return address
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Skip("the queue of connections can't be filled here")
	return ""
}

func TestConnectTimeoutIs504OrAnotherServer(t *testing.T) {
	dead := deaf(t)
	r := begin(t, app(dead)+"connect_timeout = \"50ms\"\n")
	a := r.do("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nhi")
	a.refused(t, 504, "connect_timeout")
	if a.Header.Get("Proxy-Status") != "gateway; error=connection_timeout" {
		t.Errorf("%v", a.Header)
	}
	good := record(t, origin.OK("good"))
	r = begin(t, app(dead, good.Address)+"connect_timeout = \"5s\"\n", "[[route]]\nconnect_timeout = \"50ms\"\nupstream = \"app\"\n")
	for range 2 {
		if a := r.do("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nhi"); a.body != "good" {
			t.Errorf("%d %q", a.StatusCode, a.body)
		}
	}
	if n := r.metric("gateway_retries_total", `result="connect_timed_out"`); n < 1 {
		t.Errorf("%v retries", n)
	}
}
