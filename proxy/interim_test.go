package proxy

import (
	"strings"
	"testing"
	"time"

	"gateway/internal/origin"
)

const hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n"

func TestInterimAnswersAreRelayedAtOnce(t *testing.T) {
	received := make(chan struct{})
	o := origin.Start(t, func(c *origin.Conn) {
		for {
			c.Read()
			c.Write(hints)
			c.Wait(received)
			c.Write("HTTP/1.1 102 Processing\r\n\r\n" + hints)
			c.Wait(received)
			c.Write(origin.OK("hello"))
		}
	})
	r := begin(t, app(o.Address))
	c := r.dial()
	for range 2 {
		c.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
		const want = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
		if head := c.head(); head != want {
			t.Errorf("the client got %q", head)
		}
		received <- struct{}{}
		if head := c.head(); head != "HTTP/1.1 102 Processing\r\n\r\n" {
			t.Errorf("the client got %q", head)
		}
		if head := c.head(); head != want {
			t.Errorf("the client got %q", head)
		}
		received <- struct{}{}
		if a := c.receive("GET"); a.body != "hello" {
			t.Errorf("the answer is %q", a.body)
		}
	}
	if n := o.Connections(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestInterimAnswersAreNotForHTTP10(t *testing.T) {
	o := record(t, hints+"HTTP/1.1 100 Continue\r\n\r\n"+origin.OK("hello"))
	r := begin(t, app(o.Address))
	if a := r.do("GET / HTTP/1.0\r\nHost: test\r\n\r\n"); a.StatusCode != 200 || a.body != "hello" {
		t.Errorf("%d %q", a.StatusCode, a.body)
	}
	// And nobody but the gateway says 100 Continue.
	c := r.dial()
	c.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
	if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 103") {
		t.Errorf("the client got %q", head)
	}
	if a := c.receive("GET"); a.body != "hello" {
		t.Errorf("%d %q", a.StatusCode, a.body)
	}
}

func TestInterimAnswersHaveAnEnd(t *testing.T) {
	o := record(t, strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 10)+origin.OK("hello"))
	r := begin(t, app(o.Address))
	c := r.dial()
	c.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
	for range 10 {
		if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 102 ") {
			t.Errorf("the client got %q", head)
		}
	}
	if a := c.receive("GET"); a.body != "hello" {
		t.Errorf("%d %q", a.StatusCode, a.body)
	}

	endless := origin.Start(t, func(c *origin.Conn) {
		c.Read()
		for {
			c.Write("HTTP/1.1 102 Processing\r\n\r\n")
		}
	})
	r = begin(t, app(endless.Address))
	r.do("GET / HTTP/1.0\r\n\r\n").refused(t, 502, "origin_invalid")
}

// An interim answer belongs behind the answers of earlier requests.
func TestInterimAnswersDoNotOvertake(t *testing.T) {
	released := make(chan struct{})
	o := origin.Start(t, func(c *origin.Conn) {
		for {
			if c.Read().Target == "/slow" {
				c.Wait(released)
				c.Write(origin.OK("slow"))
			} else {
				c.Write(hints + origin.OK("fast"))
			}
		}
	})
	r := begin(t, app(o.Address))
	c := r.dial()
	c.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\nGET /fast HTTP/1.1\r\nHost: test\r\n\r\n")
	time.Sleep(20 * time.Millisecond)
	close(released)
	if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 200") || c.next(4) != "slow" {
		t.Errorf("first came %q", head)
	}
	if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 103") {
		t.Errorf("then came %q", head)
	}
	if a := c.receive("GET"); a.body != "fast" {
		t.Errorf("at last came %q", a.body)
	}
}

func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	o := origin.Start(t, func(c *origin.Conn) {
		for {
			q := c.Read()
			if strings.HasSuffix(q.Target, "0") {
				c.Sleep(30 * time.Millisecond)
			}
			switch {
			case strings.HasSuffix(q.Target, "3"):
				c.Write(origin.Chunked(q.Target, q.Body))
			case strings.HasSuffix(q.Target, "5"):
				c.Reset()
			default:
				c.Write(origin.OK(q.Target + q.Body))
			}
		}
	})
	r := begin(t, app(o.Address)+"retry = { attempts = 1 }\n", "[[route]]\npath = \"/7\"\nrespond = { body = \"/7\" }\n[[route]]\nupstream = \"app\"\n")
	c := r.dial()
	var all strings.Builder
	for _, n := range strings.Split("0123456789", "") {
		if n == "2" || n == "6" {
			all.WriteString("POST /" + n + " HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
		} else {
			all.WriteString("GET /" + n + " HTTP/1.1\r\nHost: test\r\n\r\n")
		}
	}
	c.send(all.String())
	for _, n := range strings.Split("0123456789", "") {
		a := c.receive("GET")
		want := "/" + n
		switch n {
		case "2", "6":
			want += "abc"
		case "5":
			a.refused(t, 502, "origin_reset")
			continue
		}
		if a.body != want || a.Close {
			t.Errorf("answer to /%s is %q, close %v", n, a.body, a.Close)
		}
	}
}
