package upstream_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"gateway/internal/origin"
	"gateway/upstream"
	"gateway/wire"
)

const getHead = "GET / HTTP/1.1\r\nHost: test\r\n\r\n"

// endpoint is one for the origin, with changes to the usual options.
func endpoint(t testing.TB, network, address string, change ...func(*upstream.EndpointOptions)) *upstream.Endpoint {
	o := upstream.EndpointOptions{Network: network, Address: address, MaxIdle: 16, IdleTimeout: time.Minute}
	for _, f := range change {
		f(&o)
	}
	e := upstream.NewEndpoint(o)
	t.Cleanup(e.Retire)
	return e
}

func start(t testing.TB, s origin.Script) (*origin.Origin, *upstream.Endpoint) {
	o := origin.Start(t, s)
	return o, endpoint(t, o.Network, o.Address)
}

// get is a GET with generous deadlines.
func get(c *upstream.Call) *upstream.Call { return request(c, wire.MethodGet, getHead) }

func request(c *upstream.Call, m wire.Method, head string) *upstream.Call {
	c.Reset()
	c.Method, c.Head = m, []byte(head)
	c.ConnectTimeout, c.FirstByteTimeout, c.BetweenTimeout = time.Minute, time.Minute, time.Minute
	return c
}

// must is Do that has to end as expected.
func must(t testing.TB, c *upstream.Call, e *upstream.Endpoint, want upstream.Outcome) {
	t.Helper()
	if got := c.Do(e); got != want {
		t.Fatalf("outcome is %v (fault %v, cause %v), want %v", got, c.Fault(), c.Cause(), want)
	}
}

// body reads the response body to its end or error.
func body(c *upstream.Call) (string, error) {
	var b strings.Builder
	for {
		p, err := c.Next()
		b.Write(p)
		if err == io.EOF {
			return b.String(), nil
		}
		if err != nil {
			return b.String(), err
		}
	}
}

func mustBody(t testing.TB, c *upstream.Call, want string) {
	t.Helper()
	got, err := body(c)
	if err != nil {
		t.Fatalf("body ends with %v after %d bytes", err, len(got))
	}
	if got != want {
		t.Fatalf("body is %.80q (%d bytes), want %.80q (%d bytes)", got, len(got), want, len(want))
	}
}

// eventually polls a condition.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func open(e *upstream.Endpoint) int { n, _ := e.Stats(); return n }
func idle(e *upstream.Endpoint) int { _, n := e.Stats(); return n }

// noLeak fails the test if goroutines that it started are left over when all
// its other cleanups are done.
func noLeak(t testing.TB) {
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				stacks := make([]byte, 1<<20)
				t.Fatalf("goroutines are left over:\n%s", stacks[:runtime.Stack(stacks, true)])
			}
		}
	})
}

func TestSmallResponseIsWholeAndItsConnectionFree(t *testing.T) {
	noLeak(t)
	for _, o := range []*origin.Origin{origin.Start(t, origin.Echo), origin.StartUnix(t, origin.Echo)} {
		e := endpoint(t, o.Network, o.Address)
		var c upstream.Call
		const head = "POST /x HTTP/1.1\r\nContent-Length: 4\r\n\r\n"
		for i := range 5 {
			request(&c, wire.MethodPost, head).Body = []byte("body")
			must(t, &c, e, upstream.OK)
			if c.Reused() != (i > 0) || !c.Sent() {
				t.Errorf("request %d: reused %v, sent %v", i, c.Reused(), c.Sent())
			}
			if open(e) != 1 || idle(e) != 1 {
				t.Errorf("%d open, %d idle before the body was taken", open(e), idle(e))
			}
			whole, ok := c.Whole()
			if !ok || string(whole) != head+"body" {
				t.Errorf("whole is %q, %v", whole, ok)
			}
			mustBody(t, &c, head+"body")
			c.End()
			c.End()
		}
		if o.Connections() != 1 {
			t.Errorf("%d connections", o.Connections())
		}
		e.Retire()
		if open(e) != 0 {
			t.Errorf("%d connections open after Retire", open(e))
		}
	}
}

