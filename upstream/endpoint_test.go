package upstream

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gateway/internal/clock"
	"gateway/internal/mallocs"
	fake "gateway/internal/origin"
	"gateway/internal/poller"
	"gateway/internal/processor"
	"gateway/wire"
)

// connected is an endpoint with n idle connections.
func connected(t *testing.T, n int, o EndpointOptions) *Endpoint {
	t.Helper()
	server := fake.Start(t, fake.Reply(fake.OK("x")))
	o.Network, o.Address, o.MaxIdle = server.Network, server.Address, 100
	e := NewEndpoint(o)
	e.idle.stacks = e.idle.stacks[:1] // so that their order is known
	e.idle.stacks[0].room = o.MaxIdle
	t.Cleanup(e.Retire)
	for range n {
		cn, outcome := new(Call).dial(e, time.Now())
		if outcome != OK {
			t.Fatalf("outcome is %v", outcome)
		}
		e.put(cn, clock.Mono())
	}
	look(t)
	return e
}

// look has all idle connections looked at.
func look(t *testing.T) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	c, err := poller.New(fds[0], nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	now := clock.Mono()
	for end := time.Now().Add(10 * time.Second); c.Told() < now; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nobody looks")
		}
		unix.Write(fds[1], []byte("x"))
	}
}

func TestNewestIdleConnectionIsTaken(t *testing.T) {
	e := connected(t, 3, EndpointOptions{})
	a, b, c := e.idle.stacks[0].conns[0], e.idle.stacks[0].conns[1], e.idle.stacks[0].conns[2]
	if e.take(false) != c || e.take(false) != b {
		t.Error("not the newest first")
	}
	e.put(c, clock.Mono())
	look(t)
	if e.take(false) != c || e.take(false) != a || e.take(false) != nil {
		t.Error("order is wrong after a return")
	}
}

func TestFreshTakesNoOldConnection(t *testing.T) {
	e := connected(t, 2, EndpointOptions{})
	young := e.idle.stacks[0].conns[1]
	for _, c := range e.idle.stacks[0].conns {
		c.since -= int64(2 * freshFor)
	}
	if e.take(true) != nil {
		t.Error("an old connection is fresh")
	}
	young.since += int64(2 * freshFor)
	if e.take(true) != young {
		t.Error("a young connection is not fresh")
	}
	if e.take(true) != nil || e.take(false) == nil {
		t.Error("the old connection is not there for others")
	}
}

// What a look at all connections has not told yet is found out for a request that
// can't be repeated.
func TestFreshConnectionsAreLookedAtOnceMore(t *testing.T) {
	e := connected(t, 1, EndpointOptions{})
	c := idleConn(t, e)
	c.since -= int64(2 * recent)
	_ = c.watched.CloseRead() // from our side, so that the end is there when this returns
	if e.take(true) != nil {
		t.Error("a connection that has ended is taken")
	}
}

func TestConnectionsAreKeptAgain(t *testing.T) {
	e := connected(t, 2, EndpointOptions{IdleTimeout: time.Hour})
	c := e.take(false)
	e.Retire()
	e.put(c, clock.Mono())
	if open, idle := e.Stats(); open != 0 || idle != 0 {
		t.Errorf("%d open, %d idle of an endpoint that keeps none", open, idle)
	}
	e.Keep(true)
	cn, outcome := new(Call).dial(e, time.Now())
	if outcome != OK {
		t.Fatalf("outcome is %v", outcome)
	}
	e.put(cn, clock.Mono())
	if open, idle := e.Stats(); open != 1 || idle != 1 || !e.idle.swept.Load() {
		t.Errorf("%d open, %d idle, swept: %v; want one that is kept for a while", open, idle, e.idle.swept.Load())
	}
}

