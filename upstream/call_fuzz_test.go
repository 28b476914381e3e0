package upstream

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"gateway/internal/clock"
	"gateway/wire"
)

// scripted is a connection that gives bytes in pieces of given sizes.
type scripted struct {
	net.Conn
	left   []byte
	splits []byte
	at     int
	given  int
}

func (s *scripted) Read(p []byte) (int, error) {
	if len(s.left) == 0 {
		return 0, io.EOF
	}
	n := len(s.left)
	if len(s.splits) > 0 {
		n = min(n, 1+int(s.splits[s.at%len(s.splits)]))
		s.at++
	}
	n = copy(p, s.left[:n])
	s.left = s.left[n:]
	s.given += n
	return n, nil
}

func (s *scripted) Write(p []byte) (int, error)      { return len(p), nil }
func (s *scripted) Close() error                     { return nil }
func (s *scripted) SetDeadline(time.Time) error      { return nil }
func (s *scripted) SetReadDeadline(time.Time) error  { return nil }
func (s *scripted) SetWriteDeadline(time.Time) error { return nil }

// reference reads the final response as net/http understands it, and how many
// bytes it takes. net/http is more lenient, so it understands whatever a call
// accepts.
func reference(data []byte, method string) (status int, body []byte, taken int, err error) {
	raw := bytes.NewReader(data)
	r := bufio.NewReader(raw)
	for {
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			return 0, nil, 0, err
		}
		body, err = io.ReadAll(resp.Body)
		if resp.StatusCode >= 200 {
			return resp.StatusCode, body, len(data) - raw.Len() - r.Buffered(), err
		}
	}
}

func FuzzCallResponse(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nA: b\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
		"HTTP/1.1 200 OK\r\n\r\nuntil close",
		"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\n\r\n",
		"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	} {
		f.Add([]byte(s), []byte{}, false)
		f.Add([]byte(s), []byte{0, 1, 6}, false)
		f.Add([]byte(s), []byte{0}, true)
	}
	f.Fuzz(func(t *testing.T, data, splits []byte, head bool) {
		e := NewEndpoint(EndpointOptions{MaxIdle: 1})
		socket := &scripted{left: data, splits: splits}
		e.put(newConn(e, socket), clock.Mono())
		c := Call{Method: wire.MethodGet, Head: []byte("request")}
		method := "GET"
		if head {
			c.Method, method = wire.MethodHead, "HEAD"
		}
		outcome := c.Do(e)
		if outcome != OK {
			if outcome != Stale && outcome != Reset && outcome != Invalid {
				t.Fatalf("outcome is %v", outcome)
			}
			if open, idle := e.Stats(); open != 0 || idle != 0 {
				t.Fatalf("%d open, %d idle after %v", open, idle, outcome)
			}
			return
		}
		status := c.Response.Status
		whole, isWhole := c.Whole()
		whole = bytes.Clone(whole)
		var body []byte
		var err error
		for err == nil {
			var p []byte
			if p, err = c.Next(); err == nil && len(p) == 0 {
				t.Fatal("empty piece")
			}
			body = append(body, p...)
		}
		if isWhole && (err != io.EOF || !bytes.Equal(whole, body)) {
			t.Fatalf("whole body is %q, read %q, %v", whole, body, err)
		}
		c.End()
		_, idle := e.Stats()
		if err != io.EOF {
			if idle != 0 {
				t.Fatal("connection of an incomplete body was kept")
			}
			return
		}
		wantStatus, wantBody, taken, err := reference(data, method)
		if err != nil {
			t.Fatalf("complete body %q; net/http says %v", body, err)
		}
		if status != wantStatus || !bytes.Equal(body, wantBody) {
			t.Fatalf("got %d %q; net/http has %d %q", status, body, wantStatus, wantBody)
		}
		if idle == 1 && taken != socket.given {
			t.Fatalf("connection was kept after %d bytes; the response has %d", socket.given, taken)
		}
	})
}
