package loadgen

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

const (
	tickEvery   = 20 * time.Millisecond  // deadlines and reconnections are looked at this often
	reconnectIn = 100 * time.Millisecond // after a connection that failed
	connectWait = 5 * time.Second        // for all connections, before the first request
	hurry       = time.Second            // for the last answers, when the run was stopped
	readBuffer  = 256 << 10
)

// loop is one thread with its connections. Times are since the run's epoch.
type loop struct {
	run   *Run
	plan  *Plan
	poll  *Poller
	lanes []*lane
	conns []*conn // by slot
	tally *tally

	random *rand.Rand
	keys   zipf
	number uint64 // of the next request, in steps of stride
	stride uint64
	buffer []byte // what was read last

	measured, end time.Duration // begin and end of what is counted; end may move nearer
	drained       time.Duration // the last answers are not awaited beyond this
	last          time.Duration // when the last counted answer was there
	sending       bool
	busy          int

	arrivals struct { // of handshakes, which end in goroutines of their own
		sync.Mutex
		list []arrival
	}
	stopped atomic.Bool
}

// lane is a loop's connections to one site, and what it sends there.
type lane struct {
	loop    *loop
	site    site
	targets []laneTarget
	total   int // of the weights
	even    bool
	turn    int
	idle    []*conn // ring of free connections, longest free first
	first   int     // of idle
	free    int     // in idle

	rate    float64 // requests a second, 0 for a closed loop
	offset  time.Duration
	count   float64       // of requests that were due
	next    time.Duration // when the next request is due
	begin   time.Duration
	bounded bool
	budget  int64 // measured requests left, when bounded
}

type laneTarget struct {
	*pattern
	text []byte // this loop's own copy, with the holes filled for the last request
	upTo int    // cumulated weight
}

func (l *loop) now() time.Duration { return time.Since(l.run.epoch) }

// open opens the connections and waits until they are there, or have failed.
func (l *loop) open() {
	for _, c := range l.conns {
		c.connect()
	}
	for end := l.now() + connectWait; l.now() < end && !l.stopped.Load(); {
		waiting := false
		for _, c := range l.conns {
			waiting = waiting || c.state == connecting
		}
		if !waiting {
			return
		}
		l.turnOver(10 * time.Millisecond)
	}
}

// work sends from begin on.
func (l *loop) work(begin time.Duration) {
	l.measured = begin + l.plan.Warmup
	l.end = 1 << 62
	if l.plan.Duration > 0 {
		l.end = l.measured + l.plan.Duration
	}
	l.sending = true
	for _, a := range l.lanes {
		a.begin, a.next = begin, begin+a.offset
	}
	for tick := begin; ; {
		now := l.now()
		if l.sending {
			if l.stopped.Load() && l.end > now {
				l.end = now
				for _, a := range l.lanes { // nobody waits for what is overdue
					a.next = max(a.next, now)
				}
			}
			l.sending = false
			for _, a := range l.lanes {
				l.sending = l.sending || !a.done(now)
			}
			if !l.sending {
				l.end = min(l.end, now)
			}
			l.drained = l.end + l.plan.Timeout
			if l.stopped.Load() {
				l.drained = now + min(hurry, l.plan.Timeout)
			}
		}
		if !l.sending && l.busy == 0 || now >= l.drained {
			break
		}
		wait := tick - now
		l.tally.mu.Lock()
		if wait <= 0 {
			l.tick(now)
			tick, wait = now+tickEvery, tickEvery
		}
		for _, a := range l.lanes {
			if d, ok := a.fire(now); ok {
				wait = min(wait, d)
			}
		}
		l.tally.mu.Unlock()
		l.turnOver(wait)
	}
	l.finish()
}

// turnOver waits for events and handles them.
func (l *loop) turnOver(longest time.Duration) {
	n := l.poll.Wait(longest)
	l.tally.mu.Lock()
	for i := range n {
		e := l.poll.Event(i)
		if c := l.conns[e.Key]; c.generation == e.Generation {
			c.event(e)
		}
	}
	l.arrivals.Lock()
	list := l.arrivals.list
	l.arrivals.list = nil
	l.arrivals.Unlock()
	for _, a := range list {
		a.conn.arrived(a)
	}
	l.tally.mu.Unlock()
}

