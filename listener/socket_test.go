package listener

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gateway/exchange"
	"gateway/internal/origin"
	"gateway/internal/unit"
)

func TestParseAddress(t *testing.T) {
	f := func(in string, want Address) {
		t.Helper()
		if got, err := ParseAddress(in); err != nil || got != want {
			t.Errorf("ParseAddress(%q) = %v, %v", in, got, err)
		}
	}
	f(":8080", Address{"tcp", ":8080", false})
	f("127.0.0.1:80", Address{"tcp", "127.0.0.1:80", false})
	f("http://127.0.0.1:80", Address{"tcp", "127.0.0.1:80", false})
	f("[::1]:80", Address{"tcp", "[::1]:80", false})
	f("https://:8443", Address{"tcp", ":8443", true})
	f("https://[::1]:8443", Address{"tcp", "[::1]:8443", true})
	f("localhost:0", Address{"tcp", "localhost:0", false})
	f("unix:/run/gw.sock", Address{"unix", "/run/gw.sock", false})
	for _, bad := range []string{"", "8080", ":", ":http", ":65536", ":-1", "a b:1", "https://", "https://:8443/", "unix:", "unix:///x", "ftp://x:1", "unix:" + strings.Repeat("x", 108), "::1:80"} {
		if a, err := ParseAddress(bad); err == nil {
			t.Errorf("ParseAddress(%q) = %v", bad, a)
		}
	}
	for _, s := range []string{":8080", "https://:8443", "unix:/run/gw.sock", "[::1]:80"} {
		if a, _ := ParseAddress(s); a.String() != s {
			t.Errorf("%q becomes %q", s, a)
		}
	}
}

func TestClientKey(t *testing.T) {
	key := func(s string) clientKey { return keyOf(netip.MustParseAddr(s)) }
	if key("10.0.0.1") == key("10.0.0.2") {
		t.Error("two IPv4 addresses are one client")
	}
	if key("2001:db8::1") != key("2001:db8::ffff:1") || key("2001:db8::1") == key("2001:db8:0:1::1") {
		t.Error("IPv6 clients are not /64 networks")
	}
	if key("fe80::1%eth0") != key("fe80::2") {
		t.Error("zones matter")
	}
}

// refused fails the test unless the connection is refused with 503.
func (c *client) refused() {
	c.t.Helper()
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if got := c.answer("GET"); got.StatusCode != 503 || !got.Close {
		c.t.Errorf("got %d %v", got.StatusCode, got.Header)
	}
	c.closed()
}

func TestConnectionLimits(t *testing.T) {
	o := options()
	f, s := startAt(t, "127.0.0.1:0", o, 2, nil, echo)
	a, b := dial(t, s), dial(t, s)
	a.get("/")
	b.get("/")
	dial(t, s).refused()
	if n := f.Stats().RefusedTotal; n != 1 {
		t.Errorf("%d refused", n)
	}
	a.Close()
	within(t, "a place is free", func() bool { return s.Active() == 1 })
	dial(t, s).get("/")

	o.MaxConnectionsPerIP = 2
	f.Apply(o, 0, nil)
	b.Close()
	within(t, "a place is free", func() bool { return s.Active() == 1 })
	c := dial(t, s)
	c.get("/")
	dial(t, s).get("/") // those from before the limit are not counted
	dial(t, s).refused()
	if n := f.Stats().RefusedClient; n != 1 {
		t.Errorf("%d refused", n)
	}
	o.TrustedProxies = []unit.Prefix{{Prefix: netip.MustParsePrefix("127.0.0.0/8")}}
	f.Apply(o, 0, nil)
	dial(t, s).get("/")
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gw.sock")
	o := options()
	o.MaxConnectionsPerIP = 1
	// A socket that nobody listens on any more is replaced.
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()

	f, s := startAt(t, "unix:"+path, o, 0, nil, func(x *exchange.Exchange) {
		if x.Peer.IsValid() || x.Local.IsValid() || x.Secure {
			t.Errorf("got %v, %v, %v", x.Peer, x.Local, x.Secure)
		}
		echo(x)
	})
	dial(t, s).get("/")
	c := dial(t, s)
	if got := c.get("/"); got.StatusCode != 200 {
		t.Fatalf("got %d", got.StatusCode)
	}
	if _, err := f.Bind(s.Address(), false); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("bound a socket in use: %v", err)
	}
	s.Retire()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
	if got := c.get("/"); got.StatusCode != 200 || !got.Close {
		t.Errorf("got %d %v", got.StatusCode, got.Close)
	}
}

