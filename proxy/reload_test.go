package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gateway/config"
	"gateway/internal/load"
	"gateway/internal/origin"
	"gateway/upstream"
)

// writeCertificate writes PEM files for a name and gives their paths.
func writeCertificate(t testing.TB, dir string, c tls.Certificate, name string) (cert, key string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	for path, block := range map[string]*pem.Block{
		cert: {Type: "CERTIFICATE", Bytes: c.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// reload puts a configuration to work that must be accepted.
func (r *running) reload(format string, args ...any) (changes []string) {
	r.t.Helper()
	r.configure(format, args...)
	changes, err := r.Reload(context.Background())
	if err != nil {
		r.t.Fatalf("reload: %v", err)
	}
	return changes
}

// reject puts a configuration to work that must be rejected.
func (r *running) reject(format string, args ...any) error {
	r.t.Helper()
	r.configure(format, args...)
	_, err := r.Reload(context.Background())
	if err == nil {
		r.t.Fatal("the configuration was accepted")
	}
	return err
}

// descriptors is the number of open files of this process.
func descriptors(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// mirror is an origin that answers with the target of the request, so that
// clients notice an answer that belongs to somebody else. It agrees to
// upgrades and then sends back what it gets.
func mirror(c *origin.Conn) {
	for {
		r := c.Read()
		if r.Field("Upgrade") == "" {
			c.Write(origin.OK(r.Target))
			continue
		}
		c.Write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + r.Field("Upgrade") + "\r\n\r\n")
		for {
			c.Write(string(c.Byte()))
		}
	}
}

func TestHundredReloadsAndAStopUnderLoadLoseNothing(t *testing.T) {
	app, kept := origin.Start(t, mirror), origin.Start(t, mirror)
	authority := origin.NewAuthority(t)
	dir := t.TempDir()
	certA, keyA := writeCertificate(t, dir, authority.Issue("a.test"), "a")
	certB, keyB := writeCertificate(t, dir, authority.Issue("a.test", "b.test"), "b")
	main, extra, secure := load.FreeAddress(t), load.FreeAddress(t), load.FreeAddress(t)
	goroutines, files := runtime.NumGoroutine(), descriptors(t)

	// configuration differs from its neighbours in every part.
	configuration := func(i int) string {
		listen := fmt.Sprintf(`"%s", "https://%s"`, main, secure)
		if i/4%2 == 1 {
			listen += fmt.Sprintf(`, "%s"`, extra)
		}
		cert, key := certA, keyA
		if i%3 == 0 {
			cert, key = certB, keyB
		}
		return fmt.Sprintf(`
listen = [%s]
access_log = "%s"
max_connections = %d
client.idle_timeout = "%ds"
tls.certificates = [{ cert = "%s", key = "%s" }]

[shutdown]
grace = "5s"

[upstream.app]
servers = ["%s"]
max_idle = %d
retry.attempts = %d

[upstream.kept]
servers = ["%s"]

[[route]]
name = "new-%d"
path = "/new-%d"
respond = { body = "new" }

[[route]]
name = "kept"
path = "/kept/*"
upstream = "kept"

[[route]]
name = "app"
upstream = "app"
set_response_headers = { X-Version = "%d" }
`, listen, []string{"off", filepath.Join(dir, "one.log"), filepath.Join(dir, "two.log")}[i%3],
			1000+i, 30+i%2, cert, key, app.Address, 100+i%2, 1+i%3, kept.Address, i, i, i)
	}
	r := start(t, "%s", configuration(0))

	// What was opened before must survive.
	var tunnels []*client
	for range 4 {
		c := r.dial()
		c.SetDeadline(time.Now().Add(3 * time.Minute))
		c.send("GET /kept/tunnel HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n")
		resp, err := http.ReadResponse(c.in, nil)
		if err != nil || resp.StatusCode != 101 {
			t.Fatalf("upgrade: %v, %v", resp, err)
		}
		tunnels = append(tunnels, c)
	}
	echo := func() {
		t.Helper()
		for i, c := range tunnels {
			c.send("x")
			if b, err := c.in.ReadByte(); err != nil || b != 'x' {
				t.Fatalf("tunnel %d is broken: %q, %v", i, b, err)
			}
		}
	}
	echo()
	one := r.dial() // one client, one origin connection that is never opened again
	one.SetDeadline(time.Now().Add(3 * time.Minute))
	ask := func() answer {
		t.Helper()
		one.send("GET /kept/one HTTP/1.1\r\nHost: test\r\n\r\n")
		a := one.receive("GET")
		if a.body != "/kept/one" {
			t.Fatalf("answer %q, %v", a.body, a.err)
		}
		return a
	}
	ask()
	opened := kept.Connections()

	l := load.Start(t)
	l.Add(load.Clients{Number: 40, Address: main, Path: "/app"})
	l.Add(load.Clients{Number: 12, Address: main, Path: "/fresh", PerConnection: 1})
	l.Add(load.Clients{Number: 6, Address: extra, Path: "/extra", PerConnection: 20, Transient: true})
	l.Add(load.Clients{Number: 6, Address: secure, Path: "/tls", PerConnection: 10,
		TLS: &tls.Config{RootCAs: authority.Pool, ServerName: "a.test"}})
	r.until("load", func() bool { return l.Answered() > 200 })

	for i := 1; i <= 100; i++ {
		before := l.Answered()
		r.reload("%s", configuration(i))
		if body := r.get(fmt.Sprintf("/new-%d", i)).body; body != "new" {
			t.Fatalf("reload %d has not taken effect: %q", i, body)
		}
		ask()
		if i%10 == 0 {
			echo()
		}
		r.until("requests between two reloads", func() bool { return l.Answered() > before+64 })
	}
	if got := kept.Connections(); got != opened {
		t.Errorf("connections to an unchanged upstream were opened again: %d, then %d", opened, got)
	}
	if got := r.metric("gateway_config_reloads_total", `result="applied"`); got != 100 {
		t.Errorf("gateway_config_reloads_total is %v", got)
	}

	// The stop, in the middle of all that.
	l.Stopping()
	r.stop()
	if a := ask(); !a.Close {
		t.Error("a stopping gateway does not announce the close of a connection")
	}
	echo()
	for _, c := range tunnels {
		c.Close()
	}
	select {
	case <-r.ended:
	case <-time.After(patience):
		t.Fatal("the gateway does not stop")
	}
	l.End()
	if n := l.Failed(); n > 0 {
		t.Errorf("%d of %d requests have failed", n, l.Sent())
	}
	// Counters of a route outlive every configuration.
	answered := float64(l.Answered())
	r.counts(answered, "gateway_http_requests_total", `route="app"`, `status="200"`)
	t.Logf("%v requests on %d connections", answered, l.Connections())

	one.Close()
	r.until("goroutines are back", func() bool { return runtime.NumGoroutine() <= goroutines+2 })
	r.until("descriptors are back", func() bool { return descriptors(t) <= files })
}

func TestReloadSaysWhatChanged(t *testing.T) {
	r := start(t, `
[[route]]
name = "a"
respond = { body = "1" }
`)
	changes := r.reload(`
[[route]]
name = "a"
respond = { body = "2" }
`)
	if len(changes) != 1 || !strings.Contains(changes[0], "route[a]") {
		t.Errorf("changes %q", changes)
	}
	if body := r.get("/").body; body != "2" {
		t.Errorf("body %q", body)
	}
	if changes := r.reload(`
[[route]]
name = "a"
respond = { body = "2" }
`); len(changes) != 0 {
		t.Errorf("no change is said to be %q", changes)
	}
}

func TestRejectedReloadChangesNothingAndSaysWhy(t *testing.T) {
	good := `
[[route]]
name = "a"
respond = { body = "1" }
`
	r := start(t, "%s", good)
	sockets := r.front.Sockets()
	err := r.reject(`
[[route]]
name = "a"
respond = { body = "2" }
max_bdy = "1MiB"
timeout = "soon"
`)
	var problems config.Problems
	if !errors.As(err, &problems) || len(problems) != 2 {
		t.Fatalf("error %v", err)
	}
	for _, p := range problems {
		if p.Line == 0 || p.Key == "" {
			t.Errorf("no place in %q", p)
		}
	}
	if body := r.get("/").body; body != "1" {
		t.Errorf("body %q", body)
	}
	if got := r.front.Sockets(); !slices.Equal(got, sockets) {
		t.Error("the sockets have changed")
	}
	h := r.Health()
	if h.Config.Status != "rejected" || h.Config.Error != err.Error() {
		t.Errorf("health says %+v", h.Config)
	}
	if h.Status != "healthy" {
		t.Errorf("a gateway that serves is %s", h.Status)
	}
	if !strings.Contains(r.log.String(), "max_bdy") {
		t.Errorf("the log does not say why:\n%s", r.log)
	}
	for metric, want := range map[string]float64{
		`gateway_config_reloads_total{result="rejected"}`: 1,
		`gateway_config_reloads_total{result="applied"}`:  0,
		`gateway_config_last_reload_successful`:           0,
	} {
		if got := r.metric(metric); got != want {
			t.Errorf("%s is %v, want %v", metric, got, want)
		}
	}
	r.reload("%s", good)
	if h := r.Health(); h.Config.Status != "current" || h.Config.Error != "" {
		t.Errorf("health says %+v", h.Config)
	}
	if got := r.metric("gateway_config_last_reload_successful"); got != 1 {
		t.Errorf("gateway_config_last_reload_successful is %v", got)
	}
}

// What fails late in the preparation takes everything back that was prepared.
func TestReloadThatFailsLateLeavesNothingBehind(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	o := origin.Start(t, mirror)
	r := start(t, `
[upstream.app]
servers = ["%s"]
`, o.Address)
	if body := r.get("/x").body; body != "/x" {
		t.Fatalf("body %q", body)
	}
	r.until("the connection to the origin is idle", func() bool { return r.metric("gateway_upstream_connections", `state="idle"`) == 1 })
	goroutines, files := runtime.NumGoroutine(), descriptors(t)
	free := load.FreeAddress(t)
	for range 5 {
		err := r.reject(`
listen = ["127.0.0.1:0", "%s", "%s"]
access_log = "%s"
[upstream.app]
servers = ["%s"]
health = true
[upstream.more]
servers = ["%s", "localhost:1"]
health = true
[[route]]
path = "/more"
upstream = "more"
[[route]]
upstream = "app"
`, free, taken.Addr(), filepath.Join(t.TempDir(), "access.log"), o.Address, o.Address)
		if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), taken.Addr().String()) {
			t.Fatalf("error %v", err)
		}
	}
	if _, err := net.Dial("tcp", free); err == nil {
		t.Error("a socket of a rejected configuration listens")
	}
	r.until("goroutines are back", func() bool { return runtime.NumGoroutine() <= goroutines })
	r.until("descriptors are back", func() bool { return descriptors(t) <= files })
	if body := r.get("/x").body; body != "/x" {
		t.Errorf("body %q", body)
	}
}

func TestRemovedListenerComesBackAtOnce(t *testing.T) {
	address := load.FreeAddress(t)
	route := "\n[[route]]\nrespond = { body = \"here\" }\n"
	r := start(t, "listen = [\"127.0.0.1:0\", \"%s\"]%s", address, route)
	for range 3 {
		r.reload("%s", route)
		r.reload("listen = [\"127.0.0.1:0\", \"%s\"]%s", address, route)
		// Also after the time in which a removed socket is closed.
		for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); {
			if body := (&running{t: t, address: address}).get("/").body; body != "here" {
				t.Fatalf("body %q", body)
			}
		}
	}
	r.reload("%s", route)
	r.until("the removed listener is closed", func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
}

func TestPortTurnsToTLSAndBack(t *testing.T) {
	address := load.FreeAddress(t)
	authority := origin.NewAuthority(t)
	cert, key := writeCertificate(t, t.TempDir(), authority.Issue("a.test"), "a")
	rest := fmt.Sprintf("\ntls.certificates = [{ cert = \"%s\", key = \"%s\" }]\n[[route]]\nrespond = { body = \"here\" }\n", cert, key)
	r := start(t, "listen = \"%s\"%s", address, rest)
	// A connection that still waits to be accepted when the port turns belongs
	// to whoever accepts it; this one has been.
	kept := r.dial()
	kept.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
	kept.receive("GET")
	r.reload("listen = \"https://%s\"%s", address, rest)
	speaksTLS := func() bool {
		conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: authority.Pool, ServerName: "a.test"})
		if err == nil {
			conn.Close()
		}
		return err == nil
	}
	r.until("the port speaks TLS", speaksTLS)
	kept.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
	if a := kept.receive("GET"); a.body != "here" || !a.Close {
		t.Errorf("an old connection got %q, close %v", a.body, a.Close)
	}

	// When another address cannot be had, the port is given back.
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	r.reject("listen = [\"%s\", \"%s\"]%s", address, taken.Addr(), rest)
	r.until("the port speaks TLS", speaksTLS)
}

