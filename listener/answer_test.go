package listener

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"gateway/exchange"
	"gateway/wire"
)

// raw sends a request and returns everything until the connection ends.
func raw(t *testing.T, s *Socket, request string) (string, error) {
	t.Helper()
	c := dial(t, s)
	c.send("%s", request)
	return c.rest()
}

func TestFramingOfAnswers(t *testing.T) {
	large := strings.Repeat("0123456789abcdef", 4000)
	handlers := make(chan func(x *exchange.Exchange), 1)
	_, s := start(t, options(), func(x *exchange.Exchange) { (<-handlers)(x) })
	own := func(x *exchange.Exchange, status int, length int64) {
		h := x.Own(status)
		h.AddString("X-y", "z")
		h.AddString("Date", "now")
		x.Response.Length = length
	}
	get := "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
	f := func(name, request, want string, h func(x *exchange.Exchange)) {
		t.Helper()
		handlers <- h
		got, err := raw(t, s, request)
		if got != want || err != nil {
			t.Errorf("%s: got %.200q (%d bytes), %v; want %.200q (%d bytes)", name, got, len(got), err, want, len(want))
		}
	}
	f("whole", get, "HTTP/1.1 200 OK\r\nX-y: z\r\nDate: now\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi", func(x *exchange.Exchange) {
		own(x, 200, 2)
		x.Client.Begin(x, []byte("hi"), true)
	})
	f("whole and large", get, "HTTP/1.1 200 OK\r\nX-y: z\r\nDate: now\r\nContent-Length: 64000\r\nConnection: close\r\n\r\n"+large, func(x *exchange.Exchange) {
		own(x, 200, wire.LengthUntilClose)
		x.Client.Begin(x, []byte(large), true)
	})
	f("known length in pieces", get, "HTTP/1.1 200 OK\r\nX-y: z\r\nDate: now\r\nContent-Length: 64003\r\nConnection: close\r\n\r\nabc"+large, func(x *exchange.Exchange) {
		own(x, 200, 64003)
		x.Client.Begin(x, []byte("a"), false)
		x.Client.Write([]byte("bc"))
		x.Client.Write(nil)
		x.Client.Write([]byte(large))
		x.Client.End([]byte("T: dropped\r\n"))
	})
	f("chunked", get, "HTTP/1.1 200 OK\r\nX-y: z\r\nDate: now\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"+
		"1\r\na\r\n10\r\n0123456789abcdef\r\nfa00\r\n"+large+"\r\n0\r\nT: 1\r\n\r\n", func(x *exchange.Exchange) {
		own(x, 200, wire.LengthUntilClose)
		x.Client.Begin(x, []byte("a"), false)
		x.Client.Write([]byte(large[:16]))
		x.Client.Write(nil)
		x.Client.Write([]byte(large))
		x.Client.End([]byte("T: 1\r\n"))
	})
	f("unknown length, HTTP/1.0", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "HTTP/1.1 200 OK\r\nX-y: z\r\nDate: now\r\nConnection: close\r\n\r\nab", func(x *exchange.Exchange) {
		own(x, 200, wire.LengthUntilClose)
		x.Client.Begin(x, nil, false)
		x.Client.Write([]byte("ab"))
		x.Client.End([]byte("T: 1\r\n"))
	})
	f("HEAD", "HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "HTTP/1.1 200 OK\r\nX-y: z\r\nDate: now\r\nContent-Length: 1234\r\nConnection: close\r\n\r\n", func(x *exchange.Exchange) {
		own(x, 200, 1234)
		x.Client.Begin(x, []byte("no"), false)
		x.Client.Write([]byte("no"))
		x.Client.End(nil)
	})
	f("HEAD of unknown length", "HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "HTTP/1.1 200 OK\r\nX-y: z\r\nDate: now\r\nConnection: close\r\n\r\n", func(x *exchange.Exchange) {
		own(x, 200, -1)
		x.Client.Begin(x, nil, true)
	})
	f("204", get, "HTTP/1.1 204 No Content\r\nX-y: z\r\nDate: now\r\nConnection: close\r\n\r\n", func(x *exchange.Exchange) {
		own(x, 204, 0)
		x.Client.Begin(x, nil, true)
	})
	f("304", get, "HTTP/1.1 304 Not Modified\r\nX-y: z\r\nDate: now\r\nContent-Length: 7\r\nConnection: close\r\n\r\n", func(x *exchange.Exchange) {
		own(x, 304, 7)
		x.Client.Begin(x, nil, true)
	})
	f("304 of our own", get, "HTTP/1.1 304 Not Modified\r\nX-y: z\r\nDate: now\r\nConnection: close\r\n\r\n", func(x *exchange.Exchange) {
		own(x, 304, 0)
		x.Client.Begin(x, nil, true)
	})
	f("two framings never leave", get, "HTTP/1.1 200 OK\r\nX-y: z\r\nDate: now\r\nContent-Length: 1\r\nConnection: close\r\n\r\na", func(x *exchange.Exchange) {
		own(x, 200, 1)
		x.Response.Header.AddString("Content-Length", "5")
		x.Response.Header.AddString("Transfer-Encoding", "chunked")
		x.Response.Header.AddString("Connection", "keep-alive")
		x.Client.Begin(x, []byte("a"), true)
	})
	f("interim", get, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nX-y: z\r\nDate: now\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", func(x *exchange.Exchange) {
		var h wire.Header
		h.AddString("Link", "x")
		x.Client.Interim(103, &h)
		own(x, 200, 0)
		x.Client.Begin(x, nil, true)
	})
	f("interim, HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK\r\nX-y: z\r\nDate: now\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", func(x *exchange.Exchange) {
		x.Client.Interim(103, new(wire.Header))
		own(x, 200, 0)
		x.Client.Begin(x, nil, true)
	})
	f("close after", strings.Replace(get, "Connection: close\r\n", "", 1), "HTTP/1.1 200 OK\r\nX-y: z\r\nDate: now\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", func(x *exchange.Exchange) {
		own(x, 200, 0)
		x.Client.CloseAfter()
		x.Client.Begin(x, nil, true)
	})
}

