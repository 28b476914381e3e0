package listener

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"gateway/exchange"
	"gateway/internal/unit"
	"gateway/wire"
)

func TestMalformedBodiesAreErrors(t *testing.T) {
	_, s := start(t, options(), echo)
	f := func(body, want string) {
		t.Helper()
		c := dial(t, s)
		c.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%s", body)
		if got := c.answer("POST"); got.StatusCode != 400 || !strings.Contains(got.body, want) || !got.Close {
			t.Errorf("%q: got %d %q %v", body, got.StatusCode, got.body, got.Header)
		}
		c.closed()
	}
	f("x\r\n", "malformed request body: "+wire.BadChunk.String())
	f("1\nx\r\n0\r\n\r\n", wire.BadChunk.String())
	f("1;\x01\r\nx\r\n0\r\n\r\n", wire.BadChunk.String())
	f("1\r\nxy\r\n0\r\n\r\n", wire.BadChunk.String())
	f("0\r\nContent-Length: 1\r\n\r\n", wire.BadTrailer.String())
}

func TestRequestBodyIsCutShort(t *testing.T) {
	errs := make(chan error, 1)
	_, s := start(t, options(), func(x *exchange.Exchange) {
		_, err := readAll(x)
		errs <- err
		reply(x, 400, "")
	})
	for _, framing := range []string{"Content-Length: 5", "Transfer-Encoding: chunked"} {
		c := dial(t, s)
		c.send("POST / HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n4\r\n", framing)
		c.Conn.(*net.TCPConn).CloseWrite()
		if err := <-errs; err != io.ErrUnexpectedEOF {
			t.Errorf("%s: got %v", framing, err)
		}
	}
}

func TestTrailerOfTheRequest(t *testing.T) {
	_, s := start(t, options(), func(x *exchange.Exchange) {
		body, err := readAll(x)
		reply(x, 200, fmt.Sprintf("%q %v %q", body, err, x.Client.BodyTrailer()))
	})
	c := dial(t, s)
	c.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nsum: 1\r\n\r\n")
	if got := c.answer("POST"); got.body != `"x" <nil> "sum: 1\r\n"` {
		t.Errorf("got %s", got.body)
	}
	c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\ny")
	if got := c.answer("POST"); got.body != `"y" <nil> ""` {
		t.Errorf("a trailer survived its request: %s", got.body)
	}
}

func TestContinueIsSentOnceAndOnlyWhenTheBodyIsWanted(t *testing.T) {
	_, s := start(t, options(), func(x *exchange.Exchange) {
		if string(x.Request.Path) == "/refuse" {
			reply(x, 413, "no")
			return
		}
		echo(x)
	})
	const head = "POST %s HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n%s\r\n\r\n"

	c := dial(t, s)
	for _, framing := range []string{"Content-Length: 5", "Transfer-Encoding: chunked"} {
		c.send(head, "/", framing)
		line, err := c.r.ReadString('\n')
		if err != nil || line != "HTTP/1.1 100 Continue\r\n" {
			t.Fatalf("got %q, %v", line, err)
		}
		c.r.ReadString('\n')
		c.send(map[bool]string{true: "hello", false: "5\r\nhello\r\n0\r\n\r\n"}[framing == "Content-Length: 5"])
		if got := c.answer("POST"); got.StatusCode != 200 || got.body != `POST a / "hello"` {
			t.Fatalf("%s: got %d %q", framing, got.StatusCode, got.body)
		}
	}

	// A client that sends without waiting needs no word.
	c.send(head+"hello", "/", "Content-Length: 5")
	if got := c.answer("POST"); got.StatusCode != 200 {
		t.Fatalf("got %d", got.StatusCode)
	}

	c.send(head, "/refuse", "Content-Length: 5")
	if got := c.answer("POST"); got.StatusCode != 413 || !got.Close {
		t.Fatalf("refused: got %d %v", got.StatusCode, got.Header)
	}
	c.closed()
}

func TestAnswerBeforeTheBodyHasComeReachesTheClient(t *testing.T) {
	// No byte of the body has to arrive before the handler runs.
	_, s := start(t, options(), func(x *exchange.Exchange) { reply(x, 401, "who?") })
	for _, framing := range []string{"Content-Length: 100000000", "Transfer-Encoding: chunked"} {
		c := dial(t, s)
		c.send("POST / HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n", framing)
		if got := c.answer("POST"); got.StatusCode != 401 || !got.Close {
			t.Fatalf("%s: got %d %v", framing, got.StatusCode, got.Header)
		}
	}
}

func TestUnreadBodyDoesNotResetTheAnswer(t *testing.T) {
	_, s := start(t, options(), func(x *exchange.Exchange) { reply(x, 413, "too large") })
	c := dial(t, s)
	c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8000000\r\n\r\n")
	chunk := strings.Repeat("x", 100000)
	for range 80 { // the client reads only when it has sent everything
		c.send("%s", chunk)
	}
	if got := c.answer("POST"); got.StatusCode != 413 || got.body != "too large" {
		t.Fatalf("got %d %q", got.StatusCode, got.body)
	}
	c.closed()
}

