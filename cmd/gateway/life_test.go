package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gateway/internal/load"
)

// server is an origin that answers with the path of the request.
func server(t testing.TB) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.Path) }))
	t.Cleanup(s.Close)
	return s
}

func TestSignalsUnderLoadLoseNothing(t *testing.T) {
	origin := server(t)
	address, extra := load.FreeAddress(t), load.FreeAddress(t)
	adminA, adminB := load.FreeAddress(t), load.FreeAddress(t)
	configuration := func(i int) string {
		listen, admin, probes := fmt.Sprintf("%q", address), adminA, "off"
		if i%4 >= 2 {
			listen, admin = fmt.Sprintf("%q, %q", address, extra), adminB
		}
		if i%3 == 1 {
			probes = map[string]string{adminA: adminB, adminB: adminA}[admin]
		}
		return fmt.Sprintf(`
listen = [%s]
admin = %q
probes = %q
log.format = %q
[upstream.app]
servers = [%q]
retry.attempts = %d
[[route]]
path = "/new-%d"
respond = { body = "new" }
[[route]]
upstream = "app"
`, listen, admin, probes, []string{"text", "json"}[i%2], origin.Listener.Addr(), 1+i%3, i)
	}
	c := prepare(t)
	c.write(configuration(0))
	c.run()
	c.line("msg=listening")

	l := load.Start(t)
	l.Add(load.Clients{Number: 48, Address: address, Path: "/app"})
	l.Add(load.Clients{Number: 16, Address: address, Path: "/fresh", PerConnection: 1})
	for i := 1; i <= 30; i++ {
		before := l.Answered()
		c.write(configuration(i))
		if err := c.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		c.until("the reload takes effect", func() bool {
			_, body := get(t, fmt.Sprintf("http://%s/new-%d", address, i))
			return body == "new"
		})
		c.until("requests between two reloads", func() bool { return l.Answered() > before+64 })
	}
	if status, _ := get(t, "http://"+adminB+"/readyz"); status != 200 {
		t.Errorf("the admin server has moved and answers %d", status)
	}
	l.Stopping()
	c.Process.Signal(syscall.SIGTERM)
	if status := c.ends(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	l.End()
	if n := l.Failed(); n > 0 {
		t.Errorf("%d of %d requests have failed", n, l.Sent())
	}
	for _, line := range strings.Split(c.stderr.String(), "\n") {
		if strings.Contains(line, "level=ERROR") || strings.Contains(line, `"level":"ERROR"`) || strings.Contains(line, "panic") {
			t.Errorf("the log says: %s", line)
		}
	}
}

func TestBadFileChangesNothing(t *testing.T) {
	c := runs(t, "[[route]]\nname = \"a\"\nrespond = { body = \"good\" }\n")
	url := "http://" + c.address() + "/"
	c.write("log.level = \"debug\"\n[[route]]\nname = \"a\"\nrespond = { body = \"bad\", statis = 1 }\n")
	c.line("configuration rejected")
	log := c.stderr.String()
	if !strings.Contains(log, "config.toml:7: route[0].respond.statis") {
		t.Errorf("no place of the mistake in the log")
	}
	if _, body := get(t, url); body != "good" {
		t.Errorf("body %q", body)
	}
	status, body := c.ask("POST", "/reload")
	if status != 422 || !strings.Contains(body, "route[0].respond.statis") || !strings.Contains(body, `"rejected"`) {
		t.Errorf("POST /reload: %d %s", status, body)
	}
	if status, body := c.ask("GET", "/healthz"); status != 200 || !strings.Contains(body, "route[0].respond.statis") {
		t.Errorf("GET /healthz: %d %s", status, body)
	}
	if _, body := c.ask("GET", "/metrics"); !strings.Contains(body, `gateway_config_reloads_total{result="rejected"} 2`) {
		t.Errorf("the metrics do not count what was rejected")
	}
	c.write("[[route]]\nname = \"a\"\nrespond = { body = \"better\" }\n")
	c.until("the better file is served", func() bool { _, body := get(t, url); return body == "better" })
	if status, body := c.ask("POST", "/reload"); status != 200 || !strings.Contains(body, `"applied"`) {
		t.Errorf("POST /reload: %d %s", status, body)
	}
}

func TestAccessLogIsOpenedAnew(t *testing.T) {
	c := prepare(t)
	path := filepath.Join(c.dir, "access.log")
	c.write(fmt.Sprintf("access_log = %q\n[[route]]\nrespond = { body = \"here\" }\n", path))
	c.run()
	url := "http://" + c.address() + "/"
	holds := func(file, part string) func() bool {
		return func() bool {
			text, _ := os.ReadFile(file)
			return strings.Contains(string(text), part)
		}
	}
	get(t, url+"before")
	c.until("the line is written", holds(path, "/before"))
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	c.Process.Signal(syscall.SIGUSR1)
	c.until("the new file exists", func() bool { _, err := os.Stat(path); return err == nil })
	get(t, url+"after")
	c.until("the line is written", holds(path, "/after"))
	if holds(path+".1", "/after")() {
		t.Error("the old file was written to")
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	reached, release := make(chan struct{}), make(chan struct{})
	origin := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(reached)
		<-release
	}))
	defer origin.Close()
	defer close(release)
	c := runs(t, fmt.Sprintf("[shutdown]\ngrace = \"1h\"\n[upstream.app]\nservers = [%q]\n", origin.Listener.Addr()))
	conn, err := net.Dial("tcp", c.address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: test\r\n\r\n")
	<-reached
	c.Process.Signal(syscall.SIGTERM)
	c.line("msg=stopping")
	if status, _ := c.ask("GET", "/readyz"); status != 503 {
		t.Errorf("/readyz answers %d while the gateway stops", status)
	}
	if status, _ := c.ask("GET", "/metrics"); status != 200 {
		t.Errorf("/metrics answers %d while the gateway stops", status)
	}
	c.Process.Signal(syscall.SIGHUP) // must not keep the next signal from being seen
	time.Sleep(50 * time.Millisecond)
	if c.over() {
		t.Fatal("the gateway did not wait for the request under way")
	}
	c.Process.Signal(syscall.SIGTERM)
	if status := c.ends(); status != 1 {
		t.Errorf("exit status %d", status)
	}
}

