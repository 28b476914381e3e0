package upstream

import (
	"bytes"
	"crypto/tls"
	"net"
	"testing"
	"time"

	fake "gateway/internal/origin"
)

// corked keeps what is written back until it is asked for.
type corked struct {
	net.Conn
	on   bool
	kept bytes.Buffer
}

func (c *corked) Write(p []byte) (int, error) {
	if c.on {
		return c.kept.Write(p)
	}
	return c.Conn.Write(p)
}

func TestDrainedKnowsWhatTLSHasReadAhead(t *testing.T) {
	a := fake.NewAuthority(t)
	cert := a.Issue("origin.test")
	f := func(name string, want bool, write func(server *tls.Conn), cut int) {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			near, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer near.Close()
			far, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer far.Close()

			cork := &corked{Conn: far}
			server := tls.Server(cork, &tls.Config{Certificates: []tls.Certificate{cert}})
			e := NewEndpoint(EndpointOptions{Network: "tcp", Address: l.Addr().String(), TLS: &tls.Config{RootCAs: a.Pool, ServerName: "origin.test"}})
			c := newConn(e, near)
			secured := c.secure(e.tls)
			shaken := make(chan error, 1)
			go func() { shaken <- server.Handshake() }()
			if err := secured.Handshake(); err != nil {
				t.Fatal(err)
			}
			if err := <-shaken; err != nil {
				t.Fatal(err)
			}
			cork.on = true
			_, _ = server.Write([]byte("abc"))
			write(server)
			_ = far.SetDeadline(time.Time{}) // CloseWrite has set one
			if _, err := far.Write(cork.kept.Bytes()[:cork.kept.Len()-cut]); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 3)
			if n, err := c.Read(b); n != 3 || string(b) != "abc" {
				t.Fatalf("read %q, %v", b[:n], err)
			}
			if got := c.drained(); got != want {
				t.Errorf("drained is %v", got)
			}
			if !want {
				return
			}
			// The look has spoiled nothing.
			cork.on = false
			_, _ = server.Write([]byte("def"))
			if n, err := c.Read(b); n != 3 || string(b) != "def" {
				t.Errorf("read %q, %v", b[:n], err)
			}
		})
	}
	f("nothing", true, func(*tls.Conn) {}, 0)
	f("rest of the record", false, func(s *tls.Conn) { _, _ = s.Write([]byte("x")) }, 0)
	f("another record", false, func(s *tls.Conn) { _, _ = s.Write([]byte("poison")) }, 0)
	f("part of a record", false, func(s *tls.Conn) { _, _ = s.Write([]byte("poison")) }, 1)
	f("part of a record's header", false, func(s *tls.Conn) { _, _ = s.Write(nil); _, _ = s.Write([]byte("poison")) }, 6+16+1+3)
	f("close_notify", false, func(s *tls.Conn) { _ = s.CloseWrite() }, 0)
}