// tick looks at deadlines.
func (l *loop) tick(now time.Duration) {
	for _, c := range l.conns {
		switch c.state {
		case busy:
			if now-c.sent > l.plan.Timeout {
				c.lose(TimedOut)
			}
		case connecting:
			if now-c.sent > l.plan.Timeout {
				c.lose(ConnectFailed)
			}
		case closed:
			if now >= c.retry && l.sending {
				c.connect()
			}
		}
	}
}

// finish gives up what was not answered, and closes everything.
func (l *loop) finish() {
	l.tally.mu.Lock()
	defer l.tally.mu.Unlock()
	l.sending = false
	now := l.now()
	for _, a := range l.lanes {
		if a.rate > 0 {
			a.expire(now + 1<<60)
		}
	}
	for _, c := range l.conns {
		if c.state == busy && !l.stopped.Load() {
			c.lose(TimedOut)
		}
		c.close()
	}
}

// done reports that nothing more is due.
func (a *lane) done(now time.Duration) bool {
	if a.bounded && a.budget <= 0 {
		return true
	}
	if a.rate > 0 {
		return a.next >= a.loop.end
	}
	return now >= a.loop.end
}

// fire sends what is due on free connections, and tells when more will be.
func (a *lane) fire(now time.Duration) (wait time.Duration, ok bool) {
	if a.rate == 0 {
		for a.free > 0 && !a.done(now) {
			a.pop().send(now)
		}
		return 0, false
	}
	a.expire(now)
	for a.free > 0 && !a.done(now) {
		if a.next > now {
			if now = a.loop.now(); a.next > now {
				return a.next - now, true
			}
		}
		due := a.next
		a.advance()
		a.pop().send(due)
	}
	return 0, false
}

// expire counts what was due so long ago that it would have timed out.
func (a *lane) expire(now time.Duration) {
	for !a.done(now) && a.next < now-a.loop.plan.Timeout {
		due := a.next
		a.advance()
		if due >= a.loop.measured {
			a.spend()
			a.loop.fail(TimedOut, a.loop.plan.Timeout, 0)
		}
	}
}

// advance finds out when the next request is due.
func (a *lane) advance() {
	a.count++
	if a.loop.plan.Poisson {
		a.next += time.Duration(a.loop.random.ExpFloat64() / a.rate * 1e9)
		return
	}
	a.next = a.begin + a.offset + time.Duration(a.count/a.rate*1e9)
}

func (a *lane) spend() {
	if a.bounded {
		a.budget--
	}
}

// pick chooses a target and fills its holes.
func (a *lane) pick() *laneTarget {
	l := a.loop
	t := &a.targets[0]
	switch {
	case len(a.targets) == 1:
	case a.even:
		t = &a.targets[a.turn]
		a.turn = (a.turn + 1) % len(a.targets)
	default:
		x := l.random.IntN(a.total)
		for i := range a.targets {
			if t = &a.targets[i]; x < t.upTo {
				break
			}
		}
	}
	for _, h := range t.holes {
		v := l.number
		if h.key {
			v = uint64(l.keys.draw(l.random))
		}
		putDigits(t.text[h.at:h.at+placeholderDigits], v)
	}
	l.number += l.stride
	return t
}

func (a *lane) push(c *conn) {
	a.idle[(a.first+a.free)%len(a.idle)] = c
	a.free++
}

func (a *lane) pop() *conn {
	c := a.idle[a.first]
	a.first = (a.first + 1) % len(a.idle)
	a.free--
	return c
}

// remove takes a connection that has ended out of the free ones.
func (a *lane) remove(c *conn) {
	n := a.free
	for range n {
		if o := a.pop(); o != c {
			a.push(o)
		}
	}
}

// fail counts a request without answer that has waited so long.
func (l *loop) fail(f Failure, latency, service time.Duration) {
	i := l.tally.current
	i.failed[f]++
	l.tally.failed.Add(1)
	if f == TimedOut { // at least so long: leaving it out would flatter
		i.latency.RecordValue(int64(latency))
		if service > 0 {
			i.service.RecordValue(int64(service))
		}
	}
}
