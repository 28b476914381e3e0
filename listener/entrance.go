package listener

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gateway/internal/clock"
	"gateway/internal/poller"
)

// entrance accepts connections as descriptors, for loops to watch: what the
// net package makes of a connection is larger than all that we keep of one that
// sleeps. It is a copy of the listening socket's descriptor, since those of the
// net package can't be waited for by others.
type entrance struct {
	file *os.File
	wait syscall.RawConn
	try  func(fd uintptr) bool // method value of accept
	fd   int
	peer netip.AddrPort
	err  error
}

// newEntrance is that of a TCP socket. Accepted connections inherit that small
// writes are not delayed.
func newEntrance(l *net.TCPListener) (*entrance, error) {
	file, err := l.File()
	if err != nil {
		return nil, err
	}
	e := &entrance{file: file}
	e.try = e.accept
	if e.wait, err = file.SyscallConn(); err == nil {
		if err = file.SetReadDeadline(time.Time{}); err == nil { // an error: it can't be waited for
			if e2 := e.wait.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
			}); e2 != nil {
				err = e2
			}
		}
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return e, nil
}

// next waits for a connection. Errors are as those of net.Listener.
func (e *entrance) next() (fd int, peer netip.AddrPort, err error) {
	e.err = nil
	if err := e.wait.Read(e.try); err != nil {
		if errors.Is(err, os.ErrClosed) {
			err = net.ErrClosed
		}
		return -1, netip.AddrPort{}, err
	}
	return e.fd, e.peer, e.err
}

func (e *entrance) accept(listening uintptr) bool {
	for {
		fd, address, err := unix.Accept4(int(listening), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch err {
		case nil:
			e.fd, e.peer = fd, endOf(address)
			return true
		case unix.EAGAIN:
			return false
		case unix.EINTR, unix.ECONNABORTED:
			continue
		}
		e.err = os.NewSyscallError("accept4", err)
		return true
	}
}

// endOf is the unmapped address of a TCP connection's end.
func endOf(a unix.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		addr := netip.AddrFrom16(a.Addr).Unmap()
		if a.ZoneId != 0 && addr.Is6() {
			if i, err := net.InterfaceByIndex(int(a.ZoneId)); err == nil {
				addr = addr.WithZone(i.Name)
			}
		}
		return netip.AddrPortFrom(addr, uint16(a.Port))
	}
	return netip.AddrPort{}
}

// direct reports whether the next connections are for a loop.
func (s *Socket) direct() *entrance {
	if len(s.front.loops) == 0 || !s.front.settings.Load().PlainFront {
		return nil
	}
	return s.entrance.Load()
}

// admit lets a loop watch an accepted connection, or refuses it.
func (s *Socket) admit(fd int, peer netip.AddrPort) {
	f := s.front
	s.accepted.Add(1)
	key, ok := f.census.enter(peer, f.settings.Load())
	if !ok {
		if raw, err := connOf(fd); err == nil {
			s.refuse(raw)
		}
		return
	}
	s.active.Add(1)
	c := &sleeper{socket: s, place: poller.Place{FD: int32(fd)}, peer: peer, counts: key.IsValid()}
	if s.local.IsValid() {
		c.local = s.local
	} else if a, err := unix.Getsockname(fd); err == nil {
		c.local = endOf(a)
	}
	c.since.Store(clock.Mono())
	if err := f.loops[f.nextLoop.Add(1)%uint32(len(f.loops))].add(c); err != nil {
		_ = unix.Close(fd)
		s.active.Add(-1)
		f.census.leave(key)
	}
}

// connOf makes an ordinary connection's socket of a descriptor, which is closed
// after an error.
func connOf(fd int) (*poller.Conn, error) {
	var local, peer netip.AddrPort
	if a, err := unix.Getsockname(fd); err == nil {
		local = endOf(a)
	}
	if a, err := unix.Getpeername(fd); err == nil {
		peer = endOf(a)
	}
	return poller.New(fd, net.TCPAddrFromAddrPort(local), net.TCPAddrFromAddrPort(peer))
}
