package listener

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gateway/internal/handover"
	"gateway/internal/poller"
)

// Socket listens on one address. It belongs to a Front and outlives
// configurations that keep its address.
type Socket struct {
	front    *Front
	address  Address
	listener net.Listener
	file     os.FileInfo              // of a Unix socket, to unlink no successor's
	owners   *atomic.Int32            // sockets of the front that share the kernel's
	entrance atomic.Pointer[entrance] // nil where connections are ordinary ones from the beginning
	local    netip.AddrPort           // this end of the connections, if it is the same for all

	active   atomic.Int64
	accepted atomic.Int64
	failed   atomic.Int64

	announced atomic.Bool // answers on this socket's connections say Connection: close
	retiring  atomic.Bool
	once      sync.Once
	closing   sync.Once
	serving   atomic.Bool
	done      chan struct{} // closed when the accept loop has ended
	lastLog   time.Time     // of the accept loop alone
}

const (
	pauseMin = 5 * time.Millisecond
	// pauseMax keeps a listener that ran out of descriptors well under the
	// second within which it must notice that there are some again.
	pauseMax = 500 * time.Millisecond
	// settleTime is how long connections whose handshake has begun may take to
	// arrive in the accept queue after new ones are kept out: a round trip.
	settleTime = 250 * time.Millisecond
)

// Inherit makes Bind take sockets that were handed over to this process instead
// of opening its own. It must be called before the first Bind.
func (f *Front) Inherit(s *handover.Sockets) { f.inherited = s }

// Bind opens a socket; the kernel queues connections from now on, Serve
// accepts them. A Unix socket's file that nobody listens on any more is
// replaced. reusePort sets SO_REUSEPORT. Where the front listens already,
// without TLS instead of with it or the other way round, the two share the
// queue until one is retired.
func (f *Front) Bind(a Address, reusePort bool) (*Socket, error) {
	s := &Socket{front: f, address: a, done: make(chan struct{})}
	for _, other := range f.Sockets() {
		if b := other.address; a.Network == "tcp" && b == (Address{a.Network, a.Name, !a.Secure}) && !other.retiring.Load() {
			if err := s.share(other); err != nil {
				return nil, fmt.Errorf("listen on %s: %w", a, err)
			}
			return s, nil
		}
	}
	l := f.inherited.Take(a.Network, a.Name)
	inherited := l != nil
	if !inherited {
		var err error
		if l, err = listen(a, reusePort); err != nil {
			return nil, fmt.Errorf("listen on %s: %w", a, err)
		}
	} else if err := prepareInherited(l, a.Network); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("take over %s: %w", a, err)
	}
	s.listener, s.owners = l, new(atomic.Int32)
	s.owners.Store(1)
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
		if !inherited || !f.inherited.Systemd() {
			s.file, _ = os.Lstat(a.Name) // nil: then the file is left alone
		}
	}
	s.enlist()
	return s, nil
}

// listen opens a socket of the kernel.
func listen(a Address, reusePort bool) (net.Listener, error) {
	if a.Network == "unix" {
		if err := RemoveStale(a.Name); err != nil {
			return nil, err
		}
	}
	lc := net.ListenConfig{
		KeepAlive: -1, // set on the listening socket below; accepted ones inherit it without a system call each
		Control: func(network, _ string, rc syscall.RawConn) error {
			var err error
			if e := rc.Control(func(fd uintptr) { err = prepare(int(fd), network, reusePort) }); e != nil {
				return e
			}
			return err
		},
	}
	lc.SetMultipathTCP(false) // costs every connection something, few clients speak it
	return lc.Listen(context.Background(), a.Network, a.Name)
}

// prepareInherited sets on a socket that was handed over what listen sets on
// its own; whether ports are shared was decided by whoever opened it.
func prepareInherited(l net.Listener, network string) error {
	rc, err := l.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	if e := rc.Control(func(fd uintptr) { err = prepare(int(fd), network, false) }); e != nil {
		return e
	}
	return err
}