func TestBodiesOfEachFraming(t *testing.T) {
	noLeak(t)
	const big = 1_000_000
	f := func(name string, m wire.Method, response, want string, whole, reusable bool) {
		t.Run(name, func(t *testing.T) {
			_, e := start(t, func(c *origin.Conn) {
				c.Read()
				c.Write(response)
				if reusable {
					c.AwaitClose()
				}
			})
			var c upstream.Call
			must(t, request(&c, m, getHead), e, upstream.OK)
			if _, ok := c.Whole(); ok != whole {
				t.Errorf("whole is %v", ok)
			}
			mustBody(t, &c, want)
			if _, err := c.Next(); err != io.EOF {
				t.Errorf("after the end: %v", err)
			}
			c.End()
			if (idle(e) == 1) != reusable || open(e) != idle(e) {
				t.Errorf("%d open, %d idle", open(e), idle(e))
			}
		})
	}
	get := wire.MethodGet
	f("length", get, origin.OK("hello"), "hello", true, true)
	f("length 0", get, origin.OK(""), "", true, true)
	f("length 64 KiB", get, origin.OK(origin.Filler(64<<10)), origin.Filler(64<<10), true, true)
	f("length 9000", get, origin.OK(origin.Filler(9000)), origin.Filler(9000), true, true)
	f("large length", get, origin.OK(origin.Filler(big)), origin.Filler(big), false, true)
	f("large chunks", get, origin.Chunked(origin.Filler(big), "x", origin.Filler(big)), origin.Filler(big)+"x"+origin.Filler(big), false, true)
	f("chunks", get, origin.Chunked("hel", "lo", " world"), "hello world", true, true)
	f("no chunk", get, origin.Chunked(), "", true, true)
	f("until close", get, "HTTP/1.1 200 OK\r\n\r\n"+origin.Filler(big), origin.Filler(big), false, false)
	f("HTTP/1.0", get, "HTTP/1.0 200 OK\r\n\r\nold", "old", false, false)
	f("close", get, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nab", "ab", true, false)
	f("head", wire.MethodHead, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", "", true, true)
	f("204", get, "HTTP/1.1 204 No Content\r\n\r\n", "", true, true)
	f("304", get, "HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n", "", true, true)
	f("surplus", get, origin.OK("hello")+"!", "hello", true, false)
	f("surplus after chunks", get, origin.Chunked("hello")+"!", "hello", true, false)
	f("body of a head", wire.MethodHead, origin.OK("hello"), "", true, false)
	f("interim with a body", get, "HTTP/1.1 103 Early Hints\r\nContent-Length: 3\r\n\r\n"+origin.OK("x"), "x", true, false)
}

func TestTrailersArePassedOn(t *testing.T) {
	_, e := start(t, func(c *origin.Conn) {
		c.Read()
		c.Write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
		c.Sleep(5 * time.Millisecond)
		c.Write("0\r\nDigest: abc\r\n\r\n")
		c.AwaitClose()
	})
	var c upstream.Call
	must(t, get(&c), e, upstream.OK)
	mustBody(t, &c, "x")
	if got := string(c.Trailer()); got != "Digest: abc\r\n" {
		t.Errorf("trailer is %q", got)
	}
	c.End()
	if idle(e) != 1 {
		t.Error("connection was not kept")
	}
}

func TestHeadInSingleBytes(t *testing.T) {
	response := "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + origin.Chunked("hel", "lo")
	_, e := start(t, func(c *origin.Conn) {
		c.Read()
		for i := range response {
			c.Write(response[i : i+1])
		}
		c.AwaitClose()
	})
	var c upstream.Call
	must(t, get(&c), e, upstream.OK)
	mustBody(t, &c, "hello")
}

func TestTruncatedBodiesAreErrors(t *testing.T) {
	noLeak(t)
	f := func(name, response string, given int) {
		for _, reset := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				_, e := start(t, func(c *origin.Conn) {
					c.Read()
					c.Write(response)
					if reset {
						c.Reset()
					}
				})
				var c upstream.Call
				must(t, get(&c), e, upstream.OK)
				if _, ok := c.Whole(); ok {
					t.Error("a truncated body is whole")
				}
				got, err := body(&c)
				if err != io.ErrUnexpectedEOF {
					t.Errorf("error is %v", err)
				}
				if !reset && len(got) != given {
					t.Errorf("%d bytes were given", len(got))
				}
				c.End()
				if open(e) != 0 {
					t.Errorf("%d connections open", open(e))
				}
			})
		}
	}
	f("small", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", 0)
	f("large", "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"+origin.Filler(90000), 90000)
	f("chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", 5)
	f("within a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", 3)
	f("before the last line end", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", 0)
}

func TestResetEndsNoBodyUntilClose(t *testing.T) {
	sent := make(chan struct{})
	_, e := start(t, func(c *origin.Conn) {
		c.Read()
		c.Write("HTTP/1.1 200 OK\r\n\r\nhello")
		c.Wait(sent)
		c.Reset()
	})
	var c upstream.Call
	must(t, get(&c), e, upstream.OK)
	close(sent)
	if _, err := body(&c); err != io.ErrUnexpectedEOF {
		t.Errorf("error is %v", err)
	}
	c.End()
}

func TestBadChunksAreFaults(t *testing.T) {
	for _, bad := range []string{"x\r\n", "5 \r\nhello", "5\nhello", "5\r\nhelloX"} {
		_, e := start(t, func(c *origin.Conn) {
			c.Read()
			c.Write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + bad)
			c.AwaitClose()
		})
		var c upstream.Call
		must(t, get(&c), e, upstream.OK)
		_, err := body(&c)
		var fault *upstream.FaultError
		if !errors.As(err, &fault) || fault.Fault != wire.BadChunk {
			t.Errorf("%q: error is %v", bad, err)
		}
		c.End()
		if open(e) != 0 {
			t.Errorf("%d connections open", open(e))
		}
	}
}

