package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const (
	transfer = 100 << 20
	// growth is how much more memory the gateway may hold.
	growth = 64 << 20
)

// bulk is an origin that takes and gives large bodies. sent counts what it
// could write of them.
func bulk(t testing.TB) (s *httptest.Server, sent *atomic.Int64) {
	t.Helper()
	sent = new(atomic.Int64)
	piece := bytes.Repeat([]byte("x"), 64<<10)
	s = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/up":
			n, err := io.Copy(io.Discard, r.Body)
			fmt.Fprintf(w, "%d %v", n, err)
			return
		case "/down":
			w.Header().Set("Content-Length", strconv.Itoa(transfer))
		case "/chunked":
			w.(http.Flusher).Flush()
		default:
			return
		}
		for left := transfer; left > 0; left -= len(piece) {
			n, err := w.Write(piece)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	}))
	t.Cleanup(s.Close)
	return s, sent
}

// memory reads a line of the process's status, in bytes: VmRSS is what it
// holds, VmHWM the most that it has held since peak.
func (c *child) memory(line string) int64 {
	c.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.Process.Pid))
	if err != nil {
		c.t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), line+":")
	fields := strings.Fields(rest)
	if !found || len(fields) < 2 || fields[1] != "kB" {
		c.t.Fatalf("no %s in the status of the process", line)
	}
	n, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		c.t.Fatal(err)
	}
	return n << 10
}

// peak begins a new VmHWM. Where the kernel does not let us, it also covers
// what was before, which is not much.
func (c *child) peak() {
	os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", c.Process.Pid), []byte("5"), 0)
}

// zeros is a body of so many bytes.
func zeros(n int64) io.Reader { return io.LimitReader(zero{}, n) }

type zero struct{}

func (zero) Read(p []byte) (int, error) { return len(p), nil }

func TestLargeBodiesNeedLittleMemory(t *testing.T) {
	origin, _ := bulk(t)
	c := runs(t, fmt.Sprintf(`
[upstream.app]
servers = [%q]
[[route]]
upstream = "app"
max_body = "1GiB"
`, origin.Listener.Addr()))
	url := "http://" + c.address()
	for range 20 {
		get(t, url+"/")
	}
	c.peak()
	before := c.memory("VmRSS")
	for _, length := range []int64{transfer, -1} {
		r, err := http.NewRequest("POST", url+"/up", io.NopCloser(zeros(transfer)))
		if err != nil {
			t.Fatal(err)
		}
		r.ContentLength = length
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if want := fmt.Sprintf("%d <nil>", transfer); string(body) != want {
			t.Errorf("up, length %d: status %d, %q", length, resp.StatusCode, body)
		}
	}
	for _, path := range []string{"/down", "/chunked"} {
		resp, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if n != transfer || err != nil {
			t.Errorf("%s: %d bytes, %v", path, n, err)
		}
	}
	if grown := c.memory("VmHWM") - before; grown >= growth {
		t.Errorf("the gateway holds %d MiB more", grown>>20)
	} else {
		t.Logf("at most %.1f MiB more than %.1f MiB", float64(grown)/(1<<20), float64(before)/(1<<20))
	}
}

func TestClientsThatStopReadingNeedLittleMemory(t *testing.T) {
	origin, sent := bulk(t)
	c := runs(t, fmt.Sprintf("[upstream.app]\nservers = [%q]\n", origin.Listener.Addr()))
	for range 20 {
		get(t, "http://"+c.address()+"/")
	}
	c.peak()
	before := c.memory("VmRSS")
	for i := range 50 {
		conn, err := net.Dial("tcp", c.address())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		path := []string{"/down", "/chunked"}[i%2]
		conn.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: test\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := http.ReadResponse(bufio.NewReaderSize(conn, 16), nil); err != nil {
			t.Fatal(err)
		}
	}
	last, since := int64(-1), time.Now()
	c.until("nothing moves any more", func() bool {
		if n := sent.Load(); n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > 500*time.Millisecond
	})
	if last >= 50*transfer {
		t.Fatal("the origin could send everything")
	}
	if grown := c.memory("VmHWM") - before; grown >= growth {
		t.Errorf("the gateway holds %d MiB more", grown>>20)
	} else {
		t.Logf("at most %.1f MiB more than %.1f MiB", float64(grown)/(1<<20), float64(before)/(1<<20))
	}
	if status, _ := get(t, "http://"+c.address()+"/"); status != 200 {
		t.Errorf("somebody else gets status %d", status)
	}
}