func TestRetiredUnixSocketLeavesItsSuccessorAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gw.sock")
	_, s := startAt(t, "unix:"+path, options(), 0, nil, echo)
	os.Remove(path)
	next, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	s.Retire()
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
}

func TestPlainFileIsNotReplacedByASocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	os.WriteFile(path, nil, 0o600)
	f, _ := start(t, options(), echo)
	if _, err := f.Bind(Address{Network: "unix", Name: path}, false); err == nil {
		t.Error("replaced")
	}
}

func TestReusePort(t *testing.T) {
	f, _ := start(t, options(), echo)
	a, err := f.Bind(Address{Network: "tcp", Name: "127.0.0.1:0"}, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Bind(Address{Network: "tcp", Name: a.Addr().String()}, true); err != nil {
		t.Error(err)
	}
	if _, err := f.Bind(Address{Network: "tcp", Name: a.Addr().String()}, false); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("got %v", err)
	}
}

func TestOutOfDescriptors(t *testing.T) {
	_, s := start(t, options(), echo)
	warm := dial(t, s)
	warm.get("/")

	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	low := old
	low.Cur = 100
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	var fds []int
	release := func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
		fds = nil
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
	defer release()
	for {
		fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			break
		}
		fds = append(fds, fd)
	}
	// One for the client, none to accept it.
	unix.Close(fds[len(fds)-1])
	fds = fds[:len(fds)-1]
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	to := &unix.SockaddrInet4{Port: s.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}
	if err := unix.Connect(fd, to); err != nil {
		t.Fatal(err)
	}
	unix.Write(fd, []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
	within(t, "accept fails", func() bool { return s.Failed() > 0 })
	time.Sleep(time.Second)
	if n := s.Failed(); n > 20 {
		t.Errorf("tried %d times in a second", n)
	}
	if got := warm.get("/"); got.StatusCode != 200 {
		t.Errorf("starved connections get %d", got.StatusCode)
	}
	release()
	begun := time.Now()
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5})
	b := make([]byte, 1000)
	n, err := unix.Read(fd, b)
	if err != nil || !strings.HasPrefix(string(b[:max(n, 0)]), "HTTP/1.1 200 OK\r\n") {
		t.Fatalf("got %q, %v", b[:max(n, 0)], err)
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("answered %v after the release", took)
	}
}

func TestRetireLosesNoConnection(t *testing.T) {
	f, s := start(t, options(), echo)
	address := s.Addr().String()
	var served, lost atomic.Int64
	var clients sync.WaitGroup
	for range 16 {
		clients.Go(func() {
			for {
				c, err := net.DialTimeout("tcp", address, 5*time.Second)
				if err != nil {
					if !errors.Is(err, syscall.ECONNREFUSED) {
						t.Errorf("connect: %v", err)
					}
					return // no byte was written
				}
				c.SetDeadline(time.Now().Add(5 * time.Second))
				io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
				b, err := io.ReadAll(c)
				c.Close()
				if err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 200 OK") {
					lost.Add(1)
					t.Errorf("got %q, %v", b, err)
					return
				}
				served.Add(1)
			}
		})
	}
	within(t, "clients are busy", func() bool { return served.Load() > 200 })
	f.Announce()
	f.Retire()
	clients.Wait()
	if n := lost.Load(); n > 0 {
		t.Errorf("%d of %d requests were lost", n, served.Load())
	}
	if err := f.Drain(expired5(t), 0); err != nil {
		t.Error(err)
	}
}

