package proxy

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"gateway/config"
	"gateway/upstream"
)

// patience bounds every wait of these tests.
const patience = 10 * time.Second

// running is a gateway under test, on a free port of loopback.
type running struct {
	*Gateway
	t       testing.TB
	address string
	log     *logs
	stop    context.CancelFunc
	ended   chan struct{} // closed when Run has returned

	mu   sync.Mutex
	text string // the configuration that Load reads
}

// start runs a gateway with this configuration; "listen", "admin" and
// "access_log" are added. It is stopped, and must have ended well, when the
// test is over.
func start(t testing.TB, format string, args ...any) *running {
	t.Helper()
	r := create(t, nil, format, args...)
	g := r.Gateway
	r.address = g.front.Sockets()[0].Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() {
		g.Run(ctx)
		close(r.ended)
	}()
	t.Cleanup(func() {
		stop()
		select {
		case <-r.ended:
		case <-time.After(patience):
			t.Error("the gateway did not stop")
		}
		if t.Failed() {
			t.Logf("the gateway's log:\n%s", r.log)
		}
	})
	r.until("the gateway serves", g.Ready)
	return r
}

// create makes a gateway that does not run yet. dial may be nil.
func create(t testing.TB, dial upstream.Dial, format string, args ...any) *running {
	t.Helper()
	r := &running{t: t, log: &logs{}, ended: make(chan struct{})}
	r.configure(format, args...)
	g, err := New(Options{Load: r.load, Version: "test", Log: slog.New(slog.NewTextHandler(r.log, nil)), Dial: dial})
	if err != nil {
		t.Fatalf("create a gateway: %v", err)
	}
	r.Gateway = g
	return r
}

// configure sets what the next Load reads.
func (r *running) configure(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	head := ""
	for _, option := range []string{`listen = "127.0.0.1:0"`, `admin = "off"`, `access_log = "off"`} {
		name, _, _ := strings.Cut(option, " ")
		if !strings.HasPrefix(text, name+" ") && !strings.Contains(text, "\n"+name+" ") {
			head += option + "\n"
		}
	}
	if !strings.Contains(text, "[shutdown]") {
		text += "\n[shutdown]\ngrace = \"1s\"\n"
	}
	r.mu.Lock()
	r.text = head + text
	r.mu.Unlock()
}

func (r *running) load() (*config.Config, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, err := config.Parse("test.toml", []byte(r.text), nil)
	if err == nil && os.Getenv("PLAIN_FRONT") == "off" {
		c.Client.PlainFront = false // all of it through fasthttp
	}
	return c, err
}

// until waits for a condition.
func (r *running) until(what string, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// metric is the sum of the samples whose name and labels contain all parts.
func (r *running) metric(parts ...string) (sum float64) {
	r.t.Helper()
	var text bytes.Buffer
	if err := r.WriteMetrics(&text); err != nil {
		r.t.Fatal(err)
	}
lines:
	for _, line := range strings.Split(text.String(), "\n") {
		if strings.HasPrefix(line, "#") {
			continue
		}
		for _, part := range parts {
			if !strings.Contains(line, part) {
				continue lines
			}
		}
		var v float64
		fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &v)
		sum += v
	}
	return sum
}

// client is one connection to the gateway, byte by byte.
type client struct {
	net.Conn
	t  testing.TB
	in *bufio.Reader
}

// dial opens a connection that is closed when the test is over.
func (r *running) dial() *client {
	r.t.Helper()
	conn, err := net.DialTimeout("tcp", r.address, patience)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return &client{Conn: conn, t: r.t, in: bufio.NewReader(conn)}
}

// send writes bytes; "\n" stands for CRLF in heads given as such.
func (c *client) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.Conn, text); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

// answer is a response as a client received it.
type answer struct {
	*http.Response
	body string
	err  error // of reading the body
}

// receive reads a response to a request with this method, body included.
func (c *client) receive(method string) answer {
	c.t.Helper()
	resp, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		c.t.Fatalf("receive: %v", err)
	}
	body, err := io.ReadAll(resp.Body)
	return answer{resp, string(body), err}
}

// closed reports whether the gateway has closed the connection in order.
func (c *client) closed() bool {
	_, err := c.in.ReadByte()
	return err == io.EOF
}

// do sends one request, head and body as they stand, on a connection of its own.
func (r *running) do(request string) answer {
	r.t.Helper()
	c := r.dial()
	defer c.Close()
	c.send(request)
	method, _, _ := strings.Cut(request, " ")
	return c.receive(method)
}

// get asks for a path with Host test.
func (r *running) get(path string, fields ...string) answer {
	r.t.Helper()
	return r.do("GET " + path + " HTTP/1.1\r\nHost: test\r\n" + lines(fields) + "\r\n")
}

// lines are fields as field lines.
func lines(fields []string) (text string) {
	for _, f := range fields {
		text += f + "\r\n"
	}
	return text
}

// logs collects what the gateway logs.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