// busy is the processor time that the process has used.
func (c *child) busy() time.Duration {
	c.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.Process.Pid))
	if err != nil {
		c.t.Fatal(err)
	}
	// pid (name) state …, utime and stime are the fields 14 and 15, in
	// hundredths of a second.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			c.t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

func TestGatewayOutlivesTheLackOfDescriptors(t *testing.T) {
	origin := server(t)
	c := prepare(t)
	c.write(fmt.Sprintf(`
[upstream.app]
servers = [%q]
health = { path = "/health", interval = "100ms", fails = 1 }
[[route]]
path = "/fixed"
respond = { body = "fixed" }
[[route]]
upstream = "app"
`, origin.Listener.Addr()))
	c.Cmd = exec.Command("sh", "-c", `ulimit -n 256 && exec "$0" "$@"`, binary, "run", "--config", c.config)
	c.start()
	address := c.address()

	// The admin server cannot accept either; this connection is there before.
	operator, err := net.Dial("unix", strings.TrimPrefix(c.admin(), "unix:"))
	if err != nil {
		t.Fatal(err)
	}
	defer operator.Close()
	answers := bufio.NewReader(operator)
	metrics := func() string {
		t.Helper()
		operator.SetDeadline(time.Now().Add(patience))
		io.WriteString(operator, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	get(t, "http://"+address+"/app")
	metrics()

	// More clients than descriptors; the kernel lets them connect and wait.
	type client struct {
		net.Conn
		answered chan int // status
	}
	var clients []client
	connect := func() {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		clients = append(clients, client{conn, make(chan int, 1)})
	}
	ask := func(c client, path string) {
		io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: test\r\n\r\n")
		go func() {
			if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil {
				io.Copy(io.Discard, resp.Body)
				c.answered <- resp.StatusCode
			}
		}()
	}
	for range 300 {
		connect()
	}
	c.line("cannot accept connections")

	// The oldest are served as far as the gateway can do it alone; what needs
	// a descriptor fails, and is no server's fault.
	ask(clients[0], "/fixed")
	if status := <-clients[0].answered; status != 200 {
		t.Errorf("an accepted client gets status %d", status)
	}
	for _, one := range clients[1:4] {
		ask(one, "/app")
		if status := <-one.answered; status != 503 && status != 200 {
			t.Errorf("status %d", status)
		}
	}

	used, began := c.busy(), time.Now()
	time.Sleep(3 * time.Second)
	share := float64(c.busy()-used) / float64(time.Since(began))
	t.Logf("%.1f %% of a processor while starved", 100*share)
	if share >= 0.05 {
		t.Errorf("the gateway uses %.1f %% of a processor while it is starved", 100*share)
	}

	waiting := clients[len(clients)-1]
	ask(waiting, "/fixed")
	select {
	case <-waiting.answered:
		t.Fatal("there were enough descriptors")
	case <-time.After(100 * time.Millisecond):
	}
	for _, one := range clients[4 : len(clients)-1] {
		one.Close()
	}
	released := time.Now()
	select {
	case status := <-waiting.answered:
		took := time.Since(released)
		t.Logf("answered after %v", took)
		if status != 200 || took > time.Second {
			t.Errorf("status %d, %v after the release", status, took)
		}
	case <-time.After(patience):
		t.Fatal("no answer after the release")
	}
	if status, body := get(t, "http://"+address+"/app"); status != 200 {
		t.Errorf("status %d after the release: %s", status, body)
	}
	if text := metrics(); strings.Contains(text, `to="down"`) {
		t.Error("a server was found down for lack of descriptors here")
	} else if !strings.Contains(text, "gateway_upstream_up{") || strings.Contains(text, `gateway_upstream_up{upstream="app",server="`+origin.Listener.Addr().String()+`"} 0`) {
		t.Error("the server is not up")
	}
	if strings.Contains(c.stderr.String(), "server is down") {
		t.Error("a server was found down for lack of descriptors here")
	}
	c.Process.Signal(os.Interrupt)
	if status := c.ends(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}