// share makes s listen on the kernel's socket of another one.
func (s *Socket) share(other *Socket) error {
	file, err := other.listener.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	defer file.Close()
	if s.listener, err = net.FileListener(file); err != nil {
		return err
	}
	s.owners = other.owners
	s.owners.Add(1)
	s.enlist()
	return nil
}

// enlist makes the front know the socket.
func (s *Socket) enlist() {
	s.front.mu.Lock()
	s.front.sockets = append(s.front.sockets, s)
	s.front.mu.Unlock()
}

// prepare sets the options of a listening socket that accepted ones inherit.
// Keep-alive probes find clients that vanished without a word while their
// exchange or tunnel waits.
func prepare(fd int, network string, reusePort bool) error {
	if network == "unix" {
		return nil
	}
	if reusePort {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	for _, o := range [...]struct{ level, name, value int }{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 60},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 4},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return nil
}

// Address is where the socket was told to listen.
func (s *Socket) Address() Address { return s.address }

// Addr is where the socket listens, with the port that the kernel chose.
func (s *Socket) Addr() net.Addr { return s.listener.Addr() }

// Active is the number of connections, tunnels included.
func (s *Socket) Active() int64 { return s.active.Load() }

// Accepted is the number of connections accepted so far, refused ones
// included.
func (s *Socket) Accepted() int64 { return s.accepted.Load() }

// Failed is the number of failures to accept.
func (s *Socket) Failed() int64 { return s.failed.Load() }

// Serve begins to accept connections and returns at once.
func (s *Socket) Serve() {
	if s.front.settings.Load() == nil {
		panic("BUG: Serve before Apply")
	}
	if s.serving.CompareAndSwap(false, true) {
		if l, ok := s.listener.(*net.TCPListener); ok && !s.address.Secure {
			if e, err := newEntrance(l); err == nil {
				if a := addrPort(l.Addr()); !a.Addr().IsUnspecified() {
					s.local = a
				}
				s.entrance.Store(e)
			} else {
				s.front.log.Warn("connections cannot sleep without a goroutine each", "listener", s.address.String(), "error", err)
			}
		}
		go s.accept()
	}
}

// accept is the accept loop. It ends only with the socket: whatever keeps it
// from accepting passes, and it tries again with growing pauses.
func (s *Socket) accept() {
	defer close(s.done)
	pause := time.Duration(0)
	for {
		err := s.acceptOne()
		if err == nil {
			pause = 0
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if s.retiring.Load() {
				return // the queue is empty, and nothing new gets into it
			}
			continue
		}
		s.failed.Add(1)
		if now := time.Now(); now.Sub(s.lastLog) >= time.Second {
			s.lastLog = now
			s.front.log.Warn("cannot accept connections, will try again", "listener", s.address.String(), "error", err)
		}
		pause = min(max(2*pause, pauseMin), pauseMax)
		select {
		case <-time.After(pause):
		case <-s.front.closed:
			return
		}
	}
}

// acceptOne waits for a connection and begins to serve it, or refuses it.
func (s *Socket) acceptOne() error {
	if e := s.direct(); e != nil {
		fd, peer, err := e.next()
		if err == nil {
			s.admit(fd, peer)
		}
		return err
	}
	raw, err := s.listener.Accept()
	if err == nil {
		if raw, err = poller.Adopt(raw); err == nil {
			s.begin(raw)
		}
	}
	return err
}

// begin starts to serve an ordinary connection, or refuses it.
func (s *Socket) begin(raw net.Conn) {
	s.accepted.Add(1)
	f := s.front
	o := f.settings.Load()
	c := newConn(f, o)
	c.wrap(s, raw)
	key, ok := f.census.enter(c.peer, o)
	if !ok {
		s.refuse(raw)
		return
	}
	c.key = key
	f.census.adopt(c)
	s.active.Add(1)
	go c.run(o)
}

// busy is the answer to a connection beyond the limits.
var busy = []byte("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\nConnection: close\r\n\r\n")

// refusals bounds the connections beyond the limits that are kept for a moment,
// so that the client can read the answer before the reset.
var refusals = make(chan struct{}, 64)