func TestDateIsAddedWhenAbsent(t *testing.T) {
	_, s := start(t, options(), echo)
	got := dial(t, s).get("/")
	at, err := time.Parse("Mon, 02 Jan 2006 15:04:05 GMT", got.Header.Get("Date"))
	if err != nil || time.Since(at).Abs() > 5*time.Second {
		t.Errorf("got %q", got.Header.Get("Date"))
	}
}

func TestAnswerIsOneWrite(t *testing.T) {
	_, s := start(t, options(), func(x *exchange.Exchange) { reply(x, 200, strings.Repeat("x", 4000)) })
	c := dial(t, s)
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	b := make([]byte, 10000)
	n, err := c.Conn.Read(b)
	if err != nil || !bytes.HasSuffix(b[:n], []byte("xxxx")) || n < 4000 {
		t.Errorf("first segment has %d bytes, %v", n, err)
	}
}

func TestIncompleteAnswersAreNeverComplete(t *testing.T) {
	handlers := make(chan func(x *exchange.Exchange) error, 1)
	errs := make(chan error, 1)
	_, s := start(t, options(), func(x *exchange.Exchange) {
		x.Own(200)
		errs <- (<-handlers)(x)
	})
	f := func(name, version string, want error, h func(x *exchange.Exchange) error) {
		t.Helper()
		handlers <- h
		got, err := raw(t, s, "GET / HTTP/1."+version+"\r\nHost: a\r\n\r\n")
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: client got %q, %v", name, got, err)
		}
		if err := <-errs; err != want {
			t.Errorf("%s: error is %v; want %v", name, err, want)
		}
	}
	f("too short", "1", errLength, func(x *exchange.Exchange) error {
		x.Response.Length = 5
		x.Client.Begin(x, []byte("abc"), false)
		return x.Client.End(nil)
	})
	f("too long", "1", errLength, func(x *exchange.Exchange) error {
		x.Response.Length = 5
		x.Client.Begin(x, []byte("abc"), false)
		return x.Client.Write([]byte("def"))
	})
	f("too long at once", "1", errLength, func(x *exchange.Exchange) error {
		x.Response.Length = 5
		return x.Client.Begin(x, []byte("abcdef"), false)
	})
	f("whole and short", "1", errLength, func(x *exchange.Exchange) error {
		x.Response.Length = 5
		return x.Client.Begin(x, []byte("abc"), true)
	})
	f("aborted chunks", "1", errClosed, func(x *exchange.Exchange) error {
		x.Response.Length = wire.LengthUntilClose
		x.Client.Begin(x, []byte("abc"), false)
		x.Client.Abort()
		return x.Client.Write([]byte("abc"))
	})
	f("aborted until close", "0", errClosed, func(x *exchange.Exchange) error {
		x.Response.Length = wire.LengthUntilClose
		x.Client.Begin(x, []byte("abc"), false)
		x.Client.Abort()
		return x.Client.End(nil)
	})
	f("forgotten end", "0", nil, func(x *exchange.Exchange) error {
		x.Response.Length = wire.LengthUntilClose
		return x.Client.Begin(x, []byte("abc"), false)
	})
	f("no answer", "1", nil, func(x *exchange.Exchange) error { return nil })
}

