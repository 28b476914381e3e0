package listener

import (
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"gateway/exchange"
	"gateway/internal/clock"
	"gateway/internal/nonblock"
	"gateway/wire"
)

// workers are the goroutines that serve requests of connections that a loop
// watches: as many as there are requests that wait for something, one that works,
// and some that wait for more.
//
// A worker takes one connection after the other from the queue, without a pause
// and with its memory still in the processor's cache. One that takes a
// connection and leaves others behind summons another worker first: if it has
// to wait for something, that one goes on with the queue; if not, it has most
// often emptied the queue by the time the other one comes. Answers that are
// unsent count like connections in the queue: whoever takes a connection while
// there are some has another worker come.
type workers struct {
	front    *Front
	mu       sync.Mutex
	queue    []*sleeper // have something to say, and nobody; queue[:first] has been taken
	first    int
	idle     []*worker // a stack: the one used last is on top, its memory still in a cache
	summoned bool      // a worker has been woken for the queue, and has not come yet
	unsent   []unsent  // answers that wait for others, at most maxUnsent
}

// unsent is a small answer that is whole, and not written yet: those of
// connections that have spoken at the same time are made one after the other and
// then written one after the other, so that each part of the work, the kernel's
// too, finds its code in the processor's cache. An answer waits until the queue
// is empty, or for maxUnsent others, or about unsentTime. Should the worker have
// to wait for something meanwhile, the one that was summoned writes it.
type unsent struct {
	to     *sleeper // the connection, which belongs to whoever has taken this
	answer *buffer
	began  int64 // when its request came
}

const (
	maxUnsent  = 16
	unsentTime = int64(100 * time.Microsecond)
)

// worker serves one request after the other, of whatever connection has one.
type worker struct {
	workers *workers  // to whom it belongs
	wake    chan bool // there is something in the queue; false ends the worker
	since   int64     // when it became idle
	conn    *Conn     // of the last connection, nil when that has kept it
	mem     *buffer   // what is read into
	done    unsent    // of the last connection; nothing when it was written
	batch   []unsent  // memory of workers.unsent, with which it is exchanged
}

// workerRest is how long a worker without work is kept.
const workerRest = int64(sweepInterval) * 8

// dispatch gives a connection that has something to say to a worker. It never
// waits.
func (p *workers) dispatch(s *sleeper) {
	p.mu.Lock()
	if p.first > 0 && len(p.queue) == cap(p.queue) {
		n := copy(p.queue, p.queue[p.first:])
		clear(p.queue[n:])
		p.queue, p.first = p.queue[:n], 0
	}
	p.queue = append(p.queue, s)
	w := p.summon()
	p.mu.Unlock()
	w.call()
}

// summon chooses a worker to be called for the queue and what is unsent, once mu,
// which is held, is free; nil when none is needed.
func (p *workers) summon() *worker {
	if p.summoned || p.first == len(p.queue) && len(p.unsent) == 0 {
		return nil
	}
	p.summoned = true
	if top := len(p.idle) - 1; top >= 0 {
		w := p.idle[top]
		p.idle[top] = nil
		p.idle = p.idle[:top]
		return w
	}
	return &worker{workers: p, batch: make([]unsent, 0, maxUnsent)}
}

// call sends a worker that was chosen to the queue.
func (w *worker) call() {
	switch {
	case w == nil:
	case w.wake == nil:
		w.wake = make(chan bool, 1)
		go w.run()
	default:
		w.wake <- true // has room: whoever takes a worker from the stack sends once
	}
}

// next is a connection that has something to say. When there is none, all answers
// have been written and the worker is idle, and not to be used until it is woken.
// came says that it has come because it was summoned.
func (p *workers) next(w *worker, came bool) *sleeper {
	p.mu.Lock()
	if came {
		p.summoned = false
	}
	late := false
	if w.done.to != nil {
		p.unsent = append(p.unsent, w.done)
		late = w.done.began-p.unsent[0].began > unsentTime
		w.done = unsent{}
	}
	for len(p.unsent) > 0 && (late || len(p.unsent) >= maxUnsent || p.first == len(p.queue)) {
		w.batch, p.unsent = p.unsent, w.batch
		p.mu.Unlock()
		p.front.send(w.batch)
		clear(w.batch)
		w.batch, late = w.batch[:0], false
		p.mu.Lock()
	}
	if p.first == len(p.queue) {
		w.since = clock.Coarse()
		p.idle = append(p.idle, w)
		p.mu.Unlock()
		return nil
	}
	s := p.queue[p.first]
	p.queue[p.first] = nil
	if p.first++; p.first == len(p.queue) {
		p.queue, p.first = p.queue[:0], 0
	}
	other := p.summon()
	p.mu.Unlock()
	other.call()
	return s
}

// trim ends the workers that had nothing to do since before the given time.
func (p *workers) trim(before int64) {
	p.mu.Lock()
	n := 0
	for n < len(p.idle) && p.idle[n].since <= before {
		p.idle[n].wake <- false
		n++
	}
	left := copy(p.idle, p.idle[n:])
	clear(p.idle[left:])
	p.idle = p.idle[:left]
	p.mu.Unlock()
}

// run is the worker's goroutine.
func (w *worker) run() {
	for came := true; ; {
		s := w.workers.next(w, came)
		if came = s == nil; came {
			if !<-w.wake {
				break
			}
		} else if !w.serve(s) {
			break
		}
	}
	if w.mem != nil {
		w.mem.keep = false
		w.mem.release()
	}
}

