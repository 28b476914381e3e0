package origin

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

func dial(t *testing.T, o *Origin) net.Conn {
	t.Helper()
	c, err := net.Dial(o.Network, o.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	return c
}

func answer(t *testing.T, c net.Conn, r *bufio.Reader, request string) string {
	t.Helper()
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestEchoesRequestsAsReceived(t *testing.T) {
	for _, o := range []*Origin{Start(t, Echo), StartUnix(t, Echo)} {
		c := dial(t, o)
		r := bufio.NewReader(c)
		head := "POST /a HTTP/1.1\r\nhOST: x\r\nContent-Length: 3\r\n\r\n"
		if got := answer(t, c, r, head+"abc"); got != head+"abc" {
			t.Errorf("echo is %q", got)
		}
		head = "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
		if got := answer(t, c, r, head+"3\r\nabc\r\n1\r\nd\r\n0\r\nX: y\r\n\r\n"); got != head+"abcd" {
			t.Errorf("echo is %q", got)
		}
		if o.Connections() != 1 || o.Requests() != 2 {
			t.Errorf("counted %d connections, %d requests", o.Connections(), o.Requests())
		}
	}
}

func TestResets(t *testing.T) {
	o := Start(t, func(c *Conn) {
		c.Read()
		c.Reset()
	})
	c := dial(t, o)
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read gave %v", err)
	}
}

func TestCloseEndsStalledScripts(t *testing.T) {
	o := Start(t, (*Conn).Stall)
	c := dial(t, o)
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Fatal(err)
	}
	o.Close()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("connection is open after Close")
	}
}

func TestAuthorityIsTrusted(t *testing.T) {
	a := NewAuthority(t)
	o := StartTLS(t, &tls.Config{Certificates: []tls.Certificate{a.Issue("example.test", "127.0.0.1")}}, Reply(OK("secret")))
	c := tls.Client(dial(t, o), &tls.Config{RootCAs: a.Pool, ServerName: "example.test"})
	if got := answer(t, c, bufio.NewReader(c), "GET / HTTP/1.1\r\n\r\n"); got != "secret" {
		t.Errorf("body is %q", got)
	}
}

func TestFastAnswersPipelinedRequests(t *testing.T) {
	f := StartFast(t, OK("fast"))
	c, err := net.Dial(f.Network, f.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, strings.Repeat("GET / HTTP/1.1\r\n\r\n", 3)); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	for range 3 {
		if got := answer(t, c, r, ""); got != "fast" {
			t.Errorf("body is %q", got)
		}
	}
}

func TestFillMatchesFiller(t *testing.T) {
	const n = 100_000
	o := Start(t, func(c *Conn) { c.Fill(n) })
	got, err := io.ReadAll(dial(t, o))
	if err != nil || string(got) != Filler(n) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
}