func TestStalledClientIsCutAndSlowOneIsServed(t *testing.T) {
	o := options()
	o.WriteTimeout = 300 * time.Millisecond
	errs := make(chan error, 1)
	const size = 16 << 20
	piece := make([]byte, 256<<10)
	_, s := start(t, o, func(x *exchange.Exchange) {
		x.Own(200)
		x.Response.Length = size
		err := x.Client.Begin(x, nil, false)
		for n := 0; n < size && err == nil; n += len(piece) {
			err = x.Client.Write(piece)
		}
		if err == nil {
			err = x.Client.End(nil)
		}
		errs <- err
	})
	slow := func() *client {
		c := dial(t, s)
		c.Conn.(*net.TCPConn).SetReadBuffer(16 << 10)
		c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		return c
	}
	begun := time.Now()
	c := slow()
	if err := <-errs; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("stalled: got %v", err)
	}
	if took := time.Since(begun); took < o.WriteTimeout || took > 10*o.WriteTimeout {
		t.Errorf("cut after %v", took)
	}
	if _, err := io.Copy(io.Discard, c.Conn); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the cut looks like an end: %v", err)
	}

	c = slow()
	b := make([]byte, 1<<20)
	total := 0
	for pause := range 12 { // well over the write timeout in all
		if pause < 8 {
			time.Sleep(100 * time.Millisecond)
		}
		n, err := io.ReadFull(c.Conn, b)
		total += n
		if err != nil {
			t.Fatalf("slow: %v after %d bytes", err, total)
		}
	}
	n, _ := io.CopyN(io.Discard, c.Conn, size-int64(total))
	if err := <-errs; err != nil || int64(total)+n < size {
		t.Errorf("slow: %v, %d bytes", err, int64(total)+n)
	}
}

func TestClientsThatStopReadingCostLittleMemory(t *testing.T) {
	piece := make([]byte, 64<<10)
	writing := make(chan bool, 50)
	_, s := start(t, options(), func(x *exchange.Exchange) {
		x.Own(200)
		x.Response.Length = 100 << 20
		err := x.Client.Begin(x, nil, false)
		for n := 0; n < 100<<20 && err == nil; n += len(piece) {
			if n == 0 {
				writing <- true
			}
			err = x.Client.Write(piece)
		}
		x.Client.Abort()
	})
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	before := heap()
	for range 50 {
		dial(t, s).send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	}
	for range 50 {
		<-writing
	}
	time.Sleep(200 * time.Millisecond) // until the kernel takes no more
	if cost := int64(heap() - before); cost > 8<<20 {
		t.Errorf("50 stalled clients cost %d KiB of heap", cost>>10)
	}
}

func TestClientThatLeftIsNoticed(t *testing.T) {
	left := make(chan time.Duration, 1)
	_, s := start(t, options(), func(x *exchange.Exchange) {
		if string(x.Request.Path) == "/quick" {
			reply(x, 200, "")
			return
		}
		begun := time.Now()
		for !x.Abandoned() && time.Since(begun) < 5*time.Second {
			time.Sleep(5 * time.Millisecond)
		}
		left <- time.Since(begun)
		x.Client.Abort()
	})
	for _, way := range []string{"close", "reset", "half"} {
		c := dial(t, s)
		c.get("/quick")
		c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		within(t, "the exchange began", func() bool { return s.front.flying() == 1 })
		begun := time.Now()
		switch tcp := c.Conn.(*net.TCPConn); way {
		case "reset":
			tcp.SetLinger(0)
			tcp.Close()
		case "half":
			tcp.CloseWrite()
		default:
			tcp.Close()
		}
		<-left
		if took := time.Since(begun); took > time.Second {
			t.Errorf("%s: noticed after %v", way, took)
		}
		within(t, "the connection ended", func() bool { return s.Active() == 0 })
	}
}

// flying is the number of exchanges that the sweeper knows.
func (f *Front) flying() (n int) {
	for i := range f.flights.shards {
		s := &f.flights.shards[i]
		s.mu.Lock()
		for c := s.first; c != nil; c = c.flight.next {
			n++
		}
		s.mu.Unlock()
	}
	return n
}

func TestSweeperNeverTouchesAnExchangeThatIsOver(t *testing.T) {
	// Exchanges are pooled: a wrong Abandon would hit somebody else's. The
	// handler lingers after its answer while the client leaves.
	_, s := start(t, options(), func(x *exchange.Exchange) {
		reply(x, 200, "")
		if string(x.Request.Path) == "/slow" {
			time.Sleep(600 * time.Millisecond)
		}
		if x.Abandoned() {
			t.Error("abandoned after its answer")
		}
	})
	c := dial(t, s)
	c.get("/slow")
	c.Close()
	within(t, "the connection ended", func() bool { return s.Active() == 0 })
}

func TestAnnouncedCloseOfPipelinedRequestsIsNoReset(t *testing.T) {
	_, s := start(t, options(), func(x *exchange.Exchange) {
		if string(x.Request.Path) == "/3" {
			x.Client.CloseAfter()
		}
		reply(x, 200, string(x.Request.Path))
	})
	c := dial(t, s)
	for i := range 2000 {
		fmt.Fprintf(c.Conn, "GET /%d HTTP/1.1\r\nHost: a\r\n\r\n", i)
	}
	for i := range 4 {
		if got := c.answer("GET"); got.body != fmt.Sprintf("/%d", i) || got.Close != (i == 3) {
			t.Fatalf("got %q %v", got.body, got.Close)
		}
	}
	c.closed()
}
