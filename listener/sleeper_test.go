package listener

import (
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"gateway/exchange"
	"gateway/internal/poller"
)

// plain are options with the plain front, whatever the environment says.
func plain() Options {
	o := options()
	o.PlainFront = true
	return o
}

// asleep is the number of connections that loops watch.
func (f *Front) asleep() (n int) {
	for _, l := range f.loops {
		l.each(func(s *sleeper) {
			if s.state.Load() == 0 {
				n++
			}
		})
	}
	return n
}

func TestSleepingConnectionsHoldNoGoroutine(t *testing.T) {
	f, s := start(t, plain(), echo)
	dial(t, s).get("/")
	before := runtime.NumGoroutine()
	const count = 300
	clients := make([]*client, count)
	for i := range clients {
		clients[i] = dial(t, s)
		clients[i].get("/")
	}
	within(t, "all sleep", func() bool { return f.asleep() == count+1 })
	if n := runtime.NumGoroutine() - before; n > count/10 {
		t.Errorf("%d goroutines for %d sleeping connections", n, count)
	}
	if n := s.Active(); n != count+1 {
		t.Errorf("%d connections are active", n)
	}
	for _, c := range clients {
		if got := c.get("/a"); got.StatusCode != 200 {
			t.Fatalf("got %d", got.StatusCode)
		}
		c.Close()
	}
	within(t, "the clients' connections ended", func() bool { return s.Active() == 1 && f.asleep() == 1 })
}

