package proxy

import (
	"runtime/debug"
	"sync"
	"time"

	"gateway/exchange"
	"gateway/internal/clock"
	"gateway/upstream"
)

// hedge is a second attempt beside a first one that takes long, at another
// server: the response that comes first is used, the other attempt is cancelled
// (Dean and Barroso, "The Tail at Scale", CACM 2013). The second attempt runs
// on its timer's goroutine, which borrows the request from the exchange and has
// always ended before the exchange goes on. Hedges are pooled; one whose timer
// does not fire allocates nothing.
type hedge struct {
	timer  *time.Timer   // begins the second attempt
	ended  chan struct{} // is sent to when the second attempt has ended
	cancel func()        // cancels the second attempt; bound once

	// The exchange's, until the race is over.

	target *target
	first  *upstream.Call
	second *upstream.Call
	tried  upstream.Tried
	intent upstream.Intent

	mu    sync.Mutex // never held across I/O
	armed bool       // the timer may begin the second attempt
	begun bool       // it has
	over  bool       // the first attempt has ended: the second one can't cancel it any more
	won   bool       // the second attempt has the response that is used, the first one was cancelled

	// Of the second attempt, valid when it has ended.

	server  *upstream.Server // it holds a place at; nil when nobody could be asked
	attempt int64            // begun, clock.Mono
	outcome upstream.Outcome
}

var hedges = sync.Pool{New: func() any {
	h := &hedge{ended: make(chan struct{}, 1)}
	h.cancel = func() { h.second.Cancel() }
	return h
}}

// hedge is what may become a second attempt beside the exchange's first one, nil
// where the route does not hedge, where the request can't be sent twice at the
// same time, and in a session that another server knows nothing of.
func (t *target) hedge(x *exchange.Exchange, intent upstream.Intent) *hedge {
	if !t.hedging.On() {
		return nil
	}
	c := x.Call
	after := t.pool.HedgeAfter(t.hedging)
	if after == 0 || x.Attempts > 1 || c.Fresh || c.Upload != nil || c.Upgrade ||
		len(intent.Token) > 0 && string(intent.Token) == x.Origin.Token() {
		return nil
	}
	h := hedges.Get().(*hedge)
	h.target, h.tried, h.intent = t, upstream.Tried{}, intent
	h.intent.Low = true // who has nobody yet comes first
	h.first, h.second = c, x.Spare()
	s := h.second
	s.Method, s.Head, s.Body, s.Length = c.Method, c.Head, c.Body, c.Length
	s.ConnectTimeout, s.TryTimeout, s.FirstByteTimeout, s.BetweenTimeout = c.ConnectTimeout, c.TryTimeout, c.FirstByteTimeout, c.BetweenTimeout
	s.Deadline = c.Deadline
	h.armed, h.begun, h.over, h.won = true, false, false, false
	h.server, h.outcome = nil, upstream.Cancelled
	h.tried.Add(x.Origin)
	if h.timer == nil {
		h.timer = time.AfterFunc(after, h.fire)
	} else {
		h.timer.Reset(after)
	}
	return h
}

// fire is the second attempt.
func (h *hedge) fire() {
	h.mu.Lock()
	if !h.armed {
		h.mu.Unlock()
		return
	}
	h.armed, h.begun = false, true
	h.second.Ready()
	h.mu.Unlock()
	defer h.end()
	t := h.target
	server, _ := t.pool.PickFor(&h.tried, h.intent)
	if server == nil {
		return
	}
	if !t.allowed() {
		server.Done(upstream.Result{Outcome: upstream.Cancelled})
		return
	}
	h.server, h.attempt = server, clock.Mono()
	h.outcome = h.second.Do(server.Endpoint)
	if !h.good(h.second, h.outcome) {
		return
	}
	h.mu.Lock()
	if !h.over {
		h.won = true
		h.first.Cancel()
	}
	h.mu.Unlock()
}

// end tells that the second attempt has ended. A panic ends that alone.
func (h *hedge) end() {
	if p := recover(); p != nil {
		g := h.target.gateway
		g.counters.panics.Inc()
		g.log.Error("panic while a request was hedged; please report it",
			"panic", p, "route", h.target.info.Name, "stack", string(debug.Stack()))
		h.outcome = upstream.Cancelled
	}
	h.ended <- struct{}{}
}

// good reports whether a response may be used that is not the last one to hope
// for.
func (h *hedge) good(c *upstream.Call, o upstream.Outcome) bool {
	return o == upstream.OK && !h.target.repeats.Status(c.Response.Status)
}

// race makes the exchange's attempt, beside which the second one may be made.
// It returns the outcome of the better one, whose place the exchange then
// holds, and the other server if there was another one.
func (h *hedge) race(x *exchange.Exchange) (outcome upstream.Outcome, other *upstream.Server) {
	outcome = upstream.Cancelled
	ran := false
	defer func() {
		if !ran { // a panic, which must not leave anybody behind who uses the exchange
			h.settle(x, outcome)
		}
	}()
	outcome = h.first.Do(x.Origin.Endpoint)
	ran = true
	return h.settle(x, outcome)
}

// settle chooses after the first attempt.
func (h *hedge) settle(x *exchange.Exchange, first upstream.Outcome) (outcome upstream.Outcome, other *upstream.Server) {
	h.mu.Lock()
	h.armed, h.over = false, true
	begun, won := h.begun, h.won
	h.mu.Unlock()
	if !begun {
		if h.timer.Stop() {
			h.release() // otherwise its function is about to find that it came too late
		}
		return first, nil
	}
	defer h.release()
	took := clock.Mono() - x.Attempted
	if !won && (first == upstream.Cancelled || h.good(h.first, first) || !x.Waiting(h.cancel)) {
		h.second.Cancel()
	}
	<-h.ended
	x.Waiting(nil)
	if h.server == nil {
		h.second.End()
		return first, nil
	}
	x.Attempts++
	if won || !h.good(h.first, first) && h.outcome == upstream.OK && (first != upstream.OK || h.good(h.second, h.outcome)) {
		other = x.Origin
		h.adopt(x, first, took)
		return h.outcome, other
	}
	h.drop()
	return first, h.server
}

// adopt makes the second attempt the exchange's.
func (h *hedge) adopt(x *exchange.Exchange, first upstream.Outcome, took int64) {
	result := upstream.Result{Outcome: first, Latency: took}
	slow := time.Duration(0)
	switch {
	case h.won: // whatever became of it in the end, it was cancelled
		result.Outcome, slow = upstream.Cancelled, time.Duration(took)
	case first == upstream.OK:
		result.Status = h.first.Response.Status
	}
	x.Calling(nil)
	h.first.End()
	x.Origin.Done(result)
	h.target.pool.Hedged(true, slow)
	x.SwapCall()
	x.Call.Interim = x
	x.Origin, x.Server, x.Attempted = h.server, h.server.Name, h.attempt
	if !x.Calling(x.Call) {
		x.Call.Cancel()
	}
}

// drop ends the second attempt, whose response is not used.
func (h *hedge) drop() {
	result := upstream.Result{Outcome: h.outcome, Latency: clock.Mono() - h.attempt}
	if h.outcome == upstream.OK {
		result.Status = h.second.Response.Status
	}
	h.second.End()
	h.server.Done(result)
	h.target.pool.Hedged(false, 0)
}

func (h *hedge) release() {
	h.target, h.first, h.second, h.server, h.intent = nil, nil, nil, nil, upstream.Intent{}
	hedges.Put(h)
}