func TestSmallUnreadBodyKeepsTheConnection(t *testing.T) {
	_, s := start(t, options(), func(x *exchange.Exchange) { reply(x, 200, string(x.Request.Path)) })
	c := dial(t, s)
	c.send("POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n%s", strings.Repeat("x", 60000))
	c.send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
	for _, want := range []string{"/1", "/2"} {
		if got := c.answer("POST"); got.Close || got.body != want {
			t.Fatalf("got %v %q", got.Header, got.body)
		}
	}
}

func TestSlowBodyIsTimedOutAndSlowlyMovingOneIsNot(t *testing.T) {
	o := options()
	o.BodyTimeout = time.Second
	errs := make(chan error, 1)
	_, s := start(t, o, func(x *exchange.Exchange) {
		_, err := readAll(x)
		errs <- err
		reply(x, 408, "")
	})
	c := dial(t, s)
	c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n")
	begun := time.Now()
	for range 7 { // more than the timeout in all
		time.Sleep(200 * time.Millisecond)
		begun = time.Now()
		c.send("x")
	}
	if err := <-errs; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	if took := time.Since(begun); took < 900*time.Millisecond || took > 5*time.Second {
		t.Errorf("timed out after %v", took)
	}
	if got := c.answer("POST"); got.StatusCode != 408 {
		t.Fatalf("got %d", got.StatusCode)
	}
}

func TestAbortBodyInterruptsAndClosesTheConnection(t *testing.T) {
	errs := make(chan error, 1)
	_, s := start(t, options(), func(x *exchange.Exchange) {
		began := make(chan bool)
		go func() {
			close(began)
			_, err := readAll(x)
			errs <- err
		}()
		<-began
		x.Client.AbortBody()
		if err := <-errs; err == nil || err == io.EOF {
			t.Errorf("ReadBody returned %v", err)
		}
		reply(x, 200, "enough")
	})
	for range 20 {
		c := dial(t, s)
		c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nxx")
		if got := c.answer("POST"); got.StatusCode != 200 || !got.Close {
			t.Fatalf("got %d %v", got.StatusCode, got.Header)
		}
		c.closed()
	}
}

func TestAnswerWhileTheBodyIsRead(t *testing.T) {
	// An upload in its own goroutine, its answer streamed meanwhile.
	_, s := start(t, options(), func(x *exchange.Exchange) {
		pieces := make(chan []byte)
		go func() {
			defer close(pieces)
			for {
				p := make([]byte, 512)
				n, err := x.Client.ReadBody(p)
				pieces <- p[:n]
				if err != nil {
					return
				}
			}
		}()
		x.Own(200)
		x.Response.Length = wire.LengthUntilClose
		x.Client.Begin(x, nil, false)
		for p := range pieces {
			x.Client.Write(p)
		}
		x.Client.End(nil)
	})
	c := dial(t, s)
	want := bytes.Repeat([]byte("0123456789"), 50000)
	go func() {
		fmt.Fprintf(c.Conn, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", len(want))
		c.Conn.Write(want)
	}()
	got := c.answer("POST")
	if got.StatusCode == 100 {
		got = c.answer("POST")
	}
	if got.err != nil || got.body != string(want) {
		t.Fatalf("got %d bytes, %v", len(got.body), got.err)
	}
}

func FuzzConnection(f *testing.F) {
	f.Add([]byte("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), uint16(50))
	f.Add([]byte("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r!GET / HTTP/1.1\r\nHost: a\r\n\r\n"), uint16(61))
	f.Add([]byte("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\nx\r\n\r\n"), uint16(3))
	f.Add([]byte("GET / HTTP/1.0\r\n\n\r\n\r\n"), uint16(1))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n"), uint16(30))
	o := options()
	o.MaxHeader, o.MaxURI, o.HeaderTimeout = unit.KiB, 256, time.Second
	var heads, bodies bytes.Buffer // what the handler has understood
	_, s := start(f, o, func(x *exchange.Exchange) {
		if x.Fault == wire.NoFault {
			fmt.Fprintf(&heads, "%s %s;", x.Request.MethodText, x.Request.Target)
			body, err := readAll(x)
			if err != nil {
				body = "" // how much of it comes before its fault does depend on the cut
			}
			fmt.Fprintf(&bodies, "%q %v;", body, err)
		}
		reply(x, 200, "")
	})
	// However the bytes are cut, the same requests are understood.
	f.Fuzz(func(t *testing.T, b []byte, at uint16) {
		run := func(parts ...[]byte) string {
			heads.Reset()
			bodies.Reset()
			c := dial(t, s)
			for _, p := range parts {
				c.Conn.Write(p)
			}
			c.Conn.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, c.r)
			c.Close()
			within(t, "the connection ended", func() bool { return s.Active() == 0 })
			return heads.String() + bodies.String()
		}
		whole := run(b)
		if cut := int(at) % (len(b) + 1); run(b[:cut], b[cut:]) != whole {
			t.Errorf("%q is understood differently when it comes in two parts, cut at %d", b, cut)
		}
	})
}