func expired5(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestConnectionsInTheQueueAreServedAfterRetire(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "unix:" + filepath.Join(t.TempDir(), "s")} {
		block := make(chan bool)
		_, s := startAt(t, address, options(), 0, nil, func(x *exchange.Exchange) {
			<-block
			echo(x)
		})
		var all []*client
		for i := range 50 {
			c := dial(t, s)
			c.send("GET /%d HTTP/1.1\r\nHost: a\r\n\r\n", i)
			all = append(all, c)
		}
		s.Retire()
		close(block)
		for i, c := range all {
			if got := c.answer("GET"); got.body != fmt.Sprintf(`GET a /%d ""`, i) || !got.Close {
				t.Fatalf("got %q %v", got.body, got.Close)
			}
			c.closed()
		}
	}
}

func TestDrainKeepsIdleConnectionsUntilTheyAreQuiet(t *testing.T) {
	f, s := start(t, options(), echo)
	idle, busy := dial(t, s), dial(t, s)
	idle.get("/")
	busy.get("/")
	f.Announce()
	f.Retire()
	done := make(chan error)
	go func() { done <- f.Drain(expired5(t), 300*time.Millisecond) }()
	time.Sleep(100 * time.Millisecond)
	if got := busy.get("/"); got.StatusCode != 200 || !got.Close {
		t.Errorf("a request on a connection that was idle: got %d %v", got.StatusCode, got.Close)
	}
	busy.closed()
	idle.closed()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestRetiredConnectionWithARequestInItsSocketIsServed(t *testing.T) {
	_, s := start(t, options(), echo)
	for range 200 {
		c := dial(t, s)
		c.get("/")
		var both sync.WaitGroup
		both.Go(func() { s.front.retireIdle(1 << 62) })
		c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		both.Wait()
		b, err := c.r.Peek(1)
		if err == nil && b[0] == 'H' {
			c.answer("GET")
		}
		c.Close()
	}
	within(t, "all have ended", func() bool { return s.Active() == 0 })
}

func TestAddressBecomesSecureWithoutAGap(t *testing.T) {
	k := load(t, files(t, t.TempDir(), origin.NewAuthority(t).Issue("a.test")), io.Discard)
	f, plain := startAt(t, "127.0.0.1:0", options(), 0, k, echo)
	plain.address.Name = plain.Addr().String() // the configuration names the port
	old := dial(t, plain)
	old.get("/")
	secure, err := f.Bind(Address{Network: "tcp", Name: plain.address.Name, Secure: true}, false)
	if err != nil {
		t.Fatal(err)
	}
	secure.Serve()
	plain.Retire()
	for range 10 {
		c, _, err := shake(t, secure, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		c.get("/")
	}
	if got := old.get("/"); got.StatusCode != 200 || !got.Close {
		t.Errorf("got %d %v", got.StatusCode, got.Close)
	}
	secure.Retire()
	if _, err := net.Dial("tcp", secure.address.Name); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v", err)
	}
}

func TestCloseEndsEverything(t *testing.T) {
	f, s := start(t, options(), func(x *exchange.Exchange) {
		for !x.Abandoned() {
			time.Sleep(time.Millisecond)
		}
		x.Client.Abort()
	})
	dial(t, s)
	c := dial(t, s)
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	within(t, "the exchange began", func() bool { return f.flying() == 1 })
	f.Close()
	if n := f.Stats().Active; n > 0 {
		t.Errorf("%d connections are left", n)
	}
	if len(f.Sockets()) > 0 {
		t.Error("sockets are left")
	}
	if _, err := net.Dial("tcp", s.Addr().String()); err == nil {
		t.Error("somebody still listens")
	}
}
