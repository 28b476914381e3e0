package poller

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gateway/internal/clock"
	"gateway/internal/mallocs"
	"gateway/internal/pipe"
)

// pair is two ends of a connection over loopback, the first one adopted.
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
	adopted, err := Adopt(a)
	if err != nil {
		t.Fatal(err)
	}
	c := adopted.(*Conn)
	limit := time.Now().Add(20 * time.Second)
	c.SetDeadline(limit)
	b.SetDeadline(limit)
	t.Cleanup(func() { c.Close(); b.Close() })
	return c, b.(*net.TCPConn)
}

// within waits until ok.
func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func TestConnCarriesBothWays(t *testing.T) {
	c, other := pair(t)
	if c.RemoteAddr().String() != other.LocalAddr().String() || c.LocalAddr().String() != other.RemoteAddr().String() {
		t.Errorf("addresses are %v and %v", c.LocalAddr(), c.RemoteAddr())
	}
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
	c.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	pieces = net.Buffers{large, large}
	if n, err := c.WriteBuffers(&pieces); n == 0 || !errors.Is(err, os.ErrDeadlineExceeded) || int(n)+len(pieces[0])+len(pieces[1]) != 2*len(large) {
		t.Errorf("write pieces: %d, %v", n, err)
	}
}

func TestAdoptLeavesOthers(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if c, err := Adopt(a); c != a || err != nil {
		t.Errorf("a pipe is adopted: %v", err)
	}
}

func TestConnIsOverUnixSocketsToo(t *testing.T) {
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if other, err := l.Accept(); err == nil {
			io.Copy(other, other)
			other.Close()
		}
	}()
	a, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c, err := Adopt(a)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	c.Write([]byte("hello"))
	c.(*Conn).CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != "hello" {
		t.Errorf("read %q, %v", b, err)
	}
}

func TestConnHasDeadlines(t *testing.T) {
	c, other := pair(t)
	soon := func() time.Time { return time.Now().Add(20 * time.Millisecond) }
	b := make([]byte, 8)
	late := func(name string, n int, err error) {
		t.Helper()
		if n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %d, %v", name, n, err)
		}
	}
	c.SetReadDeadline(soon())
	n, err := c.Read(b)
	late("read", n, err)
	other.Write([]byte("x"))
	n, err = c.Read(b)
	late("read after the deadline", n, err)

	// One that has been moved on does not interrupt; nor does one taken away.
	for _, later := range []time.Time{time.Now().Add(time.Minute), {}} {
		c.SetReadDeadline(soon())
		c.SetReadDeadline(later)
		if n, err := c.Read(b); n != 1 || err != nil {
			t.Errorf("read: %d, %v", n, err)
		}
		time.AfterFunc(50*time.Millisecond, func() { other.Write([]byte("x")) })
	}
	if n, err := c.Read(b); n != 1 || err != nil {
		t.Errorf("read: %d, %v", n, err)
	}

	// One that comes before the timer does.
	c.SetReadDeadline(time.Now().Add(time.Minute))
	c.SetReadDeadline(soon())
	n, err = c.Read(b)
	late("read", n, err)
	// The timer came for it and not for the other direction.
	if _, err := c.Write([]byte("x")); err != nil {
		t.Errorf("write: %v", err)
	}

	large := make([]byte, 16<<20)
	c.SetWriteDeadline(soon())
	if n, err := c.Write(large); n == 0 || n == len(large) || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write: %d, %v", n, err)
	}
	n, err = c.Write(large)
	late("write after the deadline", n, err)
}

func TestConnCanBeInterrupted(t *testing.T) {
	c, _ := pair(t)
	f := func(name string, want error, interrupt func()) {
		t.Helper()
		var wait sync.WaitGroup
		wait.Go(func() {
			if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, want) {
				t.Errorf("%s: read: %d, %v", name, n, err)
			}
		})
		wait.Go(func() {
			if n, err := c.Write(make([]byte, 16<<20)); n == 16<<20 || !errors.Is(err, want) {
				t.Errorf("%s: write: %d, %v", name, n, err)
			}
		})
		within(t, "both wait", func() bool { return c.state.Load()&(readWaits|writeWaits) == readWaits|writeWaits })
		interrupt()
		wait.Wait()
	}
	f("deadline", os.ErrDeadlineExceeded, func() { c.SetDeadline(time.Unix(1, 0)) })
	c.SetDeadline(time.Time{})
	f("close", net.ErrClosed, func() { c.Close() })
	for name, err := range map[string]error{
		"close": c.Close(), "close write": c.CloseWrite(), "deadline": c.SetDeadline(time.Time{}),
	} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s after the close: %v", name, err)
		}
	}
	if c.Silent() {
		t.Error("a closed connection is silent")
	}
}

