package pipe

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"
)

// sockets are two ends of a connection that do not block.
func sockets(t *testing.T) (a, b int) {
	t.Helper()
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(ends[0]); unix.Close(ends[1]) })
	return ends[0], ends[1]
}

func acquire(t *testing.T) *Pipe {
	t.Helper()
	p := Acquire()
	if p == nil {
		t.Fatal("there is no pipe")
	}
	return p
}

func TestBytesGoThrough(t *testing.T) {
	sender, in := sockets(t)
	out, receiver := sockets(t)
	p := acquire(t)
	defer p.Release()
	if n, errno := p.Fill(in, Size); n != 0 || errno != unix.EAGAIN {
		t.Errorf("filled from nothing: %d, %v", n, errno)
	}
	want := bytes.Repeat([]byte("0123456789"), 5_000)
	if n, err := unix.Write(sender, want); n != len(want) {
		t.Fatal(n, err)
	}
	var got []byte
	b := make([]byte, 100_000)
	for len(got) < len(want) {
		n, errno := p.Fill(in, 7_000)
		if n == 0 || n > 7_000 || errno != 0 || p.Held() != n {
			t.Fatalf("filled with %d, %v, holds %d", n, errno, p.Held())
		}
		if m, errno := p.Drain(out); m != n || errno != 0 || p.Held() != 0 {
			t.Fatalf("drained of %d, %v, holds %d", m, errno, p.Held())
		}
		m, err := unix.Read(receiver, b)
		if m != n {
			t.Fatal(m, err)
		}
		got = append(got, b[:m]...)
	}
	if !bytes.Equal(got, want) {
		t.Error("other bytes have arrived")
	}
	unix.Shutdown(sender, unix.SHUT_WR)
	if n, errno := p.Fill(in, Size); n != 0 || errno != 0 {
		t.Errorf("the end is %d, %v", n, errno)
	}
}

// What does not fit into the socket stays in the pipe; what has a broken one is an
// error, and no signal.
func TestFullAndBrokenSockets(t *testing.T) {
	sender, in := sockets(t)
	out, receiver := sockets(t)
	p := acquire(t)
	defer p.Release()
	b := make([]byte, 16<<10)
	sent := 0
	for full := false; !full; {
		unix.Write(sender, b)
		if _, errno := p.Fill(in, Size); errno != 0 {
			t.Fatal(errno)
		}
		for p.Held() > 0 && !full {
			n, errno := p.Drain(out)
			full = errno == unix.EAGAIN
			if sent += n; errno != 0 && !full {
				t.Fatal(errno)
			}
		}
	}
	held := p.Held()
	if held == 0 || sent == 0 {
		t.Errorf("holds %d of %d", held, sent)
	}
	for got := 0; got < sent+held; {
		n, err := unix.Read(receiver, b)
		if n > 0 {
			got += n
		} else if m, errno := p.Drain(out); m == 0 {
			t.Fatal(got, err, errno)
		}
	}

	unix.Write(sender, b)
	p.Fill(in, Size)
	unix.Shutdown(receiver, unix.SHUT_RDWR)
	if _, errno := p.Drain(out); errno != unix.EPIPE {
		t.Errorf("a broken socket is %v", errno)
	}
}

// What is left in a pipe never reaches whoever borrows one next, and there are
// never too many.
func TestPipesAreBounded(t *testing.T) {
	sender, in := sockets(t)
	unix.Write(sender, []byte("secret"))
	p := acquire(t)
	if n, errno := p.Fill(in, Size); n != 6 {
		t.Fatal(n, errno)
	}
	p.Release()
	var all []*Pipe
	for {
		p := Acquire()
		if p == nil {
			break
		}
		if all = append(all, p); p.Held() != 0 {
			t.Error("a pipe that holds something was lent")
		}
		if n, err := unix.Read(p.out, make([]byte, 8)); err != unix.EAGAIN {
			t.Errorf("a pipe holds %d bytes, %v", n, err)
		}
	}
	if len(all) == 0 || len(all) > most() || most() > granted {
		t.Errorf("%d pipes", len(all))
	}
	for _, p := range all {
		p.Release()
	}
	if pool.open != len(pool.idle) || pool.open > kept {
		t.Errorf("%d pipes are left, %d idle", pool.open, len(pool.idle))
	}
	acquire(t).Release()
}

func TestFullPipesAreNotFilled(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	(&Pipe{held: 1}).Fill(0, 1)
}

// When descriptors have run out there is no pipe, and for a while nobody asks.
func TestDescriptorsRunOut(t *testing.T) {
	most() // from the limit as it is
	var all []*Pipe
	for range kept + 1 { // more than lie idle
		all = append(all, acquire(t))
	}
	defer func() {
		for _, p := range all {
			p.Release()
		}
	}()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	p := Acquire()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if p != nil || pool.open != len(all) {
		t.Errorf("a pipe without descriptors: %v, %d counted, %d are there", p, pool.open, len(all))
	}
	if p := Acquire(); p != nil {
		t.Error("the kernel was asked again at once")
	}
	pool.again = 0
	acquire(t).Release()
}