func TestListenerIsWidenedToAllInterfaces(t *testing.T) {
	address := load.FreeAddress(t)
	_, port, _ := net.SplitHostPort(address)
	route := "\n[[route]]\nrespond = { body = \"here\" }\n"
	r := start(t, "listen = \"%s\"%s", address, route)
	for _, listen := range []string{":" + port, address} {
		r.reload("listen = \"%s\"%s", listen, route)
		if got := len(r.front.Sockets()); got != 1 {
			t.Errorf("%d sockets", got)
		}
		if body := r.get("/").body; body != "here" {
			t.Errorf("body %q", body)
		}
	}
	// When another address cannot be had, the port is given back.
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	r.reject("listen = [\":%s\", \"%s\"]%s", port, taken.Addr(), route)
	if got := r.front.Sockets(); len(got) != 1 || got[0].Address().String() != address {
		t.Errorf("sockets %v", got)
	}
	if body := r.get("/").body; body != "here" {
		t.Errorf("body %q", body)
	}
}

func TestHealthAndDrainingSurviveReloads(t *testing.T) {
	var bad atomic.Bool
	o := origin.Start(t, func(c *origin.Conn) {
		for {
			if r := c.Read(); r.Target == "/health" && bad.Load() {
				c.Write("HTTP/1.1 500 Bad\r\nContent-Length: 0\r\n\r\n")
			} else {
				c.Write(origin.OK(r.Target))
			}
		}
	})
	other := origin.Start(t, mirror)
	configuration := func(attempts int) string {
		return fmt.Sprintf(`
[upstream.app]
servers = ["%s", "%s"]
health = { path = "/health", interval = "50ms", fails = 2, passes = 100, jitter = "0%%" }
retry.attempts = %d
`, o.Address, other.Address, attempts)
	}
	r := start(t, "%s", configuration(1))
	server := func(address string) (state string, usable bool, since time.Time) {
		for _, s := range r.Status().Upstreams[0].Servers {
			if s.Address == address {
				return s.State, s.Usable, s.Since
			}
		}
		t.Fatalf("no server %s", address)
		return
	}
	is := func(address, want string) func() bool {
		return func() bool { state, _, _ := server(address); return state == want }
	}
	r.until("both are up", func() bool { return is(o.Address, "up")() && is(other.Address, "up")() })
	bad.Store(true)
	r.until("one is down", is(o.Address, "down"))
	_, _, since := server(o.Address)
	bad.Store(false)
	if err := r.SetOrder("app", other.Address, upstream.Drained); err != nil {
		t.Fatal(err)
	}
	for i := 2; i < 6; i++ {
		r.reload("%s", configuration(i))
		if state, _, s := server(o.Address); state != "down" || !s.Equal(since) {
			t.Errorf("the server that was down since %v is %s since %v", since, state, s)
		}
		if _, usable, _ := server(other.Address); usable {
			t.Error("the drained server is usable")
		}
		if a := r.get("/"); a.StatusCode != 503 {
			t.Errorf("status %d with no usable server", a.StatusCode)
		}
	}
	if h := r.Health(); h.Status != "unhealthy" || h.Upstreams["app"].Status != "unhealthy" {
		t.Errorf("health %+v", h)
	}
	for _, s := range r.Status().Upstreams[0].Servers {
		if s.Address == other.Address {
			r.SetOrder("app", s.Address, upstream.Enabled)
		}
	}
	if a := r.get("/"); a.StatusCode != 200 {
		t.Errorf("status %d after the server was enabled", a.StatusCode)
	}
}

