package listener

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gateway/exchange"
	"gateway/internal/origin"
	"gateway/wire"
)

// files writes certificates as PEM files and returns the options for them.
func files(t *testing.T, dir string, certificates ...tls.Certificate) TLS {
	t.Helper()
	o := TLS{MinVersion: "1.2"}
	for i, c := range certificates {
		name := filepath.Join(dir, string(rune('a'+i)))
		f := Certificate{Cert: name + ".pem", Key: name + ".key"}
		key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		write(t, f.Cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}))
		write(t, f.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
		o.Certificates = append(o.Certificates, f)
	}
	return o
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func load(t *testing.T, o TLS, log io.Writer) *Keys {
	t.Helper()
	k, err := LoadKeys(o, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

// shake begins TLS on a new connection.
func shake(t *testing.T, s *Socket, o *tls.Config) (*client, *tls.Conn, error) {
	t.Helper()
	c := dial(t, s)
	conn := tls.Client(c.Conn, o)
	err := conn.Handshake()
	return wrap(t, conn), conn, err
}

func TestCertificateIsChosenByName(t *testing.T) {
	a := origin.NewAuthority(t)
	k := load(t, files(t, t.TempDir(), a.Issue("first.test"), a.Issue("*.wild.test", "exact.test"), a.Issue("www.wild.test", "127.0.0.1")), io.Discard)
	_, s := startAt(t, "https://127.0.0.1:0", options(), 0, k, func(x *exchange.Exchange) {
		if !x.Secure {
			t.Error("not secure")
		}
		echo(x)
	})
	f := func(name, want string) {
		t.Helper()
		c, conn, err := shake(t, s, &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}})
		if err != nil {
			t.Fatal(err)
		}
		state := conn.ConnectionState()
		if got := state.PeerCertificates[0].DNSNames[0]; got != want || state.NegotiatedProtocol != "http/1.1" {
			t.Errorf("%q: got %q, %q; want %q", name, got, state.NegotiatedProtocol, want)
		}
		for range 2 {
			if got := c.get("/"); got.StatusCode != 200 {
				t.Fatalf("got %d", got.StatusCode)
			}
		}
		conn.CloseWrite()
		c.closed()
	}
	f("first.test", "first.test")
	f("EXACT.test", "*.wild.test")
	f("x.wild.test", "*.wild.test")
	f("www.wild.test", "www.wild.test")
	f("x.y.wild.test", "first.test")
	f("wild.test", "first.test")
	f("", "first.test")
	if e := k.Expiries(); len(e) != 3 || e[1].Name != "*.wild.test" || time.Until(e[1].NotAfter) < time.Hour {
		t.Errorf("got %v", e)
	}
}

func TestOldVersionsOfTLSAreRefused(t *testing.T) {
	o := files(t, t.TempDir(), origin.NewAuthority(t).Issue("a.test"))
	o.MinVersion = "1.3"
	_, s := startAt(t, "https://127.0.0.1:0", options(), 0, load(t, o, io.Discard), echo)
	if _, _, err := shake(t, s, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}); err == nil {
		t.Error("TLS 1.2 was accepted")
	}
	if _, _, err := shake(t, s, &tls.Config{InsecureSkipVerify: true}); err != nil {
		t.Error(err)
	}
}

func TestClientCertificates(t *testing.T) {
	a, stranger := origin.NewAuthority(t), origin.NewAuthority(t)
	dir := t.TempDir()
	o := files(t, dir, a.Issue("a.test"))
	o.ClientCA = filepath.Join(dir, "ca.pem")
	write(t, o.ClientCA, a.PEM)
	_, s := startAt(t, "https://127.0.0.1:0", options(), 0, load(t, o, io.Discard), echo)
	f := func(ok bool, certificates ...tls.Certificate) {
		t.Helper()
		_, conn, err := shake(t, s, &tls.Config{ServerName: "a.test", RootCAs: a.Pool, Certificates: certificates})
		if err == nil {
			// In TLS 1.3 the refusal comes after the client's handshake.
			io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
			var b []byte
			if b, err = io.ReadAll(conn); err == nil && !bytes.HasPrefix(b, []byte("HTTP/1.1 200")) {
				err = errors.New(string(b))
			}
		}
		if ok != (err == nil) {
			t.Errorf("got %v", err)
		}
	}
	f(true, a.Issue("client"))
	f(false)
	f(false, stranger.Issue("client"))
}

// lockedBuffer collects a log.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestChangedCertificatesAreLoadedAndBadOnesAreNot(t *testing.T) {
	a := origin.NewAuthority(t)
	dir := t.TempDir()
	o := files(t, dir, a.Issue("old.test"))
	o.Watch = true
	var log lockedBuffer
	k := load(t, o, &log)
	_, s := startAt(t, "https://127.0.0.1:0", options(), 0, k, echo)
	name := func() string {
		_, conn, err := shake(t, s, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		return conn.ConnectionState().PeerCertificates[0].DNSNames[0]
	}
	config := k.config.Load()
	write(t, o.Certificates[0].Cert, []byte("nonsense"))
	within(t, "the mistake is logged", func() bool { return strings.Contains(log.String(), "cannot be used") })
	if got := name(); got != "old.test" {
		t.Errorf("got %q", got)
	}
	files(t, dir, a.Issue("new.test"))
	within(t, "the new certificate is used", func() bool { return name() == "new.test" })
	if k.config.Load() != config {
		t.Error("a new certificate ended all TLS sessions")
	}
	if n := strings.Count(log.String(), "cannot be used"); n > 2 {
		t.Errorf("logged %d times", n)
	}
}