func TestStopFinishesSlowRequests(t *testing.T) {
	reached, release := make(chan struct{}), make(chan struct{})
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(reached)
		<-release
		io.WriteString(w, "late")
	}))
	defer origin.Close()
	c := runs(t, fmt.Sprintf("[upstream.app]\nservers = [%q]\n", origin.Listener.Addr()))
	conn, err := net.Dial("tcp", c.address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: test\r\n\r\n")
	<-reached
	c.Process.Signal(syscall.SIGINT)
	c.line("msg=stopping")
	close(release)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(resp.Body); string(body) != "late" || err != nil || !resp.Close {
		t.Errorf("body %q, %v, close %v", body, err, resp.Close)
	}
	if status := c.ends(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

func TestBusyPortIsSaid(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, option := range []string{"listen", "admin", "probes"} {
		c := prepare(t)
		c.write(fmt.Sprintf("%s = %q\n[[route]]\nrespond = {}\n", option, taken.Addr()))
		r := command(t, "run", "-c", c.config)
		if r.status != 1 || !strings.Contains(r.stderr, taken.Addr().String()) || !strings.Contains(r.stderr, "address already in use") {
			t.Errorf("%s: exit status %d, %q", option, r.status, r.stderr)
		}
	}
}

func TestUnixSocketsAreLeftBehindByNobody(t *testing.T) {
	c := prepare(t)
	path := filepath.Join(c.dir, "front.sock")
	// From a process that was killed.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	c.write(fmt.Sprintf("listen = \"unix:%s\"\n[[route]]\nrespond = { body = \"here\" }\n", path))
	c.run()
	c.line("msg=listening")
	c.until("the gateway is ready", func() bool { status, _ := c.ask("GET", "/readyz"); return status == 200 })
	info, err := os.Stat(strings.TrimPrefix(c.admin(), "unix:"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the admin socket: %v, %v", info.Mode(), err)
	}
	c.Process.Signal(syscall.SIGTERM)
	if status := c.ends(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	if left, _ := filepath.Glob(filepath.Join(c.dir, "*.sock")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