func TestEachRequestHasItsLineWhileAccessLogsChange(t *testing.T) {
	dir := t.TempDir()
	address := load.FreeAddress(t)
	configuration := func(i int) string {
		return fmt.Sprintf("\nlisten = \"%s\"\naccess_log = { output = \"%s\", queue = 100000 }\n[upstream.app]\nservers = [\"%s\"]\n",
			address, filepath.Join(dir, fmt.Sprintf("%d.log", i%3)), "%s")
	}
	o := origin.Start(t, mirror)
	r := start(t, configuration(0), o.Address)
	l := load.Start(t)
	l.Add(load.Clients{Number: 16, Address: address, Path: "/app", PerConnection: 100})
	for i := 1; i <= 20; i++ {
		r.until("load", func() bool { return l.Answered() > int64(50*i) })
		r.reload(configuration(i), o.Address)
		// Rotation, at the same time.
		os.Rename(filepath.Join(dir, fmt.Sprintf("%d.log", i%3)), filepath.Join(dir, fmt.Sprintf("old-%d", i)))
		if err := r.ReopenLogs(); err != nil {
			t.Fatal(err)
		}
	}
	l.End()
	r.stop()
	<-r.ended
	lines := 0
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		lines += strings.Count(string(text), "\n")
	}
	if answered := int(l.Answered()); lines != answered || l.Failed() > 0 {
		t.Errorf("%d lines for %d requests, %v dropped", lines, answered, r.metric("gateway_access_log_dropped_total"))
	}
}

// part records what a reload does to it.
type part struct {
	err                          error
	prepared, committed, dropped int
}

func (p *part) Prepare(*config.Config) (commit, discard func(), err error) {
	p.prepared++
	return func() { p.committed++ }, func() { p.dropped++ }, p.err
}

func TestPartsAreCommittedOrDiscarded(t *testing.T) {
	first, second := new(part), new(part)
	r := &running{t: t, log: &logs{}}
	r.configure("[[route]]\nrespond = {}")
	g, err := New(Options{Load: r.load, Log: discard(), Parts: []Part{first, second}})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	second.err = errors.New("no")
	if _, err := g.Reload(context.Background()); !errors.Is(err, second.err) {
		t.Errorf("error %v", err)
	}
	if *first != (part{prepared: 2, committed: 1, dropped: 1}) {
		t.Errorf("the first part: %+v", *first)
	}
	if second.committed != 1 || second.dropped != 0 {
		t.Errorf("the second part: %+v", *second)
	}
}