func TestIdleConnectionsAreClosedInTime(t *testing.T) {
	e := connected(t, 4, EndpointOptions{IdleTimeout: time.Hour})
	e.idle.stacks[0].conns[0].since -= int64(2 * time.Hour)
	e.idle.stacks[0].conns[1].since -= int64(2 * time.Hour)
	e.idle.sweep()
	if open, idle := e.Stats(); open != 2 || idle != 2 {
		t.Errorf("%d open, %d idle after the sweep", open, idle)
	}
	e.idle.stacks[0].conns[0].since -= int64(2 * time.Hour)
	e.idle.stacks[0].conns[1].since -= int64(2 * time.Hour)
	if e.take(false) != nil {
		t.Error("a connection was taken after its time")
	}
	if open, idle := e.Stats(); open != 0 || idle != 0 {
		t.Errorf("%d open, %d idle", open, idle)
	}

	e = connected(t, 4, EndpointOptions{IdleTimeout: 20 * time.Millisecond})
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if open, _ := e.Stats(); open == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the sweeper does not sweep")
		}
	}
}

func TestIdleConnectionsAreBounded(t *testing.T) {
	e := connected(t, 3, EndpointOptions{})
	c := e.take(false)
	e.idle.stacks[0].room = 2
	e.put(c, clock.Mono())
	if open, idle := e.Stats(); open != 2 || idle != 2 {
		t.Errorf("%d open, %d idle, want 2", open, idle)
	}
}

// A connection in any processor's stack is found before one is opened, and room
// in any before one is closed; together they keep no more than is allowed.
func TestIdleConnectionsOfAllProcessors(t *testing.T) {
	e := connected(t, 5, EndpointOptions{IdleTimeout: time.Hour})
	all := idleConns(e)
	e.idle.stacks = make([]stack, 4)
	for i := range e.idle.stacks {
		e.idle.stacks[i].room = 1
	}
	kept := 0
	for _, c := range all {
		if e.idle.push(c, clock.Mono()) {
			kept++
		}
	}
	if kept != 4 || e.idle.count() != 4 {
		t.Errorf("%d of 5 were kept, and %d are there; want 4", kept, e.idle.count())
	}
	for i := range e.idle.stacks {
		if n := len(e.idle.stacks[i].conns); n != 1 {
			t.Errorf("stack %d keeps %d, which has room for 1", i, n)
		}
	}
	old := e.idle.stacks[2].conns[0]
	old.since -= int64(2 * time.Hour)
	e.idle.sweep()
	if e.idle.count() != 3 || len(e.idle.stacks[2].conns) != 0 || !e.idle.swept.Load() {
		t.Errorf("%d are left after the sweep, swept again: %v", e.idle.count(), e.idle.swept.Load())
	}
	seen := map[*conn]bool{old: true, nil: true}
	for range 3 {
		c := e.idle.pop(false)
		if seen[c] {
			t.Fatalf("%p is taken", c)
		}
		seen[c] = true
		c.close()
	}
	if c := e.idle.pop(false); c != nil {
		t.Error("there is one more")
	}
}

// A connection that nobody has looked at since its last response waits for that,
// as long as there is another that was used about then.
func TestConnectionThatWasSeenComesFirst(t *testing.T) {
	e := connected(t, 3, EndpointOptions{})
	a, b, c := e.idle.stacks[0].conns[0], e.idle.stacks[0].conns[1], e.idle.stacks[0].conns[2]
	b.since, c.since = 1<<62, 1<<62 // that long nobody will look
	if got := e.take(false); got != a {
		t.Errorf("%p is taken, not the one that was seen", got)
	}
	if got := e.take(false); got != c {
		t.Errorf("%p is taken, not the one used last of those that nobody has looked at", got)
	}
	if got := e.take(false); got != b || e.take(false) != nil {
		t.Errorf("%p is taken", got)
	}
	for _, c := range []*conn{a, b, c} {
		e.put(c, clock.Mono())
	}
	look(t)
	c.since = 1 << 62
	if got := e.take(false); got != b {
		t.Errorf("%p is taken, not the last one that was seen", got)
	}
	a.since -= int64(2 * unseen)
	if got := e.take(false); got != c {
		t.Errorf("%p is taken, which was used long ago", got)
	}
	if len(e.idle.stacks[0].conns) != 1 || e.idle.stacks[0].conns[0] != a {
		t.Error("the other one is not there any more")
	}
}

