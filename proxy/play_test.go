package proxy

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gateway/internal/origin"
)

// begin starts a gateway with the parts as its configuration, one after the
// other, as they stand.
func begin(t testing.TB, parts ...string) *running {
	t.Helper()
	return start(t, "%s", strings.Join(parts, "\n"))
}

// app is the table of an upstream "app" with these servers; more of its
// options may follow. It is meant for the end of a configuration without
// routes, or for the place before them.
func app(addresses ...string) string {
	return "[upstream.app]\nservers = [\"" + strings.Join(addresses, `", "`) + "\"]\n"
}

// recorder is an origin that keeps the requests that it gets.
type recorder struct {
	*origin.Origin
	mu       sync.Mutex
	requests []*origin.Request
}

// record starts an origin that gives each request the same answer.
func record(t testing.TB, response string) *recorder {
	t.Helper()
	o := &recorder{}
	o.Origin = origin.Start(t, func(c *origin.Conn) {
		for {
			o.keep(c.Read())
			c.Write(response)
		}
	})
	return o
}

func (o *recorder) keep(r *origin.Request) {
	o.mu.Lock()
	o.requests = append(o.requests, r)
	o.mu.Unlock()
}

func (o *recorder) all() []*origin.Request {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]*origin.Request(nil), o.requests...)
}

// last is the request that came last.
func (o *recorder) last(t testing.TB) *origin.Request {
	t.Helper()
	all := o.all()
	if len(all) == 0 {
		t.Fatal("the origin got no request")
	}
	return all[len(all)-1]
}

// refusing is an address of loopback where nobody listens.
func refusing(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// within fails the test when the event takes longer than all patience.
func within(t testing.TB, what string, event <-chan struct{}) {
	t.Helper()
	select {
	case <-event:
	case <-time.After(patience):
		t.Fatalf("not within %v: %s", patience, what)
	}
}

// field is the value of the first field of that name in a head, "" without.
func field(head, name string) string {
	return (&origin.Request{Head: head}).Field(name)
}

// values are the values of all fields of that name, as they stand.
func values(head, name string) (list []string) {
	for _, line := range strings.Split(head, "\r\n")[1:] {
		if n, v, ok := strings.Cut(line, ":"); ok && strings.EqualFold(n, name) {
			list = append(list, strings.TrimSpace(v))
		}
	}
	return list
}

// head reads the head of an answer, byte for byte, blank line included.
func (c *client) head() string {
	c.t.Helper()
	var text strings.Builder
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			c.t.Fatalf("head: %v after %q", err, text.String())
		}
		text.WriteString(line)
		if line == "\r\n" {
			return text.String()
		}
	}
}

// next reads so many bytes.
func (c *client) next(n int) string {
	c.t.Helper()
	b := make([]byte, n)
	if k, err := io.ReadFull(c.in, b); err != nil {
		c.t.Fatalf("read %d bytes: %v after %q", n, err, b[:k])
	}
	return string(b)
}

// rest reads until the connection ends, and says how.
func (c *client) rest() (string, error) {
	b, err := io.ReadAll(c.in)
	return string(b), err
}

// continued reads the head of an answer whose body is read by the test.
func (c *client) continued(method string) *http.Response {
	c.t.Helper()
	resp, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		c.t.Fatalf("receive: %v", err)
	}
	return resp
}

// reset ends the connection with RST.
func (c *client) reset() {
	_ = c.Conn.(*net.TCPConn).SetLinger(0)
	c.Conn.Close()
}

// counts waits until a metric has a value: an exchange is counted after its
// answer.
func (r *running) counts(want float64, parts ...string) {
	r.t.Helper()
	var got float64
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if got = r.metric(parts...); got == want {
			return
		}
	}
	r.t.Errorf("%s is %v, want %v", strings.Join(parts, " "), got, want)
}

// ended waits until so many exchanges have ended for a reason.
func (r *running) endedFor(reason string, want float64) {
	r.t.Helper()
	r.counts(want, "gateway_ended_total", `reason="`+reason+`"`)
}

// problem is the document that explains an answer of the gateway's own.
type problem struct {
	Type, Title, Detail, Reason string
	Status                      int
	RequestID                   string `json:"request_id"`
}

// refused checks an answer of the gateway's own against the status table.
func (a answer) refused(t testing.TB, status int, reason string) problem {
	t.Helper()
	var p problem
	if a.StatusCode != status {
		t.Errorf("status %d, want %d", a.StatusCode, status)
	}
	if got := a.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("Content-Type %q", got)
	}
	if err := json.Unmarshal([]byte(a.body), &p); err != nil {
		t.Errorf("body %q: %v", a.body, err)
	} else if p.Status != status || p.Reason != reason || p.Title == "" || p.Type != "about:blank" {
		t.Errorf("the problem is %+v, want status %d and reason %q", p, status, reason)
	}
	return p
}

// accessLog is a file for the access log, and what reads it: the lines written
// so far, each a JSON object.
func accessLog(t testing.TB) (option string, read func() []map[string]any) {
	path := filepath.Join(t.TempDir(), "access.log")
	return `access_log = "` + path + `"`, func() (lines []map[string]any) {
		f, err := os.Open(path)
		if err != nil {
			return nil
		}
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			line := map[string]any{}
			if err := json.Unmarshal(s.Bytes(), &line); err != nil {
				t.Errorf("access log: %v: %s", err, s.Text())
			}
			lines = append(lines, line)
		}
		return lines
	}
}
