package upstream_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"gateway/internal/origin"
	"gateway/upstream"
	"gateway/wire"
)

func TestRefusedConnections(t *testing.T) {
	o := origin.Start(t, origin.Echo)
	o.Close()
	f := func(network, address string) {
		t.Helper()
		e := endpoint(t, network, address)
		var c upstream.Call
		must(t, get(&c), e, upstream.ConnectRefused)
		if c.Sent() || c.Reused() || c.Cause() == nil || open(e) != 0 {
			t.Errorf("%s: sent %v, reused %v, cause %v, %d open", address, c.Sent(), c.Reused(), c.Cause(), open(e))
		}
	}
	f("tcp", o.Address)
	f("unix", filepath.Join(t.TempDir(), "none.sock"))
	f("tcp", "name.invalid:80")
}

func TestIPv6(t *testing.T) {
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6 on this machine")
	}
	l.Close()
	o := origin.StartAt(t, "tcp", l.Addr().String(), origin.Echo)
	var c upstream.Call
	must(t, get(&c), endpoint(t, "tcp", o.Address), upstream.OK)
}

// deaf is the address of a listener whose backlog is full: connections to it
// are neither accepted nor refused.
func deaf(t *testing.T) string {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: name.(*syscall.SockaddrInet4).Port}).String()
	for range 10 {
		c, err := net.DialTimeout("tcp", address, 300*time.Millisecond)
		if err != nil {
			return address
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Skip("the backlog can't be filled here")
	return ""
}

func TestConnectTimeouts(t *testing.T) {
	noLeak(t)
	f := func(e *upstream.Endpoint) {
		t.Helper()
		var c upstream.Call
		get(&c).ConnectTimeout = 30 * time.Millisecond
		must(t, &c, e, upstream.ConnectTimedOut)
		get(&c).Deadline = time.Now().Add(30 * time.Millisecond)
		must(t, &c, e, upstream.DeadlinePassed)
		get(&c)
		cancelled := make(chan time.Time)
		go func() {
			time.Sleep(20 * time.Millisecond)
			now := time.Now()
			c.Cancel()
			cancelled <- now
		}()
		must(t, &c, e, upstream.Cancelled)
		if took := time.Since(<-cancelled); took > 5*time.Second {
			t.Errorf("Cancel took %v", took)
		}
		if c.Sent() || open(e) != 0 {
			t.Errorf("sent %v, %d connections open", c.Sent(), open(e))
		}
	}
	f(endpoint(t, "tcp", deaf(t)))
	silent := origin.Start(t, func(c *origin.Conn) { c.AwaitClose() })
	f(endpoint(t, "tcp", silent.Address, func(o *upstream.EndpointOptions) { o.TLS = &tls.Config{} }))
}

// secure is an endpoint over TLS that trusts the authority.
func secure(t testing.TB, o *origin.Origin, a *origin.Authority, change ...func(*tls.Config)) *upstream.Endpoint {
	config := &tls.Config{RootCAs: a.Pool, ServerName: "origin.test"}
	for _, f := range change {
		f(config)
	}
	return endpoint(t, o.Network, o.Address, func(eo *upstream.EndpointOptions) { eo.TLS = config })
}

func TestTLS(t *testing.T) {
	noLeak(t)
	a := origin.NewAuthority(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		var resumed []bool
		server := &tls.Config{Certificates: []tls.Certificate{a.Issue("origin.test")}, MaxVersion: version}
		o := origin.StartTLS(t, server, func(c *origin.Conn) {
			for {
				r := c.Read()
				s := c.Conn.(*tls.Conn).ConnectionState()
				resumed = append(resumed, s.DidResume)
				if s.ServerName != "origin.test" || s.NegotiatedProtocol != "" {
					t.Errorf("server name %q, protocol %q", s.ServerName, s.NegotiatedProtocol)
				}
				c.Write(origin.OK(r.Body))
				if len(resumed)%2 == 0 {
					return
				}
			}
		})
		e := secure(t, o, a)
		var c upstream.Call
		for i := range 4 {
			request(&c, wire.MethodPost, "POST / HTTP/1.1\r\nContent-Length: 30000\r\n\r\n").Body = []byte(origin.Filler(30000))
			must(t, &c, e, upstream.OK)
			if c.Reused() != (i%2 == 1) {
				t.Errorf("request %d: reused %v", i, c.Reused())
			}
			mustBody(t, &c, origin.Filler(30000))
			c.End()
			if i%2 == 1 { // the origin closes
				eventually(t, "close_notify found", func() bool { e.CloseIdle(); return open(e) == 0 })
			}
		}
		e.Retire()
		o.Close()
		if len(resumed) != 4 || resumed[0] || !resumed[2] {
			t.Errorf("resumed: %v", resumed)
		}
	}
}

func TestTLSUpload(t *testing.T) {
	noLeak(t)
	const size = 3_000_000
	a := origin.NewAuthority(t)
	o := origin.StartTLS(t, &tls.Config{Certificates: []tls.Certificate{a.Issue("origin.test")}}, origin.Echo)
	e := secure(t, o, a)
	var c upstream.Call
	for range 2 {
		must(t, upload(&c, newClient(origin.Filler(size)).ending(nil), size), e, upstream.OK)
		mustBody(t, &c, string(c.Head)+origin.Filler(size))
		c.End()
	}
	if o.Connections() != 1 {
		t.Errorf("%d connections", o.Connections())
	}
}

func TestTLSRefusals(t *testing.T) {
	noLeak(t)
	a := origin.NewAuthority(t)
	server := &tls.Config{Certificates: []tls.Certificate{a.Issue("origin.test")}}
	f := func(name string, server *tls.Config, want upstream.Outcome, change func(*tls.Config)) {
		t.Run(name, func(t *testing.T) {
			o := origin.StartTLS(t, server, origin.Reply(origin.OK("x")))
			e := secure(t, o, a, change)
			var c upstream.Call
			must(t, get(&c), e, want)
			if want != upstream.OK && (open(e) != 0 || c.Cause() == nil) {
				t.Errorf("%d connections open, cause %v", open(e), c.Cause())
			}
		})
	}
	f("trusted", server, upstream.OK, func(*tls.Config) {})
	f("unknown authority", server, upstream.TLSFailed, func(c *tls.Config) { c.RootCAs = x509.NewCertPool() })
	f("other name", server, upstream.TLSFailed, func(c *tls.Config) { c.ServerName = "other.test" })
	f("name from the address", server, upstream.TLSFailed, func(c *tls.Config) { c.ServerName = "" })
	f("not verified", server, upstream.OK, func(c *tls.Config) { c.RootCAs, c.InsecureSkipVerify = nil, true })
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		mutual := server.Clone()
		mutual.MaxVersion, mutual.ClientAuth, mutual.ClientCAs = version, tls.RequireAndVerifyClientCert, a.Pool
		f("no client certificate", mutual, upstream.TLSFailed, func(*tls.Config) {})
		f("client certificate", mutual, upstream.OK, func(c *tls.Config) { c.Certificates = []tls.Certificate{a.Issue("gateway.test")} })
	}
	plain := origin.Start(t, func(c *origin.Conn) {
		c.Byte()
		c.Write("HTTP/1.1 400 Bad Request\r\n\r\n")
	})
	var c upstream.Call
	must(t, get(&c), secure(t, plain, a), upstream.TLSFailed)
}