func TestPatienceLastsAsLongAsItIsNeeded(t *testing.T) {
	f, s := start(t, plain(), echo)
	g := func(name string, send ...string) {
		t.Helper()
		c := dial(t, s)
		c.get("/") // once as it should be
		for i, part := range send {
			if i > 0 {
				within(t, name+": an ordinary connection waits", func() bool { return f.asleep() == 0 })
			}
			c.send("%s", part)
		}
		if got := c.answer("POST"); got.StatusCode != 200 || got.body != `POST a / "hello"` {
			t.Errorf("%s: got %d %q", name, got.StatusCode, got.body)
		}
		if got := c.get("/next"); got.StatusCode != 200 || !strings.Contains(got.body, "/next") {
			t.Errorf("%s: then got %d %q", name, got.StatusCode, got.body)
		}
		c.Close()
		within(t, name+": the connection ended", func() bool { return s.Active() == 0 })
	}
	const head = "POST / HTTP/1.1\r\nHost: a\r\n"
	g("whole", head+"Content-Length: 5\r\n\r\nhello")
	g("body in two parts", head+"Content-Length: 5\r\n\r\nhe", "llo")
	g("head in two parts", head, "Content-Length: 5\r\n\r\nhello")
	g("chunks", head+"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
	g("chunks in two parts", head+"Transfer-Encoding: chunked\r\n\r\n5\r\nhe", "llo\r\n0\r\n\r\n")
}

func TestPipelinedRequestsAreServedInOrder(t *testing.T) {
	_, s := start(t, plain(), echo)
	c := dial(t, s)
	const count = 50
	var all strings.Builder
	for i := range count {
		all.WriteString("POST /" + string(rune('a'+i%26)) + " HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
	}
	c.send("%s", all.String())
	for i := range count {
		if got, want := c.answer("POST").body, "POST a /"+string(rune('a'+i%26))+` "abc"`; got != want {
			t.Fatalf("answer %d is %q, want %q", i, got, want)
		}
	}
}

func TestHalfClosedClientIsAnsweredAndLetGo(t *testing.T) {
	_, s := start(t, plain(), echo)
	c := dial(t, s)
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := c.answer("GET"); got.StatusCode != 200 {
		t.Errorf("got %d", got.StatusCode)
	}
	c.closed()
	within(t, "the connection ended", func() bool { return s.Active() == 0 })
}

func TestPlainFrontFollowsAReload(t *testing.T) {
	o := plain()
	o.PlainFront = false
	f, s := start(t, o, echo)
	ordinary := dial(t, s)
	ordinary.get("/")
	f.Apply(plain(), 0, nil)
	dial(t, s).get("/") // perhaps accepted as before
	c := dial(t, s)
	c.get("/")
	within(t, "the new connection sleeps", func() bool { return f.asleep() >= 1 })
	f.Apply(o, 0, nil)
	for _, c := range []*client{ordinary, c} {
		if got := c.get("/"); got.StatusCode != 200 {
			t.Errorf("got %d", got.StatusCode)
		}
	}
}

func TestWorkersGoWhenThereIsNothingToDo(t *testing.T) {
	f, s := start(t, plain(), echo)
	dial(t, s).get("/")
	count := func() (n int) {
		for _, l := range f.loops {
			l.workers.mu.Lock()
			n += len(l.workers.idle)
			l.workers.mu.Unlock()
		}
		return n
	}
	within(t, "the worker rests", func() bool { return count() == 1 })
	f.trim(0)
	if count() != 1 {
		t.Error("a worker went that had just worked")
	}
	f.trim(1<<63 - 1)
	if count() != 0 {
		t.Error("a worker stays")
	}
	dial(t, s).get("/")
}

func TestPanicOfAWorkerEndsOneConnectionOnly(t *testing.T) {
	f, s := start(t, plain(), func(x *exchange.Exchange) {
		if string(x.Request.Path) == "/panic" {
			panic("a bug")
		}
		echo(x)
	})
	for range 3 {
		c := dial(t, s)
		c.get("/")
		c.send("GET /panic HTTP/1.1\r\nHost: a\r\n\r\n")
		if b, _ := io.ReadAll(c.r); len(b) != 0 {
			t.Errorf("got %q", b)
		}
	}
	if got := dial(t, s).get("/"); got.StatusCode != 200 {
		t.Errorf("got %d", got.StatusCode)
	}
	within(t, "the others are gone", func() bool { return s.Active() == 1 && f.census.size() == 1 })
}

func TestCloseEndsSleepersAndExchanges(t *testing.T) {
	inside, abandoned := make(chan struct{}), make(chan struct{})
	f, s := start(t, plain(), func(x *exchange.Exchange) {
		if string(x.Request.Path) == "/wait" {
			close(inside)
			for end := time.Now().Add(10 * time.Second); !x.Abandoned() && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
			close(abandoned)
			x.Client.Abort()
			return
		}
		echo(x)
	})
	sleeper, busy := dial(t, s), dial(t, s)
	sleeper.get("/")
	busy.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
	<-inside
	f.Close()
	<-abandoned
	within(t, "nobody is left", func() bool { return f.census.size() == 0 })
	if b, _ := sleeper.rest(); b != "" {
		t.Errorf("got %q", b)
	}
}

func TestPanicAfterAConnectionBecameOrdinaryEndsIt(t *testing.T) {
	f, s := start(t, plain(), func(x *exchange.Exchange) {
		if string(x.Request.Path) == "/panic" {
			if err := x.Client.(*Conn).promote(); err != nil {
				t.Error(err)
			}
			panic("a bug")
		}
		echo(x)
	})
	c := dial(t, s)
	c.get("/")
	c.send("GET /panic HTTP/1.1\r\nHost: a\r\n\r\n")
	c.closed()
	within(t, "the connection is counted out", func() bool { return s.Active() == 0 && f.census.size() == 0 })
	f.census.mu.Lock()
	defer f.census.mu.Unlock()
	if n := len(f.census.conns); n != 0 {
		t.Errorf("%d connections are still known", n)
	}
}

// Even news of an end that there is not lets a connection sleep again.
func TestConnectionWokenForNothingSleepsAgain(t *testing.T) {
	f, s := start(t, plain(), echo)
	c := dial(t, s)
	c.get("/")
	within(t, "it sleeps", func() bool { return f.asleep() == 1 })
	var asleep *sleeper
	for _, l := range f.loops {
		l.each(func(s *sleeper) { asleep = s })
	}
	asleep.Tell(poller.Stirred | poller.Ended)
	within(t, "it sleeps again", func() bool { return asleep.state.Load() == 0 })
	if got := c.get("/"); got.StatusCode != 200 {
		t.Errorf("got %d", got.StatusCode)
	}
}

// What a connection is woken for is read once: reading again, to find nothing,
// would be a system call for each request.
func TestBytesThatWakeAConnectionAreReadOnce(t *testing.T) {
	s := new(sleeper)
	if !s.call(false) {
		t.Fatal("nobody has it, and nobody gets it")
	}
	if !s.sleep() {
		t.Error("it is read again for what it was woken for")
	}
	s.call(false)
	if s.call(false) {
		t.Error("two have it")
	}
	if s.sleep() {
		t.Error("what has come meanwhile is not read")
	}
	if !s.sleep() {
		t.Error("it is read a third time")
	}
	if s.call(true); s.state.Load()&hungup == 0 || s.sleep() {
		t.Error("the end is not read")
	}
}

// Requests that wait for something must not keep those that came with them from
// being served, however many there are.
func TestRequestsThatWaitHoldNobodyUp(t *testing.T) {
	const count = 50
	inside, leave := make(chan struct{}, count), make(chan struct{})
	_, s := start(t, plain(), func(x *exchange.Exchange) {
		inside <- struct{}{}
		<-leave
		echo(x)
	})
	clients := make([]*client, count)
	for i := range clients {
		clients[i] = dial(t, s)
	}
	for _, c := range clients {
		c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	}
	for i := range clients {
		select {
		case <-inside:
		case <-time.After(5 * time.Second):
			t.Fatalf("%d of %d requests are served", i, count)
		}
	}
	close(leave)
	for _, c := range clients {
		if got := c.answer("GET"); got.StatusCode != 200 {
			t.Errorf("got %d", got.StatusCode)
		}
	}
}

// The queue keeps its order, and what has been taken from it is let go.
func TestQueueOfWorkersKeepsItsOrder(t *testing.T) {
	p := &workers{summoned: true} // nobody is called
	w := new(worker)
	given, taken := int32(0), int32(0)
	for round := range 200 {
		for range round % 7 {
			for range 2 {
				p.dispatch(&sleeper{place: poller.Place{FD: given}})
				given++
			}
		}
		for range round % 11 {
			if taken == given {
				break
			}
			s := p.next(w, false)
			if s == nil || s.place.FD != taken {
				t.Fatalf("got %v, want %d", s, taken)
			}
			taken++
			for _, s := range p.queue[:p.first] {
				if s != nil {
					t.Fatal("a connection that was taken is still there")
				}
			}
		}
	}
	for ; taken < given; taken++ {
		if s := p.next(w, false); s == nil || s.place.FD != taken {
			t.Fatalf("got %v, want %d", s, taken)
		}
	}
	if s := p.next(w, true); s != nil || len(p.idle) != 1 || p.summoned {
		t.Errorf("got %v, %d idle", s, len(p.idle))
	}
}