func TestUnusableCertificatesAreErrors(t *testing.T) {
	a := origin.NewAuthority(t)
	dir := t.TempDir()
	good := files(t, dir, a.Issue("a.test"), a.Issue("b.test"))
	f := func(want string, change func(o *TLS)) {
		t.Helper()
		o := good
		o.Certificates = append([]Certificate(nil), good.Certificates...)
		change(&o)
		if k, err := LoadKeys(o, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, %v; want %q", k, err, want)
		}
	}
	f("no such file", func(o *TLS) { o.Certificates[1].Cert = filepath.Join(dir, "none") })
	f("does not match", func(o *TLS) { o.Certificates[1].Key = o.Certificates[0].Key })
	f("no certificate in", func(o *TLS) { o.ClientCA = o.Certificates[0].Key })
	if k, err := LoadKeys(TLS{}, nil); k != nil || err != nil {
		t.Errorf("got %v, %v", k, err)
	}
	var none *Keys
	none.Close()
	if none.Expiries() != nil {
		t.Error("nothing expires")
	}
}

func TestHandshakeIsBounded(t *testing.T) {
	o := options()
	o.HeaderTimeout = 300 * time.Millisecond
	k := load(t, files(t, t.TempDir(), origin.NewAuthority(t).Issue("a.test")), io.Discard)
	_, s := startAt(t, "https://127.0.0.1:0", o, 0, k, echo)
	begun := time.Now()
	c := dial(t, s)
	if _, took := c.ended(begun); took < 300*time.Millisecond || took > 5*time.Second {
		t.Errorf("after %v", took)
	}
}

func TestAnswersOverTLS(t *testing.T) {
	k := load(t, files(t, t.TempDir(), origin.NewAuthority(t).Issue("a.test")), io.Discard)
	body := strings.Repeat("0123456789abcdef", 10000)
	_, s := startAt(t, "https://127.0.0.1:0", options(), 0, k, func(x *exchange.Exchange) {
		switch string(x.Request.Path) {
		case "/upload":
			echo(x)
		case "/whole":
			reply(x, 200, body)
		case "/cut":
			x.Own(200)
			x.Response.Length = wire.LengthUntilClose
			x.Client.Begin(x, []byte("abc"), false)
			x.Client.Abort()
		default:
			x.Own(200)
			x.Response.Length = wire.LengthUntilClose
			x.Client.Begin(x, []byte(body[:5]), false)
			x.Client.Write([]byte(body[5:40000]))
			x.Client.Write([]byte(body[40000:]))
			x.Client.End(nil)
		}
	})
	insecure := &tls.Config{InsecureSkipVerify: true}
	c, _, err := shake(t, s, insecure)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/whole", "/chunked", "/whole"} {
		if got := c.get(path); got.err != nil || got.body != body {
			t.Errorf("%s: got %d bytes, %v", path, len(got.body), got.err)
		}
	}
	c.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	if got := c.answer("POST"); len(got.body) < len(body) {
		t.Errorf("got %d bytes", len(got.body))
	}
	c, _, _ = shake(t, s, insecure)
	c.send("GET / HTTP/1.0\r\n\r\n")
	if got := c.answer("GET"); got.err != nil || got.body != body {
		t.Errorf("HTTP/1.0: got %d bytes, %v", len(got.body), got.err)
	}
	c, _, _ = shake(t, s, insecure)
	c.send("GET /cut HTTP/1.0\r\n\r\n")
	if b, err := c.rest(); err == nil {
		t.Errorf("a cut answer looks complete: %q", b)
	}
}

func TestTunnelOverTLS(t *testing.T) {
	k := load(t, files(t, t.TempDir(), origin.NewAuthority(t).Issue("a.test")), io.Discard)
	ended := make(chan string, 1)
	_, s := startAt(t, "https://127.0.0.1:0", options(), 0, k, upgrading(ended))
	c, conn, err := shake(t, s, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	c.send("GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nearly ")
	if res, err := http.ReadResponse(c.r, nil); err != nil || res.StatusCode != 101 {
		t.Fatalf("got %v, %v", res, err)
	}
	c.send("late")
	conn.CloseWrite()
	if b, err := c.rest(); b != "/chat\nearly late" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	if why := <-ended; why != "" {
		t.Error(why)
	}
}

func TestPlainTextOnASecureSocketIsClosed(t *testing.T) {
	k := load(t, files(t, t.TempDir(), origin.NewAuthority(t).Issue("a.test")), io.Discard)
	_, s := startAt(t, "https://127.0.0.1:0", options(), 0, k, echo)
	c := dial(t, s)
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if b, _ := c.rest(); strings.Contains(b, "200") {
		t.Errorf("got %q", b)
	}
}

func TestPeerAndLocalAddresses(t *testing.T) {
	seen := make(chan [2]string, 1)
	_, s := start(t, options(), func(x *exchange.Exchange) {
		seen <- [2]string{x.Peer.String(), x.Local.String()}
		echo(x)
	})
	c := dial(t, s)
	c.get("/")
	if got := <-seen; got != [2]string{c.LocalAddr().String(), c.RemoteAddr().String()} || !x4(got[0]) {
		t.Errorf("got %v", got)
	}
}

// x4 reports whether the address is plain IPv4.
func x4(s string) bool {
	host, _, err := net.SplitHostPort(s)
	return err == nil && !strings.Contains(host, ":")
}
