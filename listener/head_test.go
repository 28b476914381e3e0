package listener

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"gateway/wire"
)

func TestKeepAliveAndPipelining(t *testing.T) {
	_, s := start(t, options(), echo)
	c := dial(t, s)
	for i := range 3 {
		if got := c.get(fmt.Sprintf("/%d", i)); got.StatusCode != 200 || got.body != fmt.Sprintf(`GET a /%d ""`, i) {
			t.Fatalf("got %d %q", got.StatusCode, got.body)
		}
	}
	// Many requests in one segment, bodies and chunks between heads, and a head
	// that arrives in two parts.
	var b strings.Builder
	for i := range 100 {
		fmt.Fprintf(&b, "GET /a%d HTTP/1.1\r\nHost: a\r\n\r\n", i)
		fmt.Fprintf(&b, "POST /b%d HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n\r\n\r\n", i)
		fmt.Fprintf(&b, "POST /c%d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\n\r\n", i)
		fmt.Fprintf(&b, "\r\nGET /d%d HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nxyz", i)
	}
	text := b.String()
	go func() {
		c.Write([]byte(text[:10001]))
		time.Sleep(20 * time.Millisecond)
		c.Write([]byte(text[10001:]))
	}()
	for i := range 100 {
		for _, want := range []string{`GET a /a%d ""`, `POST a /b%d "\r\n\r\n"`, `POST a /c%d "abcde"`, `GET a /d%d "xyz"`} {
			if got := c.answer("GET"); got.body != fmt.Sprintf(want, i) {
				t.Fatalf("got %q; want "+want, got.body, i)
			}
		}
	}
}

func TestHeadArrivesByteByByte(t *testing.T) {
	_, s := start(t, options(), echo)
	c := dial(t, s)
	c.Conn.(*net.TCPConn).SetNoDelay(true)
	for range 2 {
		for _, b := range []byte("\r\nPOST /x HTTP/1.1\r\nHost: A.b:80\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n") {
			c.send("%s", string(b))
		}
		if got := c.answer("POST"); got.body != `POST a.b:80 /x "x"` {
			t.Fatalf("got %q", got.body)
		}
	}
}

func TestMalformedHeadsAreAnsweredAndClosed(t *testing.T) {
	o := options()
	o.MaxHeader, o.MaxURI, o.MaxFields = 2048, 512, 10
	_, s := start(t, o, echo)
	f := func(head string, status int, fault wire.Fault) {
		t.Helper()
		c := dial(t, s)
		c.send("%s", head)
		got := c.answer("GET")
		if want := "bad_request " + fault.String(); got.StatusCode != status || got.body != want || !got.Close {
			t.Errorf("%.60q: got %d %q %v; want %d %q", head, got.StatusCode, got.body, got.Header, status, want)
		}
		c.closed()
	}
	f("GET / HTTP/1.1\r\n\r\n", 400, wire.MissingHost)
	f("GET / HTTP/1.1\nHost: a\n\n", 400, wire.BareLF)
	f("GET / HTTP/1.1\nHost: a\r\n\r\n", 400, wire.BareLF)
	f("GET / HTTP/1.1\r\nHost: a\n\r\n", 400, wire.BareLF)
	f("GET / HTTP/1.1\r\nHost: a\r\n\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n", 400, wire.BareLF)
	f("GET / HTTP/1.0\r\n\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n", 400, wire.BareLF)
	f("GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", 400, wire.ControlByte)
	f("GET / HTTP/1.1\r\nHost: a\r\nX : a\r\n\r\n", 400, wire.SpaceBeforeColon)
	f("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400, wire.ObsoleteFold)
	f("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n", 400, wire.ObsoleteFold)
	f("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, wire.DuplicateHost)
	f("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, wire.LengthAndCoding)
	f("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400, wire.DuplicateContentLength)
	f("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx", 400, wire.BadContentLength)
	f("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, wire.UnknownCoding)
	f("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, wire.BadVersion)
	f("GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505, wire.BadVersion)
	f("GET /\r\n\r\n", 400, wire.BadRequestLine)
	f("GET\r\n\r\n", 400, wire.BadRequestLine)
	f("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, wire.BadRequestLine)
	f("G@T / HTTP/1.1\r\nHost: a\r\n\r\n", 400, wire.BadMethod)
	f("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", wire.ConnectRefused.Status(), wire.ConnectRefused)
	f("GET / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n", 417, wire.BadExpect)
	f("GET /"+strings.Repeat("x", 1000)+" HTTP/1.1\r\nHost: a\r\n\r\n", 414, wire.TargetTooLong)
	f("GET /"+strings.Repeat("x", 10000)+" HTTP/1.1\r\nHost: a\r\n\r\n", 414, wire.TargetTooLong)
	f("GET / HTTP/1.1\r\nHost: a\r\nX: "+strings.Repeat("x", 10000)+"\r\n\r\n", 431, wire.HeaderTooLarge)
	f("GET / HTTP/1.1\r\nHost: a\r\n"+strings.Repeat("X: y\r\n", 10)+"\r\n", 431, wire.TooManyFields)
	f("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"+strings.Repeat("z\n", 20), 400, wire.BareLF)
}

func TestHeadOfExactlyTheLimitIsServed(t *testing.T) {
	o := options()
	o.MaxHeader = 2048
	_, s := start(t, o, echo)
	for _, size := range []int{2047, 2048, 2049} {
		c := dial(t, s)
		for range 2 { // the second one meets a buffer that has been used
			head := "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n"
			head = strings.Replace(head, "X: ", "X: "+strings.Repeat("x", size-len(head)), 1)
			c.send("%s", head)
			want := 200
			if size > 2048 {
				want = 431
			}
			if got := c.answer("GET"); got.StatusCode != want {
				t.Fatalf("head of %d bytes: got %d %q; want %d", size, got.StatusCode, got.body, want)
			}
			if want != 200 {
				c.closed()
				break
			}
		}
	}
}

func TestVersionsAndConnectionOptions(t *testing.T) {
	_, s := start(t, options(), echo)
	f := func(head, connection string) {
		t.Helper()
		c := dial(t, s)
		c.send("%s\r\n\r\n", head)
		got := c.answer("GET")
		if got.StatusCode != 200 || got.Header.Get("Connection") != connection && !(connection == "close" && got.Close) {
			t.Fatalf("%q: got %d %v", head, got.StatusCode, got.Header)
		}
		if connection == "close" {
			c.closed()
		} else if got := c.get("/"); got.StatusCode != 200 {
			t.Fatalf("%q: the connection does not live on", head)
		}
	}
	f("GET / HTTP/1.1\r\nHost: a", "")
	f("GET / HTTP/1.1\r\nHost: a\r\nConnection: close", "close")
	f("GET / HTTP/1.0\r\nHost: a", "close")
	f("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive", "keep-alive")
}

func TestHeadThatOutgrowsTheBufferOfAnOldConnection(t *testing.T) {
	o := options()
	o.MaxHeader = 2048
	o.PlainFront = false // its connections have no buffer of their own
	f, s := start(t, o, echo)
	c := dial(t, s)
	c.get("/")
	o.MaxHeader = 8192
	f.Apply(o, 0, nil)
	head := "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 4000) + "\r\n\r\n"
	c.send("%s", head)
	if got := c.answer("GET"); got.StatusCode != 431 {
		t.Errorf("got %d %q", got.StatusCode, got.body)
	}
	c = dial(t, s)
	c.send("%s", head)
	if got := c.answer("GET"); got.StatusCode != 200 {
		t.Errorf("got %d %q", got.StatusCode, got.body)
	}
}
