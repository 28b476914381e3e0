package listener

import (
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"gateway/internal/clock"
	"gateway/internal/pipe"
	"gateway/internal/poller"
)

// steady is a socket whose writes are patient with clients that read slowly and
// cut off those that have stopped: the write timeout runs from the last byte
// that the kernel took. One write at a time.
type steady struct {
	net.Conn
	timeout int64     // ns
	armed   int64     // write deadline of the socket, 0 for none
	bound   time.Time // absolute deadline that the owner has set instead; zero for none
	off     bool      // deadlines are somebody else's business
	direct  bool      // Conn is direct and takes care of the rest
	began   bool      // the next write is the rest of one that the kernel took a part of
}

// Write writes all of p, or returns os.ErrDeadlineExceeded when the client took
// nothing for the write timeout. It allocates nothing.
func (s *steady) Write(p []byte) (n int, err error) {
	if s.direct {
		return s.Conn.Write(p)
	}
	moved := s.start()
	for {
		m, err := s.Conn.Write(p[n:])
		n += m
		if err == nil {
			return n, nil
		}
		if moved, err = s.stalled(m > 0, moved, err); err != nil {
			return n, err
		}
	}
}

// writev is Write for several pieces at once; v is used up.
func (s *steady) writev(v *net.Buffers) error {
	if s.direct {
		return s.Conn.(direct).writev(v)
	}
	moved := s.start()
	for {
		n, err := s.writeOnce(v)
		if err == nil {
			return nil
		}
		if moved, err = s.stalled(n > 0, moved, err); err != nil {
			return err
		}
	}
}

// writePipe is Write for what a pipe holds, to a socket that pipes reaches.
func (s *steady) writePipe(p *pipe.Pipe) error {
	if s.direct {
		return s.Conn.(direct).writePipe(p)
	}
	moved := s.start()
	for {
		n, err := s.Conn.(*poller.Conn).WritePipe(p)
		if err == nil {
			return nil
		}
		if moved, err = s.stalled(n > 0, moved, err); err != nil {
			return err
		}
	}
}

// pipes reports whether there is a socket for writePipe.
func (s *steady) pipes() bool {
	_, ok := s.Conn.(*poller.Conn)
	return ok || s.direct
}

// writeOnce writes pieces until the deadline.
func (s *steady) writeOnce(v *net.Buffers) (int64, error) {
	if c, ok := s.Conn.(*poller.Conn); ok {
		return c.WriteBuffers(v)
	}
	return v.WriteTo(s.Conn)
}

// start is the time from which a write is waited for. The deadline that an
// earlier write has armed stays: it comes too early for this one, which stalled
// then finds out.
func (s *steady) start() int64 {
	if s.off || !s.bound.IsZero() {
		return 0
	}
	now := clock.Coarse()
	if s.began {
		// The kernel says that it has room again only when a third of a large
		// buffer is empty: a write that has begun is given that time too.
		s.began = false
		now += s.timeout
	}
	if s.armed == 0 || s.armed > now+s.timeout {
		s.arm(now + s.timeout)
	}
	return now
}

// stalled decides about a write that has failed: it arms the deadline again and
// returns no error when the write is to go on.
func (s *steady) stalled(progress bool, moved int64, err error) (int64, error) {
	if s.off || !s.bound.IsZero() || !errors.Is(err, os.ErrDeadlineExceeded) {
		return moved, err
	}
	now := clock.Mono()
	if progress {
		moved = now
	}
	if now >= moved+s.timeout {
		return moved, os.ErrDeadlineExceeded
	}
	s.arm(moved + s.timeout)
	return moved, nil
}

// arm sets the write deadline.
func (s *steady) arm(limit int64) {
	s.armed = limit
	_ = s.SetWriteDeadline(time.Now().Add(time.Duration(limit - clock.Mono())))
}

// peek reports whether bytes wait in the socket.
func peek(fd int) bool {
	var b [1]byte
	n, _, err := unix.Recvfrom(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return err == nil && n > 0
}
