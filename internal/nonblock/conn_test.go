package nonblock

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"gateway/internal/mallocs"
)

// pair is two ends of a connection over loopback, the first one wrapped.
func pair(t *testing.T) (*Conn, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	limit := time.Now().Add(20 * time.Second)
	a.SetDeadline(limit)
	b.SetDeadline(limit)
	t.Cleanup(func() { a.Close(); b.Close() })
	return Wrap(a).(*Conn), b.(*net.TCPConn)
}

func TestConnCarriesBothWays(t *testing.T) {
	c, other := pair(t)
	// More than the socket buffers take: both directions have to wait.
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	go func() { io.Copy(other, other) }()
	failed := make(chan error, 1)
	go func() {
		n, err := c.Write(sent)
		if err == nil && n != len(sent) {
			err = io.ErrShortWrite
		}
		failed <- err
	}()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("read: %v, the same: %v", err, bytes.Equal(got, sent))
	}
	if err := <-failed; err != nil {
		t.Errorf("write: %v", err)
	}
}

func TestConnWritesPieces(t *testing.T) {
	c, other := pair(t)
	large := bytes.Repeat([]byte("x"), 8<<20)
	pieces := net.Buffers{[]byte("head"), large, []byte("tail")}
	want := append(append([]byte("head"), large...), "tail"...)
	got := make(chan []byte, 1)
	go func() {
		b := make([]byte, len(want))
		io.ReadFull(other, b)
		got <- b
	}()
	if n, err := c.WriteBuffers(&pieces); n != int64(len(want)) || err != nil || len(pieces) != 0 {
		t.Errorf("%d bytes, %v, %d pieces left", n, err, len(pieces))
	}
	if !bytes.Equal(<-got, want) {
		t.Error("other bytes came")
	}
}

func TestConnHasDeadlines(t *testing.T) {
	c, _ := pair(t)
	c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %d, %v", n, err)
	}
	c.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	large := make([]byte, 16<<20)
	if n, err := c.Write(large); n == 0 || n == len(large) || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write: %d, %v", n, err)
	}
	pieces := net.Buffers{large}
	if n, err := c.WriteBuffers(&pieces); !errors.Is(err, os.ErrDeadlineExceeded) || int(n)+len(pieces[0]) != len(large) {
		t.Errorf("write pieces: %d, %v", n, err)
	}
}

func TestConnTellsTheEnd(t *testing.T) {
	c, other := pair(t)
	if err := c.CloseWrite(); err != nil {
		t.Error(err)
	}
	if n, err := other.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("the other end reads %d, %v", n, err)
	}
	other.Close()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("read: %d, %v", n, err)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write: %v", err)
	}
	c.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after the close: %v", err)
	}
}

func TestConnAllocatesNothing(t *testing.T) {
	c, other := pair(t)
	b, pieces := make([]byte, 64), make(net.Buffers, 0, 2)
	mallocs.None(t, "a message there and back", 100, func() {
		pieces = append(pieces[:0], b[:32], b[32:])
		all := pieces
		if _, err := c.WriteBuffers(&all); err != nil {
			t.Fatal(err)
		}
		for n := 0; n < len(b); {
			m, err := other.Read(b[n:])
			if n += m; err != nil {
				t.Fatal(err)
			}
		}
		if _, err := other.Write(b); err != nil {
			t.Fatal(err)
		}
		for n := 0; n < len(b); {
			m, err := c.Read(b[n:])
			if n += m; err != nil {
				t.Fatal(err)
			}
		}
	})
}

// What has no descriptor stays as it is.
func TestWrapLeavesOthers(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if Wrap(a) != a {
		t.Error("a pipe is wrapped")
	}
}