func TestStreamIsGivenAsItArrives(t *testing.T) {
	next := make(chan struct{})
	_, e := start(t, func(c *origin.Conn) {
		c.Read()
		c.Write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
		for range 20 {
			c.Wait(next)
			c.Write("8\r\ndata: x\n\r\n")
		}
		c.Wait(next)
		c.Write("0\r\n\r\n")
		c.AwaitClose()
	})
	var c upstream.Call
	must(t, get(&c), e, upstream.OK)
	for range 20 {
		next <- struct{}{}
		if p, err := c.Next(); string(p) != "data: x\n" || err != nil {
			t.Fatalf("piece is %q, %v", p, err)
		}
	}
	close(next)
	if _, err := c.Next(); err != io.EOF {
		t.Errorf("end is %v", err)
	}
}

func TestLargeBodyTakesBoundedMemory(t *testing.T) {
	const size = 64 << 20
	_, e := start(t, func(c *origin.Conn) {
		c.Read()
		c.Write("HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n")
		c.Fill(size)
		c.AwaitClose()
	})
	var c upstream.Call
	must(t, get(&c), e, upstream.OK)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	total, largest := 0, 0
	for {
		p, err := c.Next()
		total += len(p)
		largest = max(largest, len(p))
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if total != size || largest > 256<<10 {
		t.Errorf("%d bytes in pieces of at most %d", total, largest)
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
		t.Errorf("%d bytes allocated", grown)
	}
	c.End()
	if idle(e) != 1 {
		t.Error("connection was not kept")
	}
}

type interims []string

func (i *interims) Interim(status int, h *wire.Header) {
	*i = append(*i, string(rune('0'+status%10))+string(h.Find("link")))
}

func TestInterimResponsesArePassedOn(t *testing.T) {
	_, e := start(t, func(c *origin.Conn) {
		c.Read()
		c.WriteEach(2*time.Millisecond, "HTTP/1.1 100 Continue\r\n\r\n",
			"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTT", "P/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
		c.AwaitClose()
	})
	var c upstream.Call
	var got interims
	get(&c).Interim = &got
	must(t, &c, e, upstream.OK)
	if strings.Join(got, ",") != "0,3a,2" {
		t.Errorf("interim responses are %q", got)
	}
	mustBody(t, &c, "x")
	if idle(e) != 1 {
		t.Error("connection was not kept")
	}
}

func TestInvalidHeads(t *testing.T) {
	noLeak(t)
	f := func(response string, want wire.Fault) {
		t.Helper()
		_, e := start(t, func(c *origin.Conn) {
			c.Read()
			c.Write(response)
			c.AwaitClose()
		})
		var c upstream.Call
		must(t, get(&c), e, upstream.Invalid)
		if c.Fault() != want {
			t.Errorf("%.40q: fault is %v, want %v", response, c.Fault(), want)
		}
		if open(e) != 0 {
			t.Errorf("%.40q: connection is open", response)
		}
	}
	f("SSH-2.0-OpenSSH_9.2\r\n", wire.BadStatusLine)
	f("HTTP/1.1 200 OK\nContent-Length: 1\n\nx", wire.BareLF)
	f("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", wire.DuplicateContentLength)
	f("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx", wire.LengthAndCoding)
	f("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", wire.UnknownCoding)
	f("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", wire.UpgradeRefused)
	f("HTTP/1.1 200 OK\r\nX: "+origin.Filler(70<<10)+"\r\n\r\n", wire.HeaderTooLarge)
	f("HTTP/1.1 200 OK\r\nX: "+origin.Filler(200<<10), wire.HeaderTooLarge)
	f("HTTP/1.1 200 OK\r\n"+strings.Repeat("X: y\r\n", 300)+"\r\n", wire.TooManyFields)
	f(strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 17), wire.BadStatusLine)
}

func TestLargeHeads(t *testing.T) {
	for _, n := range []int{8000, 8192, 40_000, 60_000} {
		_, e := start(t, origin.Reply("HTTP/1.1 103 X\r\n\r\nHTTP/1.1 200 OK\r\nX: "+origin.Filler(n)+"\r\nContent-Length: 5\r\n\r\nhello"))
		var c upstream.Call
		for range 2 {
			must(t, get(&c), e, upstream.OK)
			mustBody(t, &c, "hello")
			if got := len(c.Response.Find("X")); got != n {
				t.Errorf("field has %d bytes, want %d", got, n)
			}
		}
	}
}

func TestUpgradeHandsTheConnectionOver(t *testing.T) {
	noLeak(t)
	_, e := start(t, func(c *origin.Conn) {
		c.Read()
		c.Write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nearly")
		for {
			c.Write(string(rune(c.Byte() + 1)))
		}
	})
	var c upstream.Call
	get(&c).Upgrade = true
	must(t, &c, e, upstream.OK)
	conn, early := c.Hijack()
	defer conn.Close()
	if string(early) != "early" {
		t.Errorf("early bytes are %q", early)
	}
	c.Cancel()
	c.End()
	if open(e) != 0 {
		t.Errorf("%d connections open", open(e))
	}
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(conn, "a"); err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	if _, err := conn.Read(b[:]); err != nil || b[0] != 'b' {
		t.Errorf("tunnel gave %q, %v", b, err)
	}

	// Without Hijack the connection is closed, and a refusal is a response.
	must(t, func() *upstream.Call { get(&c).Upgrade = true; return &c }(), e, upstream.OK)
	c.End()
	if open(e) != 0 {
		t.Errorf("%d connections open", open(e))
	}
}

func TestTimeouts(t *testing.T) {
	noLeak(t)
	const short, long = 30 * time.Millisecond, time.Minute
	f := func(name, response string, c *upstream.Call, want upstream.Outcome) {
		t.Run(name, func(t *testing.T) {
			_, e := start(t, func(c *origin.Conn) {
				c.Read()
				c.Write(response)
				c.AwaitClose()
			})
			began := time.Now()
			must(t, c, e, want)
			if want == upstream.OK {
				if _, err := body(c); err != os.ErrDeadlineExceeded {
					t.Errorf("error is %v", err)
				}
			}
			c.End()
			if took := time.Since(began); took < short/2 || took > long/2 {
				t.Errorf("took %v", took)
			}
			if open(e) != 0 {
				t.Errorf("%d connections open", open(e))
			}
			if !c.Sent() {
				t.Error("not sent")
			}
		})
	}
	call := func(first, between, deadline time.Duration) *upstream.Call {
		c := &upstream.Call{Method: wire.MethodGet, Head: []byte(getHead), FirstByteTimeout: first, BetweenTimeout: between}
		if deadline > 0 {
			c.Deadline = time.Now().Add(deadline)
		}
		return c
	}
	f("first byte", "", call(short, long, 0), upstream.TimedOut)
	f("within head", "HTTP/1.1 200", call(long, short, 0), upstream.TimedOut)
	f("after interim", "HTTP/1.1 102 Processing\r\n\r\n", call(short, long, 0), upstream.TimedOut)
	f("within small body", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", call(long, short, 0), upstream.OK)
	f("within large body", "HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\nx", call(long, short, 0), upstream.OK)
	f("within chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", call(long, short, 0), upstream.OK)
	f("deadline before head", "", call(long, long, short), upstream.DeadlinePassed)
	f("deadline within body", "HTTP/1.1 200 OK\r\n\r\nx", call(long, long, short), upstream.OK)
	f("deadline alone", "", call(0, 0, short), upstream.DeadlinePassed)

	_, e := start(t, origin.Echo)
	c := call(long, long, 0)
	c.Deadline = time.Now().Add(-time.Second)
	must(t, c, e, upstream.DeadlinePassed)
	if c.Sent() || open(e) != 0 {
		t.Error("a passed deadline was not respected")
	}
}

func TestOriginThatHangsUp(t *testing.T) {
	noLeak(t)
	f := func(name string, s origin.Script, want upstream.Outcome) {
		t.Run(name, func(t *testing.T) {
			_, e := start(t, s)
			var c upstream.Call
			must(t, get(&c), e, want)
			if open(e) != 0 {
				t.Errorf("%d connections open", open(e))
			}
		})
	}
	f("close", func(c *origin.Conn) { c.Read() }, upstream.Reset)
	f("reset", func(c *origin.Conn) { c.Read(); c.Reset() }, upstream.Reset)
	f("within head", func(c *origin.Conn) { c.Read(); c.Write("HTTP/1.1 200 OK\r\nA: b\r\n") }, upstream.Reset)
	f("garbage", func(c *origin.Conn) { c.Read(); c.Write("HTTP/1.1 200 OK\r\nA b") }, upstream.Invalid)
	f("after interim", func(c *origin.Conn) { c.Read(); c.Write("HTTP/1.1 100 Continue\r\n\r\n") }, upstream.Reset)
}

// Of two uses of a connection that is closed without a byte, the one after a
// pause is nobody's fault.
func TestConnectionClosedInTheRaceIsStale(t *testing.T) {
	o, e := start(t, func(c *origin.Conn) {
		c.Read()
		c.Write(origin.OK("x"))
		c.ReadHead()
		if c.Number > 0 {
			c.Reset()
		}
	})
	var c upstream.Call
	for i, want := range []upstream.Outcome{upstream.Reset, upstream.Stale} {
		must(t, get(&c), e, upstream.OK)
		c.End()
		time.Sleep(time.Duration(i) * 1100 * time.Millisecond)
		must(t, get(&c), e, want)
		if !c.Sent() || !c.Reused() {
			t.Errorf("sent %v, reused %v", c.Sent(), c.Reused())
		}
	}
	if o.Connections() != 2 {
		t.Errorf("%d connections", o.Connections())
	}
}

func TestClosedIdleConnectionIsNotUsed(t *testing.T) {
	o, e := start(t, origin.Reply(origin.OK("x")))
	var c upstream.Call
	for i := range 5 {
		must(t, get(&c), e, upstream.OK)
		if c.Reused() {
			t.Errorf("request %d went over a closed connection", i)
		}
		c.End()
		eventually(t, "idle connection closed", func() bool { return o.CloseIdle() == 1 })
	}
}

// What an origin sends unasked must never become the answer to a later request.
func TestUnsolicitedResponseIsNotGivenToTheNextRequest(t *testing.T) {
	sent := make(chan struct{})
	o, e := start(t, func(c *origin.Conn) {
		c.Read()
		c.Write(origin.OK("first"))
		if c.Number == 0 {
			c.Sleep(5 * time.Millisecond)
			c.Write(origin.OK("poison"))
			close(sent)
		}
		c.Read()
		c.Write(origin.OK("second"))
		c.AwaitClose()
	})
	var c upstream.Call
	must(t, get(&c), e, upstream.OK)
	mustBody(t, &c, "first")
	<-sent
	must(t, get(&c), e, upstream.OK)
	mustBody(t, &c, "first")
	if c.Reused() || o.Connections() != 2 {
		t.Error("poisoned connection was used again")
	}
}

// An origin that is overloaded may answer and close without reading.
func TestAnswerBeforeTheRequestIsRead(t *testing.T) {
	for range 20 {
		_, e := start(t, func(c *origin.Conn) {
			c.Write("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy")
		})
		var c upstream.Call
		request(&c, wire.MethodPost, "POST / HTTP/1.1\r\nContent-Length: 60000\r\n\r\n").Body = []byte(origin.Filler(60000))
		must(t, &c, e, upstream.OK)
		if c.Response.Status != 503 {
			t.Errorf("status is %d", c.Response.Status)
		}
		mustBody(t, &c, "busy")
		if open(e) != 0 {
			t.Errorf("%d connections open", open(e))
		}
	}
}

func TestBodyLeftUnreadClosesTheConnection(t *testing.T) {
	_, e := start(t, origin.Reply(origin.OK(origin.Filler(1_000_000))))
	var c upstream.Call
	for range 3 {
		must(t, get(&c), e, upstream.OK)
		if _, err := c.Next(); err != nil {
			t.Fatal(err)
		}
		c.End()
		if open(e) != 0 {
			t.Errorf("%d connections open", open(e))
		}
	}
}

func TestCancelInterrupts(t *testing.T) {
	noLeak(t)
	f := func(name, response string) {
		t.Run(name, func(t *testing.T) {
			reached := make(chan struct{})
			_, e := start(t, func(c *origin.Conn) {
				c.Read()
				c.Write(response)
				close(reached)
				c.AwaitClose()
			})
			var c upstream.Call
			var cancelled time.Time
			done := make(chan struct{})
			get(&c)
			go func() {
				<-reached
				time.Sleep(10 * time.Millisecond)
				cancelled = time.Now()
				c.Cancel()
				close(done)
			}()
			if outcome := c.Do(e); outcome == upstream.OK {
				if _, err := body(&c); err != upstream.ErrCancelled {
					t.Errorf("error is %v", err)
				}
			} else if outcome != upstream.Cancelled {
				t.Errorf("outcome is %v", outcome)
			}
			c.End()
			<-done
			if took := time.Since(cancelled); took > 5*time.Second {
				t.Errorf("took %v", took)
			}
			if open(e) != 0 {
				t.Errorf("%d connections open", open(e))
			}
		})
	}
	f("head", "")
	f("small body", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
	f("large body", "HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\nx")
	f("chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
}

func TestCancelBetweenUsesDoesNothing(t *testing.T) {
	o, e := start(t, origin.Echo)
	var c upstream.Call
	for range 10 {
		c.Cancel()
		must(t, get(&c), e, upstream.OK)
		c.End()
		c.Cancel()
	}
	if o.Connections() != 1 {
		t.Errorf("%d connections", o.Connections())
	}
}

// Cancelling again and again, at any moment, hurts nothing but the uses that
// it hits, and leaves nothing behind.
func TestCancelStorm(t *testing.T) {
	noLeak(t)
	_, e := start(t, origin.Reply(origin.Chunked("hel", "lo")))
	var c upstream.Call
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Microsecond):
				c.Cancel()
			}
		}
	}()
	ended := map[upstream.Outcome]int{}
	get(&c)
	for range 2000 {
		outcome := c.Do(e)
		ended[outcome]++
		if outcome == upstream.OK {
			if got, err := body(&c); err == nil && got != "hello" {
				t.Fatalf("body is %q", got)
			}
		} else if outcome != upstream.Cancelled {
			t.Fatalf("outcome is %v, cause %v", outcome, c.Cause())
		}
		c.End()
	}
	close(stop)
	<-stopped
	if open(e) != idle(e) {
		t.Errorf("%d open, %d idle", open(e), idle(e))
	}
	t.Log(ended)
}

