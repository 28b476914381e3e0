package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait of these tests.
const patience = 20 * time.Second

// binary is the program under test, built once.
var binary string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "gateway-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "gateway")
	build := exec.Command("go", "build", "-buildvcs=false", "-ldflags", "-X main.version=test", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, text)
		return 1
	}
	return m.Run()
}

// result is how a command ended.
type result struct {
	stdout, stderr string
	status         int
}

// command runs the program to its end.
func command(t testing.TB, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var out, problems bytes.Buffer
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Stdout, cmd.Stderr = &out, &problems
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("gateway %v: %v", args, err)
	}
	return result{out.String(), problems.String(), cmd.ProcessState.ExitCode()}
}

// child is the program running.
type child struct {
	*exec.Cmd
	t              testing.TB
	dir            string // of its own, short enough for sockets
	config         string // path of the configuration
	stdout, stderr output
	ended          chan struct{} // closed when the process has
}

// runs starts "gateway run" with a configuration. "listen", "admin", a Unix
// socket, and "access_log" are added where they are missing.
func runs(t testing.TB, configuration string) *child {
	t.Helper()
	c := prepare(t)
	c.write(configuration)
	c.run()
	c.line("msg=listening")
	return c
}

// prepare makes a child that is not started.
func prepare(t testing.TB) *child {
	t.Helper()
	dir, err := os.MkdirTemp("", "gw-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return &child{t: t, dir: dir, config: filepath.Join(dir, "config.toml"), ended: make(chan struct{})}
}

// write replaces the configuration's file in one step.
func (c *child) write(configuration string) {
	c.t.Helper()
	head := ""
	for name, value := range map[string]string{"listen": "127.0.0.1:0", "admin": c.admin(), "access_log": "off"} {
		if !strings.Contains("\n"+configuration, "\n"+name+" ") && !strings.Contains("\n"+configuration, "\n["+name+"]") {
			head += fmt.Sprintf("%s = %q\n", name, value)
		}
	}
	if err := os.WriteFile(c.config+".new", []byte(head+configuration), 0o600); err != nil {
		c.t.Fatal(err)
	}
	if err := os.Rename(c.config+".new", c.config); err != nil {
		c.t.Fatal(err)
	}
}

// admin is where the admin server listens if the configuration does not say.
func (c *child) admin() string { return "unix:" + filepath.Join(c.dir, "admin.sock") }

// run starts "gateway run" with the file that has been written.
func (c *child) run() {
	c.Cmd = exec.Command(binary, "run", "--config", c.config)
	c.start()
}

// start starts Cmd.
func (c *child) start() {
	c.t.Helper()
	c.Stdout, c.Stderr = &c.stdout, &c.stderr
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		c.t.Fatal(err)
	}
	go func() {
		c.Wait()
		close(c.ended)
	}()
	c.t.Cleanup(func() {
		c.Process.Kill()
		<-c.ended
		if c.t.Failed() {
			c.t.Logf("standard error:\n%s", tail(c.stderr.String()))
		}
	})
}

// tail is the last part of a text.
func tail(s string) string { return s[max(0, len(s)-4000):] }

// line waits for a line on standard error and returns it.
func (c *child) line(part string) string {
	c.t.Helper()
	found := ""
	c.until("a line with "+part, func() bool {
		for _, l := range strings.Split(c.stderr.String(), "\n") {
			if strings.Contains(l, part) {
				found = l
				return true
			}
		}
		return c.over()
	})
	if found == "" {
		c.t.Fatalf("the gateway has ended without a line with %q: %v", part, c.ProcessState)
	}
	return found
}

var listening = regexp.MustCompile(`msg=listening address=(\S+)`)

// address is the first one that the gateway listens on.
func (c *child) address() string {
	c.t.Helper()
	return listening.FindStringSubmatch(c.line("msg=listening"))[1]
}

// over reports whether the process has ended.
func (c *child) over() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

// ends waits for the end of the process and returns its exit status.
func (c *child) ends() int {
	c.t.Helper()
	select {
	case <-c.ended:
	case <-time.After(patience):
		c.t.Fatal("the process does not end")
	}
	return c.ProcessState.ExitCode()
}

// until waits for a condition.
func (c *child) until(what string, ok func() bool) {
	c.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			c.t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// ask sends a request to the admin server on its Unix socket. It returns
// status 0 when nobody answers.
func (c *child) ask(method, path string) (status int, body string) {
	c.t.Helper()
	client := http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(c.dir, "admin.sock"))
		},
	}}
	r, err := http.NewRequest(method, "http://localhost"+path, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	resp, err := client.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// output collects what a process writes.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// get asks for a URL on a connection of its own.
func get(t testing.TB, url string) (status int, body string) {
	t.Helper()
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// promtool fails the test unless promtool likes the metrics.
func promtool(t testing.TB, metrics string) {
	t.Helper()
	cmd := exec.Command("promtool", "check", "metrics")
	cmd.Stdin = strings.NewReader(metrics)
	if text, err := cmd.CombinedOutput(); err != nil || len(text) > 0 {
		t.Errorf("promtool check metrics (Debian package prometheus): %v\n%s", err, text)
	}
}
