package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gateway/internal/origin"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// ends waits until the gateway has stopped.
func (r *running) ends() {
	r.t.Helper()
	select {
	case <-r.ended:
	case <-time.After(patience):
		r.t.Fatal("the gateway does not stop")
	}
}

func TestStartSaysWhichAddressIsTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	files := descriptors(t)
	r := &running{t: t}
	r.configure("listen = [\"127.0.0.1:0\", \"%s\"]\n[[route]]\nrespond = {}", taken.Addr())
	_, err = New(Options{Load: r.load, Log: discard()})
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), taken.Addr().String()) {
		t.Errorf("error %v", err)
	}
	if got := descriptors(t); got > files {
		t.Errorf("%d descriptors, %d before", got, files)
	}
}

func TestStopFinishesWhatIsUnderWay(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	o := origin.Start(t, func(c *origin.Conn) {
		c.Read()
		c.Write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
		close(asked)
		c.Wait(answer)
		c.Write("-last")
	})
	r := start(t, `
[shutdown]
grace = "8s"
[upstream.app]
servers = ["%s"]
[[route]]
path = "/idle"
respond = { body = "idle" }
[[route]]
upstream = "app"
`, o.Address)
	c, idle := r.dial(), r.dial()
	c.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
	<-asked
	r.stop()
	r.until("not ready", func() bool { return !r.Ready() })
	r.until("new connections are refused", func() bool {
		conn, err := net.DialTimeout("tcp", r.address, 100*time.Millisecond)
		if err == nil {
			conn.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	// A connection that was open counts as a promise until it has been silent
	// for a while.
	idle.send("GET /idle HTTP/1.1\r\nHost: test\r\n\r\n")
	if a := idle.receive("GET"); a.body != "idle" || !a.Close {
		t.Errorf("body %q, close %v", a.body, a.Close)
	}
	close(answer)
	if a := c.receive("GET"); a.body != "first-last" || a.err != nil {
		t.Errorf("body %q, %v", a.body, a.err)
	}
	if !c.closed() {
		t.Error("the connection stays open")
	}
	r.ends()
	if !strings.Contains(r.log.String(), "msg=stopped") {
		t.Errorf("log:\n%s", r.log)
	}
}

func TestStopCutsOffAfterTheGracePeriod(t *testing.T) {
	asked := make(chan struct{})
	o := origin.Start(t, func(c *origin.Conn) {
		c.Read()
		close(asked)
		c.Stall()
	})
	r := start(t, `
[shutdown]
grace = "300ms"
[upstream.app]
servers = ["%s"]
`, o.Address)
	c := r.dial()
	c.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
	<-asked
	began := time.Now()
	r.stop()
	if _, err := http.ReadResponse(c.in, nil); err == nil {
		t.Error("an answer came from nowhere")
	}
	r.ends()
	if took := time.Since(began); took < 300*time.Millisecond || took > 5*time.Second {
		t.Errorf("the stop took %v", took)
	}
	if !strings.Contains(r.log.String(), "cut_off=1") {
		t.Errorf("log:\n%s", r.log)
	}
}

func TestDrainDelayServesAndAnnouncesTheEnd(t *testing.T) {
	const delay = 700 * time.Millisecond
	r := start(t, `
[shutdown]
drain_delay = "700ms"
grace = "1s"
[[route]]
respond = { body = "here" }
`)
	kept := r.dial()
	kept.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
	if a := kept.receive("GET"); a.Close {
		t.Fatal("closed without a reason")
	}
	began := time.Now()
	r.stop()
	r.until("not ready", func() bool { return !r.Ready() })
	if state := r.Status().State; state != "draining" {
		t.Errorf("state %q", state)
	}
	if h := r.Health(); h.Status != "unhealthy" || h.Ready {
		t.Errorf("health %+v", h)
	}
	kept.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
	if a := kept.receive("GET"); a.body != "here" || !a.Close {
		t.Errorf("body %q, close %v", a.body, a.Close)
	}
	// As long as it lasts new connections are served as well.
	for time.Since(began) < delay/2 {
		if a := r.get("/"); a.body != "here" || !a.Close {
			t.Fatalf("body %q, close %v", a.body, a.Close)
		}
	}
	// Nothing that reads the state of the gateway waits for the stop.
	if _, err := r.Reload(context.Background()); !errors.Is(err, errStopping) {
		t.Errorf("reload: %v", err)
	}
	r.metric("gateway_tls_certificate_expiry_seconds")
	if since := time.Since(began); since > delay {
		t.Errorf("metrics and reload took until %v after the stop", since)
	}
	r.ends()
	if took := time.Since(began); took < delay {
		t.Errorf("the stop took %v", took)
	}
	if _, err := net.Dial("tcp", r.address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("connect: %v", err)
	}
}

func TestReloadIsRefusedWhenStopped(t *testing.T) {
	r := start(t, "[[route]]\nrespond = {}")
	r.stop()
	r.ends()
	if _, err := r.Reload(context.Background()); !errors.Is(err, errStopping) {
		t.Errorf("reload: %v", err)
	}
}

// A stop in the middle of a reload says nothing about the file.
func TestReloadThatAStopEndsIsNotRejected(t *testing.T) {
	r := start(t, "[[route]]\nrespond = {}")
	r.configure("%s", "[[route]]\nrespond = { body = \"new\" }")
	ctx, stop := context.WithCancel(context.Background())
	stop()
	if _, err := r.Reload(ctx); !errors.Is(err, errStopping) {
		t.Errorf("reload: %v", err)
	}
	r.counts(0, "gateway_config_reloads_total", `result="rejected"`)
	r.counts(1, "gateway_config_last_reload_successful")
}

// A signal can ask for a successor when the sockets are bound and Run has not
// begun yet.
func TestHandOverWaitsForTheStart(t *testing.T) {
	g := create(t, nil, "[[route]]\nrespond = {}")
	defer g.Close()
	given := make(chan int, 1)
	over := make(chan error, 1)
	go func() {
		over <- g.HandOver(func(sockets []*os.File) error {
			given <- len(sockets)
			return nil
		})
	}()
	select {
	case n := <-given:
		t.Fatalf("%d sockets given before the start", n)
	case err := <-over:
		t.Fatalf("handed over before the start: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		g.Run(ctx)
		close(ended)
	}()
	if err := <-over; err != nil || len(given) != 1 {
		t.Errorf("hand over: %v, called %d times", err, len(given))
	}
	stop()
	<-ended
}

// One that never ran has nothing to hand over.
func TestHandOverAfterClose(t *testing.T) {
	g := create(t, nil, "[[route]]\nrespond = {}")
	g.Close()
	if err := g.HandOver(nil); !errors.Is(err, errStopping) {
		t.Errorf("hand over: %v", err)
	}
}

// watched runs a gateway whose configuration comes from a file, and returns
// what waits until the file's contents are served.
func watched(t *testing.T, path string) (r *running, serves func(body string)) {
	text := func(body string) string { return "[[route]]\nrespond = { body = \"" + body + "\" }\n" }
	r = start(t, "%s", text("first"))
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	go func() { ended <- r.Watch(ctx, path, before) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return r, func(body string) {
		t.Helper()
		r.until("the file with "+body+" is served", func() bool { return r.get("/").body == body })
	}
}

func TestChangesOfTheFileAreNoticed(t *testing.T) {
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	respond := func(r *running, body string) { r.configure("[[route]]\nrespond = { body = \"%s\" }\n", body) }
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "config.toml")
	write(path, "first")
	r, serves := watched(t, path)
	serves("first")

	respond(r, "in place")
	write(path, "in place")
	serves("in place")

	respond(r, "renamed over")
	write(path+".new", "renamed over")
	check(os.Rename(path+".new", path))
	serves("renamed over")

	respond(r, "removed and made again")
	check(os.Remove(path))
	time.Sleep(2 * settle) // while it is missing, nothing happens
	serves("renamed over")
	write(path, "removed and made again")
	serves("removed and made again")

	respond(r, "in pieces")
	f, err := os.Create(path)
	check(err)
	for _, piece := range []string{"in", " ", "pieces"} {
		_, err := f.WriteString(piece)
		check(err)
	}
	check(f.Close())
	serves("in pieces")

	// Other files of the folder that change all the time delay nothing.
	noise, err := os.Create(filepath.Join(dir, "access.log"))
	check(err)
	defer noise.Close()
	quiet := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-quiet:
				return
			case <-time.After(settle / 20):
				noise.WriteString("line\n")
			}
		}
	}()
	respond(r, "despite noise")
	write(path, "despite noise")
	serves("despite noise")
	close(quiet)
	<-ended

	// The bytes are what counts.
	const applied = 5 // counted a moment after they have taken effect
	r.until("all reloads are counted", func() bool { return r.metric("gateway_config_reloads_total") == applied })
	now := time.Now()
	check(os.Chtimes(path, now, now))
	write(path, "despite noise")
	time.Sleep(4 * settle)
	if got := r.metric("gateway_config_reloads_total"); got != applied {
		t.Errorf("the same bytes were loaded again: %v reloads, then %v", applied, got)
	}
}

// Kubernetes: config.toml → ..data/config.toml, ..data → a folder that is
// replaced as a whole.
func TestSwappedLinksAreNoticed(t *testing.T) {
	dir := t.TempDir()
	put := func(version, text string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, version, "config.toml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		link := filepath.Join(dir, "..data")
		if err := os.Symlink(version, link+"_tmp"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link+"_tmp", link); err != nil {
			t.Fatal(err)
		}
	}
	put("..1", "first")
	path := filepath.Join(dir, "config.toml")
	if err := os.Symlink("..data/config.toml", path); err != nil {
		t.Fatal(err)
	}
	r, serves := watched(t, path)
	serves("first")
	for _, version := range []string{"second", "third"} {
		r.configure("[[route]]\nrespond = { body = \"%s\" }\n", version)
		put(".."+version, version)
		serves(version)
	}
}

func TestFileBehindALinkIsWatched(t *testing.T) {
	target := filepath.Join(t.TempDir(), "real.toml")
	if err := os.WriteFile(target, []byte("first"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
	r, serves := watched(t, path)
	serves("first")
	for _, version := range []string{"second", "third"} {
		r.configure("[[route]]\nrespond = { body = \"%s\" }\n", version)
		if err := os.WriteFile(target, []byte(version), 0o600); err != nil {
			t.Fatal(err)
		}
		serves(version)
	}
}

func TestWatchingCanBeSwitchedOff(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte("first"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, serves := watched(t, path)
	r.reload("reload.watch = false\n[[route]]\nrespond = { body = \"first\" }\n")
	r.configure("[[route]]\nrespond = { body = \"second\" }\n")
	if err := os.WriteFile(path, []byte("second"), 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(4 * settle)
	serves("first")
}
