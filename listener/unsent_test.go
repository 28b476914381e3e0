package listener

import (
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gateway/exchange"
)

// together has requests that are sent meanwhile come to the queue together, as
// far as one who only holds its lock can.
func (f *Front) together(send func()) {
	for _, l := range f.loops {
		l.workers.mu.Lock()
	}
	send()
	time.Sleep(time.Millisecond)
	for _, l := range f.loops {
		l.workers.mu.Unlock()
	}
}

const aGet = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

// An answer that waits for others is written although the worker that made it
// has to wait for something then.
func TestUnsentAnswersDoNotWaitForARequestThatWaits(t *testing.T) {
	leave := make(chan struct{})
	f, s := start(t, plain(), func(x *exchange.Exchange) {
		if string(x.Request.Path) == "/slow" {
			<-leave
		}
		echo(x)
	})
	for range 100 {
		// The first worker makes the fast answer and takes a slow request; the one
		// that it has summoned takes the last.
		fast, slow := dial(t, s), [2]*client{dial(t, s), dial(t, s)}
		fast.get("/")
		for _, c := range slow {
			c.get("/")
		}
		f.together(func() {
			fast.send(aGet)
			for _, c := range slow {
				c.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
			}
		})
		if got := fast.answer("GET"); got.StatusCode != 200 {
			t.Fatalf("got %d", got.StatusCode)
		}
		for range slow {
			leave <- struct{}{}
		}
		for _, c := range slow {
			if got := c.answer("GET"); got.StatusCode != 200 {
				t.Fatalf("got %d", got.StatusCode)
			}
			c.Close()
		}
		fast.Close()
		within(t, "all have gone", func() bool { return s.Active() == 0 })
	}
}

func TestMoreAnswersThanMayWaitAreAllWritten(t *testing.T) {
	f, s := start(t, plain(), echo)
	var clients [5*maxUnsent + 3]*client
	for i := range clients {
		clients[i] = dial(t, s)
		clients[i].get("/")
	}
	for range 20 {
		f.together(func() {
			for _, c := range clients {
				c.send(aGet)
			}
		})
		for _, c := range clients {
			if got := c.answer("GET"); got.StatusCode != 200 {
				t.Fatalf("got %d", got.StatusCode)
			}
		}
	}
	within(t, "all sleep", func() bool { return f.asleep() == len(clients) })
	for _, l := range f.loops {
		l.workers.mu.Lock()
		if n := len(l.workers.unsent); n != 0 {
			t.Errorf("%d answers wait", n)
		}
		l.workers.mu.Unlock()
	}
}

// A connection that takes only a part of its answer becomes an ordinary one, and
// gets all of it once it reads.
func TestAnswerThatDoesNotFitIsCompleted(t *testing.T) {
	body := strings.Repeat("0123456789abcdef", copied/16-10)
	var served atomic.Int64
	f, s := start(t, plain(), func(x *exchange.Exchange) {
		reply(x, 200, body)
		served.Add(1)
	})
	c := dial(t, s)
	if err := c.Conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	c.get("/")
	within(t, "it sleeps", func() bool { return f.asleep() == 1 })
	for _, l := range f.loops {
		l.each(func(s *sleeper) { _ = unix.SetsockoptInt(s.fd(), unix.SOL_SOCKET, unix.SO_SNDBUF, 4<<10) })
	}
	sent := 0
	for ordinary := false; !ordinary; sent++ {
		if sent == 1000 {
			t.Fatal("1000 answers lie in the sockets")
		}
		c.send(aGet)
		// Either the answer has been taken, and the connection sleeps, or it is
		// an ordinary one.
		within(t, "the request is served", func() bool {
			f.census.mu.Lock()
			ordinary = len(f.census.conns) == 1
			f.census.mu.Unlock()
			return served.Load() == int64(sent+2) && (ordinary || f.asleep() == 1)
		})
	}
	for i := range sent {
		if got := c.answer("GET"); got.StatusCode != 200 || got.body != body {
			t.Fatalf("answer %d of %d: %d, %d bytes", i, sent, got.StatusCode, len(got.body))
		}
	}
	if got := c.get("/"); got.body != body {
		t.Errorf("then got %d bytes", len(got.body))
	}
	c.Close()
	within(t, "the connection ended", func() bool { return s.Active() == 0 })
}

// Who leaves before the answer is written, or only half, loses nothing of ours.
func TestUnsentAnswerOfAClientThatHasLeft(t *testing.T) {
	f, s := start(t, plain(), echo)
	stays := dial(t, s)
	for range 200 {
		reset, half := dial(t, s), dial(t, s)
		_ = reset.Conn.(*net.TCPConn).SetLinger(0)
		f.together(func() {
			reset.send(aGet)
			half.send(aGet)
			stays.send(aGet)
			reset.Close()
			_ = half.Conn.(*net.TCPConn).CloseWrite()
		})
		for _, c := range []*client{stays, half} {
			if got := c.answer("GET"); got.StatusCode != 200 {
				t.Fatalf("got %d", got.StatusCode)
			}
		}
		half.closed()
	}
	within(t, "one connection is left", func() bool { return s.Active() == 1 && f.asleep() == 1 })
}

// A connection that turns out to end with its answer does, and the answer is
// written before.
func TestAnswerIsWrittenBeforeTheConnectionEnds(t *testing.T) {
	_, s := start(t, plain(), func(x *exchange.Exchange) {
		client := x.Client
		echo(x)
		client.CloseAfter()
	})
	c := dial(t, s)
	if got := c.get("/"); got.StatusCode != 200 {
		t.Errorf("got %d", got.StatusCode)
	}
	c.closed()
	within(t, "the connection ended", func() bool { return s.Active() == 0 })
}
