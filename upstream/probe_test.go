package upstream

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

var outOfDescriptors error = &net.OpError{Op: "dial", Err: os.NewSyscallError("socket", syscall.EMFILE)}

// answering is an origin that reads a request head and writes an answer; it
// ends with the test.
type answering struct {
	net.Listener
	answer   atomic.Value // string; "" never answers
	accepted atomic.Int64
	mu       sync.Mutex
	last     string // request head
}

func answer(t *testing.T, l net.Listener, text string) *answering {
	a := &answering{Listener: l}
	a.answer.Store(text)
	var wait sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		wait.Wait()
	})
	wait.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			a.accepted.Add(1)
			wait.Go(func() { a.serve(conn) })
		}
	})
	return a
}

func (a *answering) serve(conn net.Conn) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	r := bufio.NewReader(conn)
	var head strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		head.WriteString(line)
		if line == "\r\n" {
			break
		}
	}
	a.mu.Lock()
	a.last = head.String()
	a.mu.Unlock()
	text := a.answer.Load().(string)
	if text == "" {
		io.Copy(io.Discard, r) // until the other side gives up
		return
	}
	io.WriteString(conn, text)
}

func listen(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// checkOnce builds an unchecked pool of a server and checks the server once.
func checkOnce(t *testing.T, o *Options) error {
	t.Helper()
	r := NewRegistry(RegistryOptions{})
	defer r.Close()
	r.probe = func(ctx context.Context, _ *origin) error { <-ctx.Done(); return ctx.Err() }
	p, err := r.Build(context.Background(), "test", o)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	return probe(context.Background(), p.Servers()[0].origin)
}

func TestCheckJudgesTheAnswer(t *testing.T) {
	for _, c := range []struct{ name, answer, want string }{
		{"ok", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", ""},
		{"redirect", "HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", ""},
		{"old version until close", "HTTP/1.0 200 OK\r\n\r\nfine", ""},
		{"interim first", "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""},
		{"status", "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "status 503, want 200-399"},
		{"nonsense", "hello\r\n\r\n", "invalid response"},
		{"conflicting framing", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "invalid response"},
		{"truncated head", "HTTP/1.1 200 OK\r\nContent-", "read response: EOF"},
		{"endless head", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 70_000) + "\r\n\r\n", "head of response exceeds 65536 bytes"},
		{"large head", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: " + strings.Repeat("x", 60_000) + "\r\n\r\n", ""},
		{"silence", "", "no answer within 300ms"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := answer(t, listen(t, "tcp", "127.0.0.1:0"), c.answer)
			o := checked(l.Addr().String())
			if c.answer == "" {
				o.Health.Timeout = 300 * time.Millisecond
			}
			err := checkOnce(t, o)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)) {
				t.Errorf("%v; want %q", err, c.want)
			}
		})
	}
}

func TestCheckLooksIntoTheBody(t *testing.T) {
	const chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	for _, c := range []struct{ name, answer, want string }{
		{"length", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nall ready", ""},
		{"until close", "HTTP/1.1 200 OK\r\n\r\nall ready", ""},
		{"across chunks", chunked + "6\r\nall re\r\n3\r\nady\r\n0\r\n\r\n", ""},
		{"missing", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnot", `body does not contain "ready"`},
		{"missing in chunks", chunked + "3\r\nnot\r\n0\r\n\r\n", `body does not contain "ready"`},
		{"empty", "HTTP/1.1 204 No Content\r\n\r\n", `body does not contain "ready"`},
		{"truncated", "HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\nready", "read body of response"},
		{"bad chunk", chunked + "x\r\nready", "invalid response"},
		{"too far in", "HTTP/1.1 200 OK\r\nContent-Length: 70005\r\n\r\n" + strings.Repeat("x", 70_000) + "ready", "body does not contain"},
		{"status decides first", "HTTP/1.1 500 No\r\nContent-Length: 5\r\n\r\nready", "status 500"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := checked(answer(t, listen(t, "tcp", "127.0.0.1:0"), c.answer).Addr().String())
			o.Health.Body = "ready"
			err := checkOnce(t, o)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)) {
				t.Errorf("%v; want %q", err, c.want)
			}
		})
	}
}

func TestCheckOfConnectionAndOtherPort(t *testing.T) {
	l := answer(t, listen(t, "tcp", "127.0.0.1:0"), "nonsense")
	closed := listen(t, "tcp", "127.0.0.1:0")
	closed.Close()
	o := checked(l.Addr().String())
	o.Health.Type = "tcp"
	if err := checkOnce(t, o); err != nil {
		t.Error(err)
	}
	o.Health.Port = closed.Addr().(*net.TCPAddr).Port
	if err := checkOnce(t, o); err == nil || reached(err) {
		t.Errorf("closed port: %v", err)
	}
	o = checked(closed.Addr().String())
	o.Health.Type, o.Health.Port = "tcp", l.Addr().(*net.TCPAddr).Port
	if err := checkOnce(t, o); err != nil {
		t.Errorf("own port: %v", err)
	}
}