// A connection that is closed while others are inside must not close a descriptor
// that has come to mean something else, nor leave its own open.
func TestConnClosesItsDescriptorOnce(t *testing.T) {
	for range 200 {
		c, other := pair(t)
		fd := int(c.place.FD)
		var wait sync.WaitGroup
		for range 2 {
			wait.Go(func() { c.Close() })
			wait.Go(func() { c.Silent() })
		}
		wait.Go(func() { c.Read(make([]byte, 1)) })
		wait.Wait()
		if n := c.users.Load(); n != 0 {
			t.Fatalf("%d users are left", n)
		}
		if n, err := other.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Fatalf("the other end reads %d, %v", n, err)
		}
		other.Close()
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			t.Fatal("the descriptor is still open")
		}
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
	other.Write([]byte("bye"))
	other.Close()
	within(t, "the end is told", func() bool { return c.state.Load()&ended != 0 })
	b := make([]byte, 8)
	if n, err := c.Read(b); n != 3 || err != nil {
		t.Errorf("read: %d, %v", n, err)
	}
	for range 2 {
		if n, err := c.Read(b); n != 0 || err != io.EOF {
			t.Errorf("read at the end: %d, %v", n, err)
		}
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write: %v", err)
	}

	c, other = pair(t)
	c.SetLinger(0)
	c.Close()
	if _, err := other.Read(b); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the other end reads: %v", err)
	}
	c, other = pair(t)
	other.SetLinger(0)
	other.Close()
	if n, err := c.Read(b); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read after a reset: %d, %v", n, err)
	}
}

// What an idle connection has to say is known without a system call, as soon as
// the set has been asked.
func TestConnTellsWhatComesWhileNobodyReads(t *testing.T) {
	c, other := pair(t)
	b := make([]byte, 64)
	for range 20 {
		other.Write([]byte("answer"))
		if n, err := c.Read(b); n != 6 || err != nil {
			t.Fatalf("read: %d, %v", n, err)
		}
	}
	now := clock.Mono()
	// Another connection's news make the set look.
	stir, stirrer := pair(t)
	stirrer.Write([]byte("x"))
	within(t, "the set looks", func() bool { return stir.Stirred() && c.Told() >= now })
	if c.Stirred() || !c.Silent() {
		t.Errorf("nothing has come: stirred %v, silent %v", c.Stirred(), c.Silent())
	}
	other.Write([]byte("unasked"))
	within(t, "it is told", c.Stirred)
	if c.Silent() {
		t.Error("bytes lie in the socket, and it is silent")
	}
	if n, err := c.Read(b); n != 7 || err != nil {
		t.Errorf("read: %d, %v", n, err)
	}
	if c.Stirred() {
		t.Error("all has been read, and it is stirred")
	}
	other.CloseWrite()
	within(t, "the end is told", c.Stirred)
	if c.Silent() {
		t.Error("the other end has closed, and it is silent")
	}

	// A read that is filled may have left something.
	c, other = pair(t)
	other.Write([]byte("answer"))
	if n, err := c.Read(b[:6]); n != 6 || err != nil || !c.Stirred() || !c.Silent() {
		t.Errorf("read: %d, %v, stirred %v", n, err, c.Stirred())
	}
}

// socketPair is two ends of a connection; the first one is closed by the test's end.
func socketPair(t *testing.T) [2]int {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[0]) })
	return fds
}