// Calls that end well, early, or by force, all at once: no response may reach
// another call, and no connection may be lost.
func TestManyCallsAtOnce(t *testing.T) {
	noLeak(t)
	_, e := start(t, func(c *origin.Conn) {
		for {
			r := c.Read()
			if len(r.Target)%2 == 0 {
				c.Write(origin.OK(r.Target))
			} else {
				c.Write(origin.Chunked(r.Target[:1], r.Target[1:]))
			}
			if c.Number%5 == 4 {
				return
			}
		}
	})
	var all sync.WaitGroup
	for g := range 16 {
		all.Go(func() {
			var c upstream.Call
			for i := range 200 {
				target := fmt.Sprintf("/%d/%d", g, i)
				request(&c, wire.MethodGet, "GET "+target+" HTTP/1.1\r\nHost: test\r\n\r\n").Fresh = i%3 == 0
				var interrupted chan struct{}
				if i%10 == 9 {
					interrupted = make(chan struct{})
					go func() {
						c.Cancel()
						close(interrupted)
					}()
				}
				switch outcome := c.Do(e); outcome {
				case upstream.OK:
					if got, err := body(&c); err == nil && got != target {
						t.Errorf("%s got the response to %s", target, got)
					}
				case upstream.Stale, upstream.Reset: // in the race with the origin's close
					if !c.Reused() {
						t.Errorf("%s: outcome is %v on a new connection, cause %v", target, outcome, c.Cause())
					}
				case upstream.Cancelled:
					if interrupted == nil {
						t.Errorf("%s was cancelled by nobody", target)
					}
				default:
					t.Errorf("%s: outcome is %v, cause %v", target, outcome, c.Cause())
				}
				c.End()
				if interrupted != nil {
					<-interrupted
				}
			}
		})
	}
	all.Wait()
	if open(e) != idle(e) || idle(e) > 16 {
		t.Errorf("%d open, %d idle", open(e), idle(e))
	}
}
