package listener

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"gateway/exchange"
	"gateway/internal/unit"
	"gateway/wire"
)

// options are the defaults of the tags, with deadlines that no test reaches by
// accident.
func options() Options {
	return Options{
		HeaderTimeout: 10 * time.Second, BodyTimeout: 10 * time.Second, IdleTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second,
		MaxHeader: 32 * unit.KiB, MaxURI: 8 * unit.KiB, MaxFields: 100, EncodedSlashes: "keep",
		PlainFront: os.Getenv("PLAIN_FRONT") != "off",
	}
}

// handler is an exchange.Handler that releases what answer has answered.
type handler func(x *exchange.Exchange)

func (h handler) Admit(*exchange.Exchange) bool { return true }

func (h handler) Handle(x *exchange.Exchange) {
	h(x)
	exchange.Release(x)
}

// start runs a front on one loopback address.
func start(t testing.TB, o Options, h handler) (*Front, *Socket) {
	t.Helper()
	return startAt(t, "127.0.0.1:0", o, 0, nil, h)
}

func startAt(t testing.TB, address string, o Options, maxConnections int, keys *Keys, h handler) (*Front, *Socket) {
	t.Helper()
	f := New(h, slog.New(slog.DiscardHandler))
	f.Apply(o, maxConnections, keys)
	t.Cleanup(f.Close)
	a, err := ParseAddress(address)
	if err != nil {
		t.Fatal(err)
	}
	s, err := f.Bind(a, false)
	if err != nil {
		t.Fatal(err)
	}
	s.Serve()
	return f, s
}

// client is a raw connection whose reads are bounded in time.
type client struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

func dial(t testing.TB, s *Socket) *client {
	t.Helper()
	a := s.Addr()
	conn, err := net.DialTimeout(a.Network(), a.String(), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return wrap(t, conn)
}

func wrap(t testing.TB, conn net.Conn) *client {
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	return &client{conn, t, bufio.NewReader(conn)}
}

func (c *client) send(format string, args ...any) {
	c.t.Helper()
	if len(args) > 0 {
		format = fmt.Sprintf(format, args...)
	}
	if _, err := io.WriteString(c.Conn, format); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

// response is an answer with its body read.
type response struct {
	*http.Response
	body string
	err  error // of the body
}

// answer reads the next answer, to a request with this method.
func (c *client) answer(method string) response {
	c.t.Helper()
	res, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		c.t.Fatalf("read answer: %v", err)
	}
	b, err := io.ReadAll(res.Body)
	return response{res, string(b), err}
}

// get asks for a path and reads the answer.
func (c *client) get(path string) response {
	c.t.Helper()
	c.send("GET %s HTTP/1.1\r\nHost: a\r\n\r\n", path)
	return c.answer("GET")
}

// rest is what comes until the connection ends, and how it ends.
func (c *client) rest() (string, error) {
	b, err := io.ReadAll(c.r)
	return string(b), err
}

// closed fails the test unless the connection ends without another byte.
func (c *client) closed() {
	c.t.Helper()
	if b, err := c.rest(); b != "" || err != nil {
		c.t.Fatalf("connection did not end cleanly: %q, %v", b, err)
	}
}

// reply answers with a whole body.
func reply(x *exchange.Exchange, status int, body string) {
	x.Own(status)
	x.Response.Length = int64(len(body))
	x.Client.Begin(x, []byte(body), true)
}

// echo answers with what the front made of the request.
func echo(x *exchange.Exchange) {
	if x.Fault != wire.NoFault {
		status := x.Fault.Status()
		if x.Reason == exchange.ClientSlow {
			status = 408
		}
		reply(x, status, x.Reason.String()+" "+x.Fault.String())
		return
	}
	body, err := readAll(x)
	if err != nil {
		reply(x, 400, err.Error())
		return
	}
	reply(x, 200, fmt.Sprintf("%s %s %s %q", x.Request.MethodText, x.Request.Host, x.Request.Path, body))
}

func readAll(x *exchange.Exchange) (string, error) {
	var b bytes.Buffer
	p := make([]byte, 1000)
	for {
		n, err := x.Client.ReadBody(p)
		b.Write(p[:n])
		if err == io.EOF {
			return b.String(), nil
		}
		if err != nil {
			return b.String(), err
		}
	}
}

// within polls until ok, for at most five seconds.
func within(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 5 s: %s", what)
		}
	}
}
