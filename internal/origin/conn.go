package origin

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Conn is one connection to an origin. The embedded net.Conn is there for
// scripts that want the errors themselves.
type Conn struct {
	net.Conn
	Number int // 0 for the origin's first connection, 1 for the second, …

	origin  *Origin
	socket  net.Conn // below TLS
	in      *bufio.Reader
	waiting atomic.Bool // a request head is being waited for and no byte of it is there
}

// Request is a request as it was received.
type Request struct {
	Method  string
	Target  string
	Head    string // request line, fields and blank line, byte for byte
	Body    string // transfer coding removed
	Trailer string // lines with CRLF, without the blank line
	Chunked bool
}

// Field is the value of the first field of that name, compared without regard
// to case, "" when there is none.
func (r *Request) Field(name string) string {
	for _, line := range strings.Split(r.Head, "\r\n")[1:] {
		if n, v, ok := strings.Cut(line, ":"); ok && strings.EqualFold(n, name) {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func newConn(o *Origin, nc net.Conn, config *tls.Config, number int) *Conn {
	c := &Conn{Conn: nc, Number: number, origin: o, socket: nc}
	if config != nil {
		c.Conn = tls.Server(nc, config)
	}
	c.in = bufio.NewReader(c.Conn)
	return c
}

func (c *Conn) play() {
	defer func() {
		c.Conn.Close()
		c.origin.mu.Lock()
		delete(c.origin.open, c)
		c.origin.mu.Unlock()
		c.origin.running.Done()
	}()
	c.origin.script(c)
}

// Exit ends the script; the connection is closed.
func (c *Conn) Exit() { runtime.Goexit() }

// ReadHead reads a request up to its blank line. The body can be read with
// ReadBody, or left alone. (A socket that is closed while received bytes are
// unread is reset.)
func (c *Conn) ReadHead() *Request {
	r, err := c.readHead()
	if err != nil {
		c.Exit()
	}
	return r
}

// Read reads a whole request, body included.
func (c *Conn) Read() *Request {
	r := c.ReadHead()
	if err := c.ReadBody(r); err != nil {
		c.Exit()
	}
	return r
}

func (c *Conn) readHead() (*Request, error) {
	c.waiting.Store(true)
	_, err := c.in.Peek(1)
	c.waiting.Store(false)
	var head strings.Builder
	for err == nil {
		var line string
		line, err = c.in.ReadString('\n')
		head.WriteString(line)
		if line == "\r\n" {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	r := &Request{Head: head.String()}
	words := strings.SplitN(r.Head, " ", 3)
	if len(words) != 3 {
		return nil, errors.New("malformed request line")
	}
	r.Method, r.Target = words[0], words[1]
	c.origin.requests.Add(1)
	return r, nil
}

// ReadBody reads the body of r as its fields frame it. On an error, which is
// io.ErrUnexpectedEOF when the peer closed too early, Body holds what came.
func (c *Conn) ReadBody(r *Request) error {
	if strings.EqualFold(r.Field("Transfer-Encoding"), "chunked") {
		return c.readChunked(r)
	}
	length := r.Field("Content-Length")
	if length == "" {
		return nil
	}
	n, err := strconv.ParseInt(length, 10, 64)
	if err != nil {
		return err
	}
	return c.copyBody(r, n)
}

func (c *Conn) copyBody(r *Request, n int64) error {
	var body strings.Builder
	body.WriteString(r.Body)
	_, err := io.CopyN(&body, c.in, n)
	r.Body = body.String()
	return unexpected(err)
}

func (c *Conn) readChunked(r *Request) error {
	r.Chunked = true
	var body strings.Builder
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			r.Body = body.String()
			return unexpected(err)
		}
		n, err := strconv.ParseInt(strings.TrimSuffix(line, "\r\n"), 16, 64)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		if _, err := io.CopyN(&body, c.in, n); err != nil {
			r.Body = body.String()
			return unexpected(err)
		}
		if _, err := c.in.Discard(2); err != nil {
			return unexpected(err)
		}
	}
	r.Body = body.String()
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return unexpected(err)
		}
		if line == "\r\n" {
			return nil
		}
		r.Trailer += line
	}
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Byte reads one byte of whatever comes next: a tunnel after an upgrade.
func (c *Conn) Byte() byte {
	b, err := c.in.ReadByte()
	if err != nil {
		c.Exit()
	}
	return b
}

// Write sends bytes, at once.
func (c *Conn) Write(s string) {
	if _, err := io.WriteString(c.Conn, s); err != nil {
		c.Exit()
	}
}

// WriteEach sends the pieces one after the other with a pause after each, so
// that each arrives alone.
func (c *Conn) WriteEach(pause time.Duration, pieces ...string) {
	for _, p := range pieces {
		c.Write(p)
		c.Sleep(pause)
	}
}

// Fill sends n bytes of body text, the letters a to z repeated.
func (c *Conn) Fill(n int) {
	for n > 0 {
		k := min(n, len(filler))
		if _, err := c.Conn.Write(filler[:k]); err != nil {
			c.Exit()
		}
		n -= k
	}
}

// Filler is what Fill(n) sends.
func Filler(n int) string {
	return strings.Repeat(string(filler), n/len(filler)) + string(filler[:n%len(filler)])
}

var filler = bytes.Repeat([]byte("abcdefghijklmnopqrstuvwxyz"), 1260)

// Sleep pauses the script, at most until the origin is closed.
func (c *Conn) Sleep(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.origin.closing:
		c.Exit()
	}
}

// Wait pauses the script until the channel is closed or gives a value.
func (c *Conn) Wait(released <-chan struct{}) {
	select {
	case <-released:
	case <-c.origin.closing:
		c.Exit()
	}
}

// Stall does nothing, without reading, until the origin is closed.
func (c *Conn) Stall() {
	<-c.origin.closing
	c.Exit()
}

// AwaitClose reads and forgets bytes until the peer closes or resets the
// connection, or the origin is closed.
func (c *Conn) AwaitClose() { _, _ = io.Copy(io.Discard, c.in) }

// Reset ends the connection with RST, and the script. On Unix sockets it is a close.
func (c *Conn) Reset() {
	if t, ok := c.socket.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	c.socket.Close()
	c.Exit()
}

// Cut ends the connection with FIN and without what TLS would say at its end,
// and the script.
func (c *Conn) Cut() {
	c.socket.Close()
	c.Exit()
}

// CloseWrite ends the sending direction only.
func (c *Conn) CloseWrite() {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		_ = w.CloseWrite()
	}
}
