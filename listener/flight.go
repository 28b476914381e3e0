package listener

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"gateway/exchange"
	"gateway/internal/clock"
)

// flights are the exchanges of a front that have not ended: where the sweeper
// looks for clients that have left. Reading from the connection would tell the
// same, and cost a goroutine for each exchange.
type flights struct {
	shards [64]shard
	next   atomic.Uint32 // counts connections, to spread them over the shards
}

// pick is the shard of a new connection.
func (f *flights) pick() *shard { return &f.shards[f.next.Add(1)%uint32(len(f.shards))] }

// shard is a list of connections inside an exchange, oldest first.
type shard struct {
	mu          sync.Mutex
	first, last *Conn
	_           [64]byte // no line of the CPU's cache belongs to two shards
}

// flight is a connection's place in a shard, guarded by the shard's lock.
type flight struct {
	shard      *shard // set when the connection is made
	prev, next *Conn
	x          *exchange.Exchange // nil while not in the list
	number     uint64             // of the exchange on this connection: x may have been reused, a number is not
	began      int64
}

// sweepInterval is how often the sweeper looks, and how old an exchange is when
// it does so first.
const sweepInterval = 250 * time.Millisecond

// takeOff enters the exchange.
func (c *Conn) takeOff(x *exchange.Exchange) {
	f := &c.flight
	s := f.shard
	s.mu.Lock()
	f.x, f.began = x, x.Start
	f.number++
	f.prev, f.next = s.last, nil
	if s.last != nil {
		s.last.flight.next = c
	} else {
		s.first = c
	}
	s.last = c
	s.mu.Unlock()
}

// land removes the exchange: after it, the sweeper neither touches the exchange
// nor looks at the descriptor. Calling it again does nothing.
func (c *Conn) land() {
	s := c.flight.shard
	s.mu.Lock()
	s.remove(c)
	s.mu.Unlock()
}

// abandon tells the exchange, if there is one, that its client is gone. Safe
// from any goroutine.
func (c *Conn) abandon() {
	s := c.flight.shard
	s.mu.Lock()
	if x := c.flight.x; x != nil {
		s.remove(c)
		x.Abandon()
	}
	s.mu.Unlock()
}

// abandon tells all exchanges that their clients are gone.
func (f *flights) abandon() {
	for i := range f.shards {
		s := &f.shards[i]
		s.mu.Lock()
		for s.first != nil {
			x := s.first.flight.x
			s.remove(s.first)
			x.Abandon()
		}
		s.mu.Unlock()
	}
}

func (s *shard) remove(c *Conn) {
	f := &c.flight
	if f.x == nil {
		return
	}
	f.x = nil
	if f.prev != nil {
		f.prev.flight.next = f.next
	} else {
		s.first = f.next
	}
	if f.next != nil {
		f.next.flight.prev = f.prev
	} else {
		s.last = f.prev
	}
	f.prev, f.next = nil, nil
}

// suspect is an exchange that the sweeper asks the kernel about.
type suspect struct {
	c      *Conn
	number uint64
}

// sweep is the sweeper's goroutine.
func (f *Front) sweep() {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	var suspects []suspect
	var fds []unix.PollFd
	for {
		select {
		case <-tick.C:
		case <-f.closed:
			return
		}
		now := clock.Mono()
		old := now - int64(sweepInterval)
		f.expire(now)
		f.trim(now - workerRest)
		for i := range f.flights.shards {
			suspects, fds = f.flights.shards[i].sweep(old, suspects[:0], fds[:0])
		}
	}
}

// expire ends the connections in loops that have waited too long for a request.
func (f *Front) expire(now int64) {
	o := f.settings.Load()
	if o == nil {
		return
	}
	for _, l := range f.loops {
		l.retire(now-int64(o.HeaderTimeout), now-int64(o.IdleTimeout))
	}
}

// sweep abandons the exchanges begun before the given time whose clients have
// closed the connection, or their half of it. The lock is not held while the
// kernel is asked; meanwhile a descriptor may come to mean something else, but
// then its exchange is over and the number tells.
func (s *shard) sweep(old int64, suspects []suspect, fds []unix.PollFd) ([]suspect, []unix.PollFd) {
	s.mu.Lock()
	for c := s.first; c != nil && c.flight.began <= old; c = c.flight.next {
		if c.fd >= 0 {
			suspects = append(suspects, suspect{c, c.flight.number})
			fds = append(fds, unix.PollFd{Fd: int32(c.fd), Events: unix.POLLRDHUP})
		}
	}
	s.mu.Unlock()
	if len(fds) == 0 {
		return suspects, fds
	}
	if n, err := unix.Poll(fds, 0); n <= 0 || err != nil {
		return suspects, fds
	}
	for i := range fds {
		if fds[i].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) == 0 {
			continue
		}
		c := suspects[i].c
		s.mu.Lock()
		if x := c.flight.x; x != nil && c.flight.number == suspects[i].number {
			s.remove(c)
			x.Abandon()
		}
		s.mu.Unlock()
	}
	clear(suspects)
	return suspects, fds
}