// A stack that is locked comes last, but it is not forgotten.
func TestLockedStackOfIdleConnections(t *testing.T) {
	e := connected(t, 2, EndpointOptions{})
	both := idleConns(e)
	e.idle.stacks = []stack{{conns: both[:1:1], room: 1}, {conns: both[1:], room: 1}}
	locked := &e.idle.stacks[processor.Current()&1]
	locked.mu.Lock()
	first := e.idle.pop(false)
	if first == nil || first == locked.conns[0] {
		t.Errorf("%p is taken, not the one of the free stack", first)
	}
	taken := make(chan *conn)
	go func() { taken <- e.idle.pop(false) }()
	locked.mu.Unlock()
	if second := <-taken; second == nil || second == first {
		t.Errorf("%p is taken, and not the one of the stack that was locked", second)
	}
}

func TestSmallEndpointsHaveFewStacks(t *testing.T) {
	defer func(n int) { processor.Count = n }(processor.Count)
	processor.Count = 16
	for most, want := range map[int]int{0: 1, 1: 1, 63: 1, 64: 2, 71: 2, 259: 8, 65536: 16} {
		var l idle
		if l.init(most, 0); len(l.stacks) != want {
			t.Errorf("%d connections are kept in %d stacks, want %d", most, len(l.stacks), want)
		}
		room := 0
		for i := range l.stacks {
			room += l.stacks[i].room
		}
		if room != most {
			t.Errorf("there is room for %d connections, want %d", room, most)
		}
	}
}

func TestRetiredEndpointKeepsNothing(t *testing.T) {
	e := connected(t, 3, EndpointOptions{IdleTimeout: time.Minute})
	c := e.take(false)
	e.Retire()
	if open, idle := e.Stats(); open != 1 || idle != 0 {
		t.Errorf("%d open, %d idle", open, idle)
	}
	e.put(c, clock.Mono())
	if open, idle := e.Stats(); open != 0 || idle != 0 {
		t.Errorf("%d open, %d idle", open, idle)
	}
}

func TestDialErrorsAreClassified(t *testing.T) {
	f := func(network string, err error, want Outcome) {
		t.Helper()
		wrapped := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", err)}
		if got := dialOutcome(wrapped, network); got != want {
			t.Errorf("%s, %v: outcome is %v, want %v", network, err, got, want)
		}
	}
	for _, err := range []error{syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.ENOBUFS, syscall.ENOMEM, syscall.EAGAIN} {
		f("tcp", err, NoResources)
	}
	for _, err := range []error{syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ECONNRESET, syscall.EACCES} {
		f("tcp", err, ConnectRefused)
	}
	f("unix", syscall.ENOENT, ConnectRefused)
	f("unix", syscall.EAGAIN, ConnectRefused)
	f("unix", syscall.EMFILE, NoResources)
	if got := dialOutcome(&handshakeError{errors.New("bad certificate")}, "tcp"); got != TLSFailed {
		t.Errorf("outcome is %v", got)
	}
}

// Running out of descriptors is found where it happens, in the dialer.
func TestOutOfDescriptors(t *testing.T) {
	server := fake.Start(t, fake.Reply(fake.OK("x")))
	e := NewEndpoint(EndpointOptions{Network: server.Network, Address: server.Address})
	e.dial = (&net.Dialer{Control: func(string, string, syscall.RawConn) error { return os.NewSyscallError("socket", syscall.EMFILE) }}).DialContext
	c := Call{Method: wire.MethodGet, Head: []byte("GET / HTTP/1.1\r\n\r\n")}
	if got := c.Do(e); got != NoResources || c.Sent() {
		t.Errorf("outcome is %v, sent %v", got, c.Sent())
	}
}

// A kernel that gives up while connecting is a timeout, not a refusal.
func TestKernelTimeoutWhileConnecting(t *testing.T) {
	e := NewEndpoint(EndpointOptions{Network: "tcp", Address: "127.0.0.1:1"})
	e.dial = (&net.Dialer{Control: func(string, string, syscall.RawConn) error { return os.NewSyscallError("connect", syscall.ETIMEDOUT) }}).DialContext
	c := Call{Method: wire.MethodGet}
	if got := c.Do(e); got != ConnectTimedOut {
		t.Errorf("outcome is %v", got)
	}
}

func TestOutcomesHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for o := OK; o < OutcomeCount; o++ {
		if name := o.String(); name == "" || seen[name] {
			t.Errorf("outcome %d is named %q", o, name)
		} else {
			seen[name] = true
		}
	}
}

func TestForwardedGetAllocatesNothing(t *testing.T) {
	f := func(name string, server *fake.Fast) {
		e := NewEndpoint(EndpointOptions{Network: server.Network, Address: server.Address, MaxIdle: 4, IdleTimeout: time.Minute})
		t.Cleanup(e.Retire)
		var c Call
		calls := 0
		head := []byte("GET /index.html HTTP/1.1\r\nHost: example.test\r\nAccept: */*\r\n\r\n")
		mallocs.None(t, name, 20_000, func() {
			c.Reset()
			c.Method, c.Head = wire.MethodGet, head
			c.ConnectTimeout, c.FirstByteTimeout, c.BetweenTimeout = time.Minute, time.Minute, time.Minute
			c.Fresh = calls%4 == 0
			calls++
			if outcome := c.Do(e); outcome != OK {
				t.Fatalf("%s: outcome is %v, cause %v", name, outcome, c.Cause())
			}
			if whole, ok := c.Whole(); !ok || string(whole) != "hello" {
				t.Fatalf("%s: body is %q, %v", name, whole, ok)
			}
			c.End()
		})
		if open, _ := e.Stats(); open != 1 {
			t.Errorf("%s: %d connections open", name, open)
		}
	}
	for _, response := range []string{fake.OK("hello"), fake.Chunked("he", "llo")} {
		f("TCP", fake.StartFast(t, response))
		f("Unix", fake.StartFastUnix(t, response))
	}
}

func BenchmarkGet(b *testing.B) {
	server := fake.StartFast(b, fake.OK("hello"))
	e := NewEndpoint(EndpointOptions{Network: server.Network, Address: server.Address, MaxIdle: 4, IdleTimeout: time.Minute})
	defer e.Retire()
	c := Call{Method: wire.MethodGet, Head: []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), FirstByteTimeout: time.Minute, BetweenTimeout: time.Minute}
	b.ReportAllocs()
	for b.Loop() {
		if outcome := c.Do(e); outcome != OK {
			b.Fatal(outcome)
		}
		c.End()
	}
}

// What a connection is looked at after is the last read of its response, not
// what came of that read later.
func TestConnectionIsIdleSinceTheLastRead(t *testing.T) {
	const large = 100_000
	for name, response := range map[string]string{
		"small": fake.OK("x"), "streamed": fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", large, fake.Filler(large)),
	} {
		server := fake.Start(t, fake.Reply(response))
		e := NewEndpoint(EndpointOptions{Network: server.Network, Address: server.Address, MaxIdle: 1})
		t.Cleanup(e.Retire)
		c := Call{Method: wire.MethodGet, Head: []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n")}
		c.Ready()
		before := clock.Mono()
		if o := c.Do(e); o != OK {
			t.Fatalf("%s: outcome is %v", name, o)
		}
		answered := clock.Mono()
		if c.Began == 0 || c.Began > before || c.Answered < before || c.Answered > answered {
			t.Errorf("%s: began %d, answered %d; Do ran from %d to %d", name, c.Began, c.Answered, before, answered)
		}
		for _, err := c.Next(); err == nil; _, err = c.Next() {
		}
		ended := clock.Mono()
		idle := idleConns(e)
		if len(idle) != 1 {
			t.Fatalf("%s: %d idle connections", name, len(idle))
		}
		if since := idle[0].since; name == "small" && since != c.Answered || name == "streamed" && (since < answered || since > ended) {
			t.Errorf("%s: idle since %d; answered %d, ended %d", name, since, c.Answered, ended)
		}
		c.Reset()
		if c.Began != 0 || c.Answered != 0 || c.Head != nil {
			t.Errorf("%s: Reset leaves something behind", name)
		}
	}
}

func TestResetOfACallThatWasNotUsed(t *testing.T) {
	c := Call{Deadline: time.Now()}
	c.Reset()
	if !c.Deadline.IsZero() {
		t.Error("the deadline is left")
	}
	c.Ready()
	c.Reset()
	if c.using {
		t.Error("the call is in use")
	}
}