func TestCheckAsksAsConfigured(t *testing.T) {
	l := answer(t, listen(t, "tcp", "127.0.0.1:0"), "HTTP/1.1 204 No Content\r\n\r\n")
	o := checked(l.Addr().String())
	request := func(line, host string) {
		t.Helper()
		if err := checkOnce(t, o); err != nil {
			t.Error(err)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if want := line + "\r\nHost: " + host + "\r\nUser-Agent: gateway-health\r\nAccept: */*\r\nConnection: close\r\n\r\n"; l.last != want {
			t.Errorf("request %q, want %q", l.last, want)
		}
	}
	request("GET / HTTP/1.1", l.Addr().String())
	o.Host = "app.example"
	request("GET / HTTP/1.1", "app.example")
	o.Health.Host = "health.example"
	o.Health.Path = "/health?full=1"
	request("GET /health?full=1 HTTP/1.1", "health.example")
	o.Health.Headers = map[string]string{"X-Probe": "1", "user-agent": "own"}
	if err := checkOnce(t, o); err != nil {
		t.Error(err)
	}
	if want := "Accept: */*\r\nX-Probe: 1\r\nuser-agent: own\r\nConnection: close\r\n\r\n"; !strings.HasSuffix(l.last, want) {
		t.Errorf("request %q, want %q at its end", l.last, want)
	}
}

func TestCheckOfUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.sock")
	answer(t, listen(t, "unix", path), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	if err := checkOnce(t, checked("unix:"+path)); err != nil {
		t.Error(err)
	}
}

func TestCheckOfClosedPort(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	l.Close()
	if err := checkOnce(t, checked(l.Addr().String())); err == nil || err.Error() != "connect: connection refused" {
		t.Errorf("%v; want connection refused", err)
	}
}

func TestCheckOverTLSVerifies(t *testing.T) {
	certificate, file := selfSigned(t, "app.example")
	l := answer(t, tls.NewListener(listen(t, "tcp", "127.0.0.1:0"), &tls.Config{Certificates: []tls.Certificate{certificate}}),
		"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	o := checked("https://" + l.Addr().String())
	if err := checkOnce(t, o); err == nil || !strings.HasPrefix(err.Error(), "TLS handshake: ") {
		t.Errorf("unknown authority: %v", err)
	}
	o.TLS.CA = file
	if err := checkOnce(t, o); err == nil || !strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("certificate for another name: %v", err)
	}
	o.TLS.ServerName = "app.example"
	if err := checkOnce(t, o); err != nil {
		t.Error(err)
	}
	o.TLS = TLSOptions{Verify: false}
	if err := checkOnce(t, o); err != nil {
		t.Errorf("without verification: %v", err)
	}
}

// selfSigned is a certificate for a name, also as a file.
func selfSigned(t *testing.T, name string) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IsCA:         true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "cert.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

func TestNewFileContentsMakeAnotherPool(t *testing.T) {
	_, file := selfSigned(t, "a.example")
	r := NewRegistry(RegistryOptions{})
	defer r.Close()
	o := defaults("https://127.0.0.1:443")
	o.TLS.CA = file
	first, err := r.Build(context.Background(), "app", o)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	_, other := selfSigned(t, "b.example")
	text, err := os.ReadFile(other)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	second, err := r.Build(context.Background(), "app", o)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if first == second || first.Servers()[0].origin == second.Servers()[0].origin {
		t.Error("connections verified with the old file are used with the new one")
	}
}

// TestOriginThatFallsAndRises runs checks over real connections.
func TestOriginThatFallsAndRises(t *testing.T) {
	const up, down = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
	l := answer(t, listen(t, "tcp", "127.0.0.1:0"), up)
	o := checked(l.Addr().String())
	o.Health.Interval = 10 * time.Millisecond
	p := build(t, o)
	eventually(t, "up", func() bool { return p.Status().Servers[0].State == "up" })
	l.answer.Store(down)
	eventually(t, "down", func() bool { return !picked(p) })
	if reason := p.Status().Servers[0].Reason; reason != "status 500, want 200-399" {
		t.Errorf("reason %q", reason)
	}
	l.answer.Store(up)
	eventually(t, "up again", func() bool { return picked(p) })
}

// picked reports whether the pool has a server to give.
func picked(p *Pool) bool {
	s, _ := p.Pick(new(Tried))
	if s != nil {
		s.Done(Result{Outcome: OK})
	}
	return s != nil
}

// eventually waits for a condition, bounded.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not %s within 10 s", what)
		}
	}
}

// A server that fails its checks because of something that all servers share
// stays in use; one that cannot be reached does not.
func TestExcuseKeepsReachableServersInUse(t *testing.T) {
	const up, down = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"
	l := answer(t, listen(t, "tcp", "127.0.0.1:0"), up)
	o := checked(l.Addr().String())
	o.Health.Interval = 10 * time.Millisecond
	p := build(t, o)
	eventually(t, "up", func() bool { return p.Status().Servers[0].State == "up" })
	var excused atomic.Bool
	p.Excuse(excused.Load, nil)

	l.answer.Store(down)
	eventually(t, "down without the excuse", func() bool { return !picked(p) })
	excused.Store(true)
	eventually(t, "in use again", func() bool { return picked(p) })
	for checks := l.accepted.Load(); l.accepted.Load() < checks+10; time.Sleep(time.Millisecond) {
		if !picked(p) {
			t.Fatal("a failed check took the server out of use in spite of the excuse")
		}
	}
	if reason := p.Status().Servers[0].Reason; reason != "status 503, want 200-399" {
		t.Errorf("reason %q", reason)
	}
	excused.Store(false)
	eventually(t, "down when the excuse is over", func() bool { return !picked(p) })
	excused.Store(true)
	eventually(t, "in use again", func() bool { return picked(p) })
	l.Close()
	eventually(t, "down when nobody is there", func() bool { return !picked(p) })
}