// A body that ends with its connection is complete only after close_notify:
// anybody on the way can end a connection.
func TestTLSBodyUntilClose(t *testing.T) {
	noLeak(t)
	a := origin.NewAuthority(t)
	for _, cut := range []bool{false, true} {
		o := origin.StartTLS(t, &tls.Config{Certificates: []tls.Certificate{a.Issue("origin.test")}}, func(c *origin.Conn) {
			c.Read()
			c.Write("HTTP/1.1 200 OK\r\n\r\nhello")
			if cut {
				c.Cut()
			}
		})
		var c upstream.Call
		must(t, get(&c), secure(t, o, a), upstream.OK)
		want := io.EOF
		if cut {
			want = io.ErrUnexpectedEOF
		}
		var got string
		var err error
		for err == nil {
			var p []byte
			p, err = c.Next()
			got += string(p)
		}
		if got != "hello" || err != want {
			t.Errorf("cut %v: body is %q, %v", cut, got, err)
		}
		c.End()
	}
}

// TLS reads ahead: a second response can hide between socket and reader.
func TestTLSSurplusIsFound(t *testing.T) {
	a := origin.NewAuthority(t)
	server := &tls.Config{Certificates: []tls.Certificate{a.Issue("origin.test")}}
	f := func(name string, first, second string) {
		t.Run(name, func(t *testing.T) {
			sent := make(chan struct{})
			o := origin.StartTLS(t, server, func(c *origin.Conn) {
				c.Read()
				c.Write(first)
				c.Write(second)
				sent <- struct{}{}
				c.AwaitClose()
			})
			e := secure(t, o, a)
			var c upstream.Call
			for range 10 {
				must(t, get(&c), e, upstream.OK)
				mustBody(t, &c, "first")
				c.End()
				<-sent
			}
			if got := o.Connections(); got != 10 {
				t.Errorf("%d connections for 10 requests", got)
			}
		})
	}
	f("same record", origin.OK("first")+origin.OK("poison"), "")
	f("next record", origin.OK("first"), origin.OK("poison"))
}
