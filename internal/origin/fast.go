package origin

import (
	"bytes"
	"net"
	"path/filepath"
	"sync"
	"testing"
)

// Fast is an origin that allocates nothing once a connection is open: it
// gives the same response for each request head that it sees. Request bodies
// are not understood. For allocation tests and benchmarks.
type Fast struct {
	Network string
	Address string

	listener net.Listener
	response []byte
	running  sync.WaitGroup
	mu       sync.Mutex
	closed   bool
	open     []net.Conn
}

// StartFast listens on a free TCP port of 127.0.0.1.
func StartFast(tb testing.TB, response string) *Fast {
	tb.Helper()
	return startFast(tb, "tcp", "127.0.0.1:0", response)
}

// StartFastUnix listens on a Unix socket in a folder of the test's own.
func StartFastUnix(tb testing.TB, response string) *Fast {
	tb.Helper()
	return startFast(tb, "unix", filepath.Join(tb.TempDir(), "fast.sock"), response)
}

func startFast(tb testing.TB, network, address, response string) *Fast {
	l, err := net.Listen(network, address)
	if err != nil {
		tb.Fatalf("start fast origin: %v", err)
	}
	f := &Fast{Network: network, Address: l.Addr().String(), listener: l, response: []byte(response)}
	f.running.Add(1)
	go f.accept()
	tb.Cleanup(f.Close)
	return f
}

// Close stops listening, closes all connections and waits for their end.
func (f *Fast) Close() {
	f.mu.Lock()
	f.closed = true
	f.listener.Close()
	for _, c := range f.open {
		c.Close()
	}
	f.mu.Unlock()
	f.running.Wait()
}

func (f *Fast) accept() {
	defer f.running.Done()
	for {
		c, err := f.listener.Accept()
		if err != nil {
			return
		}
		f.mu.Lock()
		if f.closed {
			c.Close()
		} else {
			f.open = append(f.open, c)
			f.running.Add(1)
			go f.serve(c)
		}
		f.mu.Unlock()
	}
}

var blank = []byte("\r\n\r\n")

func (f *Fast) serve(c net.Conn) {
	defer f.running.Done()
	defer c.Close()
	buf := make([]byte, 64<<10)
	have := 0
	for {
		n, err := c.Read(buf[have:])
		if err != nil {
			return
		}
		have += n
		at := 0
		for {
			end := bytes.Index(buf[at:have], blank)
			if end < 0 {
				break
			}
			at += end + len(blank)
			if _, err := c.Write(f.response); err != nil {
				return
			}
		}
		have = copy(buf, buf[at:have])
		if have == len(buf) {
			return
		}
	}
}