// What can't be watched is closed.
func TestWhatCannotBeWatchedIsClosed(t *testing.T) {
	fd, err := unix.Open(t.TempDir(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := New(fd, nil, nil); c != nil || !errors.Is(err, syscall.EPERM) {
		t.Errorf("a folder is watched: %v, %v", c, err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
		t.Error("its descriptor is open")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	gone, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	if c, err := Adopt(gone); c != nil || err == nil {
		t.Errorf("a closed connection is adopted: %v, %v", c, err)
	}
}

// news notes what it was told.
type news struct{ events []Events }

func (n *news) Tell(e Events) { n.events = append(n.events, e) }

// What the kernel has said of a socket that has gone meanwhile must not be taken
// for news of the next one in its slot, least of all its end.
func TestNewsOfAnEarlierSocketReachNobody(t *testing.T) {
	s, err := newSet() // without a goroutine
	if err != nil {
		t.Fatal(err)
	}
	defer s.file.Close()
	var places [2]Place
	var told [2]news
	for i := range places {
		fds := socketPair(t)
		places[i].FD = int32(fds[1])
		if err := s.Add(&told[i], &places[i]); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			s.Close(&places[0])
		} else {
			defer s.Close(&places[1])
		}
	}
	if places[0].slot != places[1].slot {
		t.Fatal("the slot was not given again")
	}
	old := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP, Fd: places[0].slot, Pad: places[0].turn}
	s.tell([]unix.EpollEvent{old, {Events: unix.EPOLLIN, Fd: places[1].slot, Pad: places[1].turn}})
	if len(told[0].events) != 0 || len(told[1].events) != 1 || told[1].events[0] != Stirred {
		t.Errorf("told %v and %v", told[0].events, told[1].events)
	}
	n := 0
	s.Each(func(w Watched) {
		n++
		if w != &told[1] {
			t.Error("another socket is in the set")
		}
	})
	if n != 1 {
		t.Errorf("%d sockets are in the set", n)
	}
}

// More sockets than the kernel is asked about at once: nothing is said to have
// been told before it has.
func TestManySocketsAreTold(t *testing.T) {
	s, err := newSet()
	if err != nil {
		t.Fatal(err)
	}
	const count = 3*len(Set{}.events) + 1
	places, told := make([]Place, count), make([]news, count)
	for i := range places {
		fds := socketPair(t)
		places[i].FD = int32(fds[1])
		if err := s.Add(&told[i], &places[i]); err != nil {
			t.Fatal(err)
		}
		unix.Write(fds[0], []byte("x"))
	}
	now := clock.Mono()
	go s.run()
	defer s.file.Close()
	within(t, "the set looks", func() bool { return s.Told() >= now })
	for i := range told {
		s.Close(&places[i])
		if len(told[i].events) != 1 {
			t.Errorf("socket %d was told %v", i, told[i].events)
		}
	}
}

func TestRemovedSocketIsOpenAndTellsNothing(t *testing.T) {
	sets, err := Sets()
	if err != nil {
		t.Fatal(err)
	}
	fds := socketPair(t)
	defer unix.Close(fds[1])
	var told news
	place := Place{FD: int32(fds[1])}
	if err := sets[0].Add(&told, &place); err != nil {
		t.Fatal(err)
	}
	sets[0].Remove(&place)
	now := clock.Mono()
	unix.Write(fds[0], []byte("x"))
	within(t, "the set looks", func() bool {
		_, other := pair(t)
		other.Close()
		return sets[0].Told() >= now
	})
	if n, err := unix.Read(fds[1], make([]byte, 1)); n != 1 || err != nil || len(told.events) != 0 {
		t.Errorf("read %d, %v, told %v", n, err, told.events)
	}
}

func TestConnNeedsNoGoroutine(t *testing.T) {
	pair(t)
	before := runtime.NumGoroutine()
	for range 50 {
		pair(t)
	}
	if n := runtime.NumGoroutine(); n > before+5 {
		t.Errorf("%d goroutines, %d before", n, before)
	}
}

func TestConnAllocatesNothing(t *testing.T) {
	c, other := pair(t)
	b, pieces := make([]byte, 64), make(net.Buffers, 0, 2)
	mallocs.None(t, "a message there and back", 100, func() {
		c.SetDeadline(time.Now().Add(time.Minute))
		pieces = append(pieces[:0], b[:8], b[8:16])
		all := pieces
		if _, err := c.WriteBuffers(&all); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(b[:16]); err != nil {
			t.Fatal(err)
		}
		for n := 0; n < 32; {
			m, err := other.Read(b[n:32])
			if n += m; err != nil {
				t.Fatal(err)
			}
		}
		if _, err := other.Write(b[:32]); err != nil {
			t.Fatal(err)
		}
		if err := c.AwaitRead(); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(b); n != 32 || err != nil || c.Stirred() {
			t.Fatal(n, err)
		}
	})
}

func TestConnsAreJoinedByAPipe(t *testing.T) {
	from, sender := pair(t)
	to, receiver := pair(t)
	p := pipe.Acquire()
	if p == nil {
		t.Fatal("there is no pipe")
	}
	defer p.Release()
	// Many small segments fill a pipe before its bytes do, and no news come of
	// those that are left in the socket; large ones have to be waited for at both
	// ends.
	want := make([]byte, 8<<20)
	for i := range want {
		want[i] = byte(i * 7 >> 3)
	}
	go func() {
		sender.SetNoDelay(true)
		for i := range 20_000 {
			sender.Write(want[i*10 : i*10+10])
		}
		sender.Write(want[200_000:])
		sender.CloseWrite()
	}()
	got := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(receiver)
		got <- b
	}()
	for {
		n, err := from.ReadPipe(p, pipe.Size)
		if err == io.EOF && n == 0 {
			break
		}
		if err != nil || n != p.Held() {
			t.Fatalf("%d, %v, %d in the pipe", n, err, p.Held())
		}
		if m, err := to.WritePipe(p); m != n || err != nil {
			t.Fatalf("%d of %d, %v", m, n, err)
		}
	}
	to.CloseWrite()
	if !bytes.Equal(<-got, want) {
		t.Error("other bytes have arrived")
	}
}

func TestPipesWaitNoLongerThanTheDeadline(t *testing.T) {
	from, sender := pair(t)
	to, _ := pair(t)
	p := pipe.Acquire()
	if p == nil {
		t.Fatal("there is no pipe")
	}
	defer p.Release()
	from.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if n, err := from.ReadPipe(p, pipe.Size); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %d, %v", n, err)
	}
	from.SetReadDeadline(time.Time{})
	go sender.Write(make([]byte, 64<<20))
	to.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	for moved := 0; ; {
		if _, err := from.ReadPipe(p, pipe.Size); err != nil {
			t.Fatal(err)
		}
		n, err := to.WritePipe(p)
		if moved += n; err == nil {
			continue
		}
		if moved == 0 || p.Held() == 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("write: %d, %v, %d in the pipe", moved, err, p.Held())
		}
		break
	}
	from.Close()
	if n, err := from.ReadPipe(p, pipe.Size); n != 0 || err != net.ErrClosed {
		t.Errorf("after the end: %d, %v", n, err)
	}
}
