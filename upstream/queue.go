package upstream

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// queue is the requests that wait for a server of a pool: the one that has
// waited longest is served first, those that matter less after all others. It belongs to the pool's ledger, so that a
// reload does not break the line.
//
// Nobody overtakes: while some wait, a pick finds no server, so that whoever
// comes later has to stand in line.
type queue struct {
	waiting atomic.Int32 // the length of the line

	mu          sync.Mutex // guards the line; picks are made under it, nothing else
	first, last *waiter
	low         *waiter // the first one that matters less than others, and so do all behind it; nil without any

	queued   atomic.Uint64
	refused  atomic.Uint64
	timedOut atomic.Uint64
}

// waiter is a request in the line.
type waiter struct {
	pool       *Pool
	tried      Tried
	intent     Intent
	prev, next *waiter
	ready      chan struct{} // closed when server and verdict are set
	server     *Server
	verdict    Verdict
	over       bool // it is no longer in the line
}

// Wait is a pick that waits while all servers are full or the pool is
// overloaded, in the order of arrival, until ctx is done or the pool's
// QueueTimeout is over. Call it after a pick whose verdict Waits. Every verdict
// but Picked comes without a server; after Picked, also when ctx is done by
// then, Done ends it as after any pick.
func (p *Pool) Wait(ctx context.Context, tried *Tried, in Intent) (*Server, Verdict) {
	q, places := &p.ledger.queue, int32(p.Options.Queue)
	if places == 0 {
		return nil, QueueFull
	}
	if in.Low {
		places = (places + 1) / 2 // the rest is for those that matter more
	}
	w := &waiter{pool: p, tried: *tried, intent: in, ready: make(chan struct{})}
	q.mu.Lock()
	if q.waiting.Load() >= places {
		q.mu.Unlock()
		q.refused.Add(1)
		return nil, QueueFull
	}
	q.append(w)
	q.serve() // a place may have become free before anybody saw this one wait
	q.mu.Unlock()

	timer := time.NewTimer(p.Options.QueueTimeout)
	defer timer.Stop()
	reason := QueueTimedOut
	select {
	case <-w.ready:
		return w.server, w.verdict
	case <-timer.C:
	case <-ctx.Done():
		reason = WaitCancelled
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if w.over { // served at the last moment
		return w.server, w.verdict
	}
	q.remove(w)
	if reason == QueueTimedOut {
		q.timedOut.Add(1)
	}
	return nil, reason
}

// freed serves those who wait; somewhere a place may have become free.
func (q *queue) freed() {
	if q.waiting.Load() == 0 {
		return
	}
	q.mu.Lock()
	q.serve()
	q.mu.Unlock()
}

// serve gives servers to those in line for as long as there are any. One that
// has tried some servers may have to let others go first. The caller holds
// q.mu.
func (q *queue) serve() {
	for w := q.first; w != nil; {
		next := w.next
		s, verdict := w.pool.pick(&w.tried, w.intent)
		switch {
		case !verdict.Waits():
			q.remove(w)
			w.server, w.verdict = s, verdict
			close(w.ready)
		case w.tried.count == 0 && !w.intent.Low:
			return // nor would anybody behind find one
		}
		w = next
	}
}

func (q *queue) append(w *waiter) {
	if w.intent.Low && q.low == nil {
		q.low = w
	}
	if !w.intent.Low {
		w.next = q.low // stands before those
	}
	if w.next == nil {
		w.prev, q.last = q.last, w
	} else {
		w.prev, w.next.prev = w.next.prev, w
	}
	if w.prev == nil {
		q.first = w
	} else {
		w.prev.next = w
	}
	q.waiting.Add(1)
	q.queued.Add(1)
}

func (q *queue) remove(w *waiter) {
	if w == q.low {
		q.low = w.next
	}
	if w.prev == nil {
		q.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		q.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.over = true
	q.waiting.Add(-1)
}

// QueueStats are a pool's queue in numbers.
type QueueStats struct {
	Waiting  int    `json:"waiting"`   // now
	Queued   uint64 `json:"queued"`    // so far
	Refused  uint64 `json:"refused"`   // because the queue was full
	TimedOut uint64 `json:"timed_out"` // after waiting
}

// QueueStats counts those who wait and waited.
func (p *Pool) QueueStats() QueueStats {
	q := &p.ledger.queue
	return QueueStats{int(q.waiting.Load()), q.queued.Load(), q.refused.Load(), q.timedOut.Load()}
}