// refuse ends a connection beyond the limits. It never waits.
func (s *Socket) refuse(raw net.Conn) {
	select {
	case refusals <- struct{}{}:
	default:
		_ = raw.Close()
		return
	}
	go func() {
		defer func() { <-refusals }()
		if !s.address.Secure {
			_ = raw.SetDeadline(time.Now().Add(time.Second))
			_, _ = raw.Write(busy)
			discard(raw, time.Now().Add(time.Second), lingerBytes)
		}
		_ = raw.Close()
	}()
}

// Retire stops accepting and closes the socket, such that no connection is
// lost: new ones are kept out, those whose handshake has begun are given
// settleTime to arrive, and all in the queue are accepted. Connections live on;
// their next answer says Connection: close.
func (s *Socket) Retire() {
	s.once.Do(func() {
		s.announced.Store(true)
		s.retiring.Store(true)
		if s.serving.Load() {
			alone := s.owners.Load() == 1
			wait := time.Duration(0)
			switch l := s.listener.(type) {
			case *net.TCPListener:
				if alone && keepOut(l) == nil {
					wait = settleTime
				}
				_ = l.SetDeadline(time.Now().Add(wait))
				if e := s.entrance.Load(); e != nil {
					_ = e.file.SetReadDeadline(time.Now().Add(wait))
				}
			case *net.UnixListener:
				s.unlink()
				_ = l.SetDeadline(time.Now())
			}
			select {
			case <-s.done:
			case <-time.After(wait + pauseMax + time.Second):
			}
			if alone {
				s.sweepQueue()
			}
		}
		s.close()
	})
}

// File is a descriptor of the listening socket for another process. The caller
// closes it.
func (s *Socket) File() (*os.File, error) {
	return s.listener.(interface{ File() (*os.File, error) }).File()
}

// Share says that another process listens on the socket too: Retire then leaves
// the queue, and a Unix socket's file, to it.
func (s *Socket) Share() {
	s.owners.Add(1)
	s.file = nil
}

// sweepQueue accepts what is in the queue without waiting for more, and then
// lets nothing in: where keepOut does not work, a connection that comes between
// these two system calls is lost.
func (s *Socket) sweepQueue() {
	sc, ok := s.listener.(syscall.Conn)
	if !ok {
		return
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return
	}
	var late []int
	_ = rc.Control(func(fd uintptr) {
		for {
			n, _, err := unix.Accept4(int(fd), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			if err == nil {
				late = append(late, n)
			} else if err != unix.EINTR && err != unix.ECONNABORTED {
				break
			}
		}
		_ = unix.Shutdown(int(fd), unix.SHUT_RDWR)
	})
	for _, fd := range late {
		if raw, err := connOf(fd); err == nil {
			s.begin(raw)
		}
	}
}

// keepOut makes the kernel refuse new connections to the socket, while those
// whose handshake has begun arrive in its queue: between the last accept and
// the close of a listening socket no connection may come into being, since the
// close would reset it with the request that its client has written. There is
// no system call for that; but a socket that is bound to an interface hears
// nothing from the others, and there is no interface with this number.
func keepOut(l syscall.Conn) error {
	rc, err := l.SyscallConn()
	if err != nil {
		return err
	}
	if e := rc.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, math.MaxInt32)
	}); e != nil {
		return e
	}
	return err
}

// unlink removes a Unix socket's file, unless it is a successor's.
func (s *Socket) unlink() {
	if s.file == nil {
		return
	}
	if now, err := os.Lstat(s.address.Name); err == nil && os.SameFile(now, s.file) {
		_ = os.Remove(s.address.Name)
	}
}

// close closes the listening socket at once.
func (s *Socket) close() {
	s.closing.Do(func() {
		s.unlink()
		_ = s.listener.Close()
		if e := s.entrance.Load(); e != nil {
			_ = e.file.Close()
		}
		s.owners.Add(-1)
		f := s.front
		f.mu.Lock()
		defer f.mu.Unlock()
		for i := range f.sockets {
			if f.sockets[i] == s {
				f.sockets = append(f.sockets[:i:i], f.sockets[i+1:]...)
				return
			}
		}
	})
}