// serve reads and answers what the connection has to say, until it sleeps or
// ends. It reports whether the worker can go on.
func (w *worker) serve(s *sleeper) (ok bool) {
	defer func() {
		// One connection's bug must not end the process.
		if p := recover(); p != nil {
			w.workers.front.log.Error("panic in connection", "listener", s.socket.address.String(), "panic", p, "stack", string(debug.Stack()))
			w.lose(s)
		}
	}()
	if w.mem == nil {
		w.mem = acquireBuffer()
		w.mem.keep = true
	}
	for {
		b := w.mem.b[:cap(w.mem.b)]
		hung := s.state.Load()&hungup != 0
		n, errno := nonblock.Read(s.fd(), b)
		switch {
		case errno == unix.EINTR:
			continue
		case errno == unix.EAGAIN:
			if hung {
				s.state.And(^hungup) // there is no end to be read: never go round for it
			}
			if s.sleep() {
				return true
			}
			continue
		case errno != 0 || n == 0:
			s.end()
			return true
		}
		w.mem.b = b[:n]
		emptied := n < len(b) // the socket: else the buffer had been filled
		if !w.requests(s, emptied) {
			return true
		}
		if emptied && s.sleep() {
			return true
		}
	}
}

// requests serves the requests in the buffer; emptied says that the socket held
// no more than these. After false the connection has ended, goes its own way, or waits
// with its answer in done.
func (w *worker) requests(s *sleeper, emptied bool) bool {
	c := w.conn
	if c == nil {
		f := w.workers.front
		c = newConn(f, f.settings.Load())
		w.conn = c
	}
	if c.sleeper != s {
		c.rouse(s)
	}
	c.rest, c.restMem = w.mem.b, w.mem
	began := clock.Mono()
	c.arrived = began
	for len(c.rest) > 0 {
		if !c.plain(false) {
			w.part(c)
			return false
		}
		s.used = true
		c.answer.mayWait = emptied && len(c.rest) == 0
		c.serve(exchange.Done)
		c.answer.mayWait = false
		answer := c.answer.unsent
		c.answer.unsent = nil
		if c.last || c.sleeper == nil {
			c.sendNow(answer)
			w.part(c)
			return false
		}
		if answer != nil {
			w.done = unsent{s, answer, began}
			return false
		}
	}
	return true
}

// sendNow writes an answer that was to wait, if there is one; the connection has
// turned out not to go on as it was.
func (c *Conn) sendNow(answer *buffer) {
	if answer == nil {
		return
	}
	if !c.answer.failed {
		if _, err := c.steady.Write(answer.b); err != nil {
			c.Abort()
		}
	}
	answer.release()
}

// send writes answers that have waited, and gives their connections up until
// bytes come.
func (f *Front) send(batch []unsent) {
	for i := range batch {
		s, answer := batch[i].to, batch[i].answer
		n, errno := nonblock.Write(s.fd(), answer.b)
		for errno == unix.EINTR {
			n, errno = nonblock.Write(s.fd(), answer.b)
		}
		switch {
		case n == len(answer.b):
			answer.release()
			if !s.sleep() {
				s.loop.workers.dispatch(s)
			}
		case errno == 0 || errno == unix.EAGAIN:
			go f.complete(s, answer, n)
		default:
			answer.release()
			s.end()
		}
	}
}

// complete writes an answer of which the kernel took no more than n bytes, and
// serves the connection, an ordinary one from now on, to its end.
func (f *Front) complete(s *sleeper, answer *buffer, n int) {
	c := newConn(f, f.settings.Load())
	c.rouse(s)
	err := c.promote()
	if err == nil {
		c.steady.began = n > 0
		_, err = c.steady.Write(answer.b[n:])
	}
	if err != nil {
		c.Abort()
	}
	answer.release()
	c.carryOn()
}

// part ends the connection, or makes it an ordinary one and serves it to its
// end.
func (w *worker) part(c *Conn) {
	s := c.sleeper
	if s != nil && c.last && (c.answer.failed || !c.linger && len(c.rest) == 0 && !c.readable()) {
		c.sleeper = nil
		c.keepRest(nil)
		s.end()
		if c.body.absent {
			return
		}
		w.conn = nil // somebody may still want to abort a body
		return
	}
	// The connection takes its memory with it.
	w.conn = nil
	if c.restMem == w.mem {
		w.mem.keep = false
		w.mem = nil
	}
	c.carryOn()
}

// lose ends a connection after a panic, with whatever the worker has.
func (w *worker) lose(s *sleeper) {
	c := w.conn
	w.conn, w.mem = nil, nil
	if c != nil && c.sleeper == nil && !c.steady.direct {
		c.end() // it has become an ordinary one meanwhile
		return
	}
	if c == nil || c.sleeper != s {
		if s.state.Load()&gone == 0 {
			s.end()
		}
		return
	}
	c.land()
	c.sleeper = nil
	s.end()
}

// plain takes the next request from what has been received, if it is one that
// needs no patience: a whole head without a fault, without an upgrade and
// without a wait for 100 Continue, and its whole body. With patience, any body
// will do: it is read later.
func (c *Conn) plain(patience bool) bool {
	o := c.front.settings.Load()
	x := exchange.Acquire()
	q := &x.Request
	n, fault := q.Parse(c.rest, &o.limits)
	if fault != wire.NoFault || n == 0 || q.Upgrade != nil || q.Expect ||
		!patience && (q.Length < 0 || q.Length > int64(len(c.rest)-n)) {
		exchange.Release(x)
		return false
	}
	c.o, c.x = o, x
	c.keepRest(c.rest[n:])
	return true
}
