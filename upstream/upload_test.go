package upstream_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"gateway/internal/origin"
	"gateway/upstream"
	"gateway/wire"
)

// client is the body of a request as a client sends it: pieces from a channel.
type client struct {
	pieces  chan string
	err     error // after the last piece; nil: io.EOF
	trailer string
	rest    string

	once    sync.Once
	aborted chan struct{}
}

func newClient(pieces ...string) *client {
	c := &client{pieces: make(chan string, len(pieces)), aborted: make(chan struct{})}
	for _, p := range pieces {
		c.pieces <- p
	}
	return c
}

// ending closes the body.
func (c *client) ending(err error) *client {
	c.err = err
	close(c.pieces)
	return c
}

func (c *client) ReadBody(p []byte) (int, error) {
	if c.rest == "" {
		select {
		case piece, ok := <-c.pieces:
			if !ok {
				if c.err != nil {
					return 0, c.err
				}
				return 0, io.EOF
			}
			c.rest = piece
		case <-c.aborted:
			return 0, errors.New("aborted")
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *client) BodyTrailer() []byte { return []byte(c.trailer) }
func (c *client) AbortBody()          { c.once.Do(func() { close(c.aborted) }) }

func (c *client) wasAborted() bool {
	select {
	case <-c.aborted:
		return true
	default:
		return false
	}
}

// upload is a request with a streamed body; length may be wire.LengthChunked.
func upload(c *upstream.Call, from *client, length int64) *upstream.Call {
	head := "POST / HTTP/1.1\r\nHost: test\r\n"
	if length >= 0 {
		head += fmt.Sprintf("Content-Length: %d\r\n\r\n", length)
	} else {
		head += "Transfer-Encoding: chunked\r\n\r\n"
	}
	request(c, wire.MethodPost, head)
	c.Upload, c.Length = from, length
	return c
}

func TestUploadArrivesWhole(t *testing.T) {
	noLeak(t)
	received := make(chan *origin.Request, 1)
	o, e := start(t, func(c *origin.Conn) {
		for {
			received <- c.Read()
			c.Write(origin.OK("thanks"))
		}
	})
	var c upstream.Call
	f := func(name string, length int64, trailer string, pieces ...string) {
		t.Helper()
		from := newClient(pieces...).ending(nil)
		from.trailer = trailer
		must(t, upload(&c, from, length), e, upstream.OK)
		mustBody(t, &c, "thanks")
		c.End()
		r := <-received
		if r.Body != strings.Join(pieces, "") || r.Chunked != (length < 0) || r.Trailer != trailer {
			t.Errorf("%s: received %d bytes, chunked %v, trailer %q", name, len(r.Body), r.Chunked, r.Trailer)
		}
		if c.UploadError() != nil || from.wasAborted() {
			t.Errorf("%s: error %v, aborted %v", name, c.UploadError(), from.wasAborted())
		}
		if idle(e) != 1 || o.Connections() != 1 {
			t.Errorf("%s: %d idle, %d connections", name, idle(e), o.Connections())
		}
	}
	const big = 3_000_000
	for range 3 {
		f("length", 11, "", "hello", " world")
		f("chunks", wire.LengthChunked, "", "hello", " world")
		f("empty", wire.LengthChunked, "")
		f("length 0", 0, "")
		f("large", big, "", origin.Filler(big))
		f("large chunks", wire.LengthChunked, "", origin.Filler(big), "x", origin.Filler(big))
		f("trailers", wire.LengthChunked, "Digest: abc\r\nX: y\r\n", "hello")
	}
	// A body in memory that is too large for one write goes the same way.
	request(&c, wire.MethodPost, fmt.Sprintf("POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n", big)).Body = []byte(origin.Filler(big))
	must(t, &c, e, upstream.OK)
	if r := <-received; r.Body != origin.Filler(big) {
		t.Errorf("received %d bytes", len(r.Body))
	}
}

// A request body that ends early must not look complete to the origin.
func TestUploadThatFails(t *testing.T) {
	noLeak(t)
	broken := errors.New("client went away")
	f := func(name string, length int64, end, want error) {
		t.Run(name, func(t *testing.T) {
			result := make(chan error, 1)
			_, e := start(t, func(c *origin.Conn) {
				result <- c.ReadBody(c.ReadHead())
			})
			var c upstream.Call
			must(t, upload(&c, newClient("hello").ending(end), length), e, upstream.UploadFailed)
			if c.UploadError() != want || !c.Sent() {
				t.Errorf("error is %v, sent %v", c.UploadError(), c.Sent())
			}
			if err := <-result; err == nil {
				t.Error("the origin takes the body for complete")
			}
			if open(e) != 0 {
				t.Errorf("%d connections open", open(e))
			}
		})
	}
	f("short", 10, nil, io.ErrUnexpectedEOF)
	f("error", 10, broken, broken)
	f("error in chunks", wire.LengthChunked, broken, broken)
}

// A longer body than announced would be the next request.
func TestUploadSendsNoMoreThanAnnounced(t *testing.T) {
	o, e := start(t, origin.Echo)
	var c upstream.Call
	for range 3 {
		must(t, upload(&c, newClient("hello", "GET /evil HTTP/1.1\r\n\r\n"), 5), e, upstream.OK)
		if got, _ := c.Whole(); !strings.HasSuffix(string(got), "\r\n\r\nhello") {
			t.Errorf("echo is %q", got)
		}
		c.End()
	}
	if o.Requests() != 3 || o.Connections() != 1 {
		t.Errorf("%d requests, %d connections", o.Requests(), o.Connections())
	}
}

func TestEarlyResponseEndsTheUpload(t *testing.T) {
	noLeak(t)
	f := func(name, response, want string, length int64, after func(*origin.Conn)) {
		t.Run(name, func(t *testing.T) {
			_, e := start(t, func(c *origin.Conn) {
				c.ReadHead()
				c.Write(response)
				after(c)
			})
			from := newClient("the first piece, and no other")
			var c upstream.Call
			must(t, upload(&c, from, length), e, upstream.OK)
			mustBody(t, &c, want)
			c.End() // would wait for ever if the client were not interrupted
			if open(e) != 0 || c.UploadError() != nil {
				t.Errorf("%d connections open, error %v", open(e), c.UploadError())
			}
		})
	}
	waits := func(c *origin.Conn) { c.AwaitClose() }
	stalls := func(c *origin.Conn) { c.Stall() }
	const too = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\n\r\nlarge"
	f("small", too, "large", 1_000_000, waits)
	f("small, unread", too, "large", 1_000_000, stalls)
	f("chunked request", too, "large", wire.LengthChunked, waits)
	f("large", origin.OK(origin.Filler(1_000_000)), origin.Filler(1_000_000), 1_000_000, waits)
	f("until close", "HTTP/1.1 413 Content Too Large\r\n\r\nlarge", "large", 1_000_000, func(c *origin.Conn) { c.CloseWrite(); c.AwaitClose() })
}

// An origin that answers and closes while the client still sends resets the
// connection; its answer must arrive all the same.
func TestEarlyResponseAndClose(t *testing.T) {
	noLeak(t)
	for _, size := range []int{10_000, 100_000, 10_000_000} {
		for range 10 {
			_, e := start(t, func(c *origin.Conn) {
				c.ReadHead()
				c.Write("HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 5\r\n\r\nlarge")
			})
			var c upstream.Call
			must(t, upload(&c, newClient(origin.Filler(size)).ending(nil), int64(size)), e, upstream.OK)
			mustBody(t, &c, "large")
			c.End()
			if open(e) != 0 {
				t.Errorf("%d connections open", open(e))
			}
		}
	}
}

func TestBothDirectionsStreamAtOnce(t *testing.T) {
	noLeak(t)
	const size = 20_000_000
	_, e := start(t, func(c *origin.Conn) {
		r := c.ReadHead()
		c.Write(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size))
		c.Fill(size - 1) // reads nothing before
		if err := c.ReadBody(r); err != nil || r.Body != origin.Filler(size) {
			t.Errorf("received %d bytes, %v", len(r.Body), err)
		}
		c.Write("!")
		c.AwaitClose()
	})
	var c upstream.Call
	must(t, upload(&c, newClient(origin.Filler(size)).ending(nil), size), e, upstream.OK)
	for total := 0; total < size; {
		p, err := c.Next()
		if err != nil {
			t.Fatal(err)
		}
		total += len(p)
	}
	c.End()
	if idle(e) != 1 {
		t.Error("connection was not kept")
	}
}

func TestPingPong(t *testing.T) {
	noLeak(t)
	_, e := start(t, func(c *origin.Conn) {
		c.ReadHead()
		c.Write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		for range 10 {
			for range len("1\r\nx\r\n") {
				c.Byte()
			}
			c.Write("1\r\ny\r\n")
		}
		for range len("0\r\n\r\n") {
			c.Byte()
		}
		c.Write("0\r\n\r\n")
		c.AwaitClose()
	})
	from := &client{pieces: make(chan string), aborted: make(chan struct{})}
	var c upstream.Call
	upload(&c, from, wire.LengthChunked).BetweenTimeout = 300 * time.Millisecond
	must(t, &c, e, upstream.OK)
	for i := range 10 {
		if i == 5 { // silence of the origin is no fault while the upload goes on
			time.Sleep(400 * time.Millisecond)
		}
		from.pieces <- "x"
		if p, err := c.Next(); string(p) != "y" || err != nil {
			t.Fatalf("piece %d is %q, %v", i, p, err)
		}
	}
	close(from.pieces)
	if _, err := c.Next(); err != io.EOF {
		t.Fatal(err)
	}
	c.End()
	if idle(e) != 1 {
		t.Error("connection was not kept")
	}
}

func TestFirstByteTimeCountsFromTheEndOfTheUpload(t *testing.T) {
	noLeak(t)
	stall := false
	_, e := start(t, func(c *origin.Conn) {
		for {
			c.Read()
			if stall {
				c.AwaitClose()
				return
			}
			c.Write(origin.OK("x"))
		}
	})
	var c upstream.Call
	f := func(first time.Duration, want upstream.Outcome) {
		from := newClient()
		from.pieces = make(chan string)
		go func() {
			for range 3 {
				time.Sleep(first / 2)
				from.pieces <- "x"
			}
			close(from.pieces)
		}()
		upload(&c, from, wire.LengthChunked).FirstByteTimeout = first
		began := time.Now()
		must(t, &c, e, want)
		c.End()
		if took := time.Since(began); want == upstream.TimedOut && took < 5*first/2 {
			t.Errorf("took %v, less than the upload and the time for the first byte", took)
		}
	}
	f(time.Second, upstream.OK)
	stall = true
	f(50*time.Millisecond, upstream.TimedOut)
	if open(e) != 0 {
		t.Errorf("%d connections open", open(e))
	}
}

func TestOriginThatTakesNothing(t *testing.T) {
	noLeak(t)
	const size = 50_000_000
	_, e := start(t, func(c *origin.Conn) {
		if c.ReadHead(); c.Number == 1 {
			c.Write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
		}
		c.Stall()
	})
	var c upstream.Call
	call := func() *upstream.Call {
		upload(&c, newClient(origin.Filler(size)).ending(nil), size).BetweenTimeout = 100 * time.Millisecond
		return &c
	}
	must(t, call(), e, upstream.TimedOut)
	if !errors.Is(c.Cause(), os.ErrDeadlineExceeded) || c.UploadError() != nil {
		t.Errorf("cause is %v, upload error %v", c.Cause(), c.UploadError())
	}

	// An answer that has begun has its time between two bytes from then on.
	c.Reset()
	must(t, call(), e, upstream.OK)
	if p, err := c.Next(); string(p) != "x" || err != nil {
		t.Errorf("piece is %q, %v", p, err)
	}
	if _, err := c.Next(); err != os.ErrDeadlineExceeded {
		t.Errorf("error is %v", err)
	}
	c.End()
	if open(e) != 0 {
		t.Errorf("%d connections open", open(e))
	}
}

// When the client's body fails after the response has begun, the response goes
// on, and the origin learns that the request is not complete.
func TestUploadFailsDuringTheResponse(t *testing.T) {
	noLeak(t)
	result := make(chan error, 1)
	_, e := start(t, func(c *origin.Conn) {
		r := c.ReadHead()
		c.Write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
		result <- c.ReadBody(r)
		c.Write("1\r\ny\r\n0\r\n\r\n")
		c.AwaitClose()
	})
	broken := errors.New("broken")
	from := newClient("hello")
	var c upstream.Call
	must(t, upload(&c, from, wire.LengthChunked), e, upstream.OK)
	from.ending(broken)
	mustBody(t, &c, "xy")
	c.End()
	if err := <-result; err != io.ErrUnexpectedEOF {
		t.Errorf("the origin's body ended with %v", err)
	}
	if c.UploadError() != broken || open(e) != 0 {
		t.Errorf("upload error is %v, %d connections open", c.UploadError(), open(e))
	}
}

func TestCancelInterruptsUploads(t *testing.T) {
	noLeak(t)
	f := func(name, response string, pieces ...string) {
		t.Run(name, func(t *testing.T) {
			reached := make(chan struct{})
			_, e := start(t, func(c *origin.Conn) {
				c.ReadHead()
				c.Write(response)
				close(reached)
				c.Stall()
			})
			from := newClient(pieces...)
			var c upstream.Call
			upload(&c, from, 100_000_000)
			done := make(chan time.Time)
			go func() {
				<-reached
				time.Sleep(20 * time.Millisecond)
				now := time.Now()
				c.Cancel()
				done <- now
			}()
			if outcome := c.Do(e); outcome == upstream.OK {
				if _, err := body(&c); err != upstream.ErrCancelled {
					t.Errorf("error is %v", err)
				}
			} else if outcome != upstream.Cancelled {
				t.Errorf("outcome is %v", outcome)
			}
			c.End()
			if took := time.Since(<-done); took > 5*time.Second {
				t.Errorf("took %v", took)
			}
			if open(e) != 0 || c.UploadError() != nil {
				t.Errorf("%d connections open, error %v", open(e), c.UploadError())
			}
		})
	}
	f("client reads nothing", "")
	f("origin takes nothing", "", origin.Filler(50_000_000))
	f("during the response", "HTTP/1.1 200 OK\r\n\r\nx", "y")
}

type bomb struct{ *client }

func (bomb) ReadBody([]byte) (int, error) { panic("boom") }

// A panic in the client's code must end up on the goroutine of the exchange.
func TestPanicInUploadReachesTheCaller(t *testing.T) {
	noLeak(t)
	_, e := start(t, func(c *origin.Conn) { c.AwaitClose() })
	var c upstream.Call
	upload(&c, nil, 10).Upload = bomb{newClient()}
	func() {
		defer func() {
			if p := recover(); p == nil || !strings.Contains(fmt.Sprint(p), "boom") {
				t.Errorf("recovered %v", p)
			}
		}()
		c.Do(e)
	}()
	c.Reset()
	if open(e) != 0 {
		t.Errorf("%d connections open", open(e))
	}
}
