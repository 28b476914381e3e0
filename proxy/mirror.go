package proxy

import (
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"gateway/config"
	"gateway/exchange"
	"gateway/internal/clock"
	"gateway/metrics"
	"gateway/upstream"
	"gateway/wire"
)

// Bounds of what a route's mirror takes: copies that are under way, and copies
// that wait for that. Whatever is more is dropped.
const (
	mirrorWorkers = 16
	mirrorQueue   = 64
	mirrorBody    = 64 << 10 // bytes of a request body
	// mirrorTime bounds a copy from its beginning to the end of its answer.
	mirrorTime = 30 * time.Second
)

// shadow sends copies of a route's requests to another target, and forgets
// what is answered. Workers are started when there is something to do. Its
// snapshot ends it; nil is one that is off.
type shadow struct {
	*target
	below   uint64
	queue   chan *copied
	done    chan struct{} // closed by close
	sent    *metrics.Counter
	failed  *metrics.Counter
	dropped *metrics.Counter

	mu      sync.Mutex // guards what follows; never held across I/O
	closed  bool
	waiting int // copies that no worker has begun
	busy    int // workers that have
	workers map[*upstream.Call]struct{}
}

// copied is a request that was copied; it borrows nothing.
type copied struct {
	method wire.Method
	head   []byte
	body   []byte
	intent upstream.Intent
}

func (g *Gateway) newShadow(s *Snapshot, r *route, o *config.Route) *shadow {
	const help = "Copies of requests for a mirror, by what became of them."
	count := func(result string) *metrics.Counter {
		return g.metrics.Counter("gateway_mirror_total", help, "route", o.Name, "result", result)
	}
	return &shadow{
		target:  g.newTarget(s, r, o, o.Mirror.Upstream),
		below:   threshold(o.Mirror.Share),
		queue:   make(chan *copied, mirrorQueue),
		done:    make(chan struct{}),
		sent:    count("sent"),
		failed:  count("failed"),
		dropped: count("dropped"),
		workers: make(map[*upstream.Call]struct{}),
	}
}

// copy copies a request whose fields were prepared for origins, if it is drawn.
// It never waits.
func (m *shadow) copy(x *exchange.Exchange, body []byte, f framing) {
	if m == nil || x.Request.Upgrade != nil || len(body) > mirrorBody || m.below != math.MaxUint64 && rand.Uint64() >= m.below {
		return
	}
	m.mu.Lock()
	full := m.closed || len(m.queue) == cap(m.queue)
	m.mu.Unlock()
	if full {
		m.dropped.Inc()
		return
	}
	one := &copied{
		method: x.Request.Method,
		head:   appendHead(make([]byte, 0, len(x.Head)+64), x, m.host, f),
		body:   append([]byte(nil), body...),
		intent: upstream.Intent{Key: m.intents.of(x).Key, Low: true}, // of what origins get
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		m.dropped.Inc()
		return
	}
	select {
	case m.queue <- one:
	default:
		m.dropped.Inc()
		return
	}
	if m.waiting++; m.waiting > len(m.workers)-m.busy && len(m.workers) < mirrorWorkers {
		call := new(upstream.Call)
		m.workers[call] = struct{}{}
		go m.work(call)
	}
}

// work sends copies, one after the other, until the mirror is closed.
func (m *shadow) work(call *upstream.Call) {
	for {
		var one *copied
		select {
		case one = <-m.queue:
		case <-m.done:
		}
		m.mu.Lock()
		if m.closed {
			delete(m.workers, call)
			m.mu.Unlock()
			return
		}
		m.waiting--
		m.busy++
		call.Ready() // close may cancel it from here on
		m.mu.Unlock()
		if m.send(call, one) {
			m.sent.Inc()
		} else {
			m.failed.Inc()
		}
		call.Reset()
		m.mu.Lock()
		m.busy--
		m.mu.Unlock()
	}
}

// send reports whether a copy was answered, completely and not with an error
// of the server. A panic ends the copy alone.
func (m *shadow) send(c *upstream.Call, one *copied) (ok bool) {
	server, _ := m.pool.PickFor(new(upstream.Tried), one.intent)
	if server == nil {
		return false
	}
	c.Method, c.Head, c.Body, c.Length = one.method, one.head, one.body, int64(len(one.body))
	c.Fresh = !one.method.Idempotent()
	c.ConnectTimeout = m.connectTimeout
	c.FirstByteTimeout = m.firstByteTimeout
	c.BetweenTimeout = m.betweenTimeout
	c.Deadline = time.Now().Add(mirrorTime)
	result := upstream.Result{Outcome: upstream.Cancelled}
	defer func() {
		if p := recover(); p != nil {
			m.gateway.counters.panics.Inc()
			m.gateway.log.Error("panic while a copy of a request was sent; please report it",
				"panic", p, "route", m.info.Name, "stack", string(debug.Stack()))
		}
		server.Done(result)
	}()
	began := clock.Mono()
	result.Outcome = c.Do(server.Endpoint)
	result.Latency = clock.Mono() - began
	if result.Outcome == upstream.OK {
		result.Status = c.Response.Status
		var err error
		if _, whole := c.Whole(); !whole {
			for err == nil {
				_, err = c.Next()
			}
			result.Outcome = outcomeOfBody(err)
		}
	}
	c.End()
	return result.Outcome == upstream.OK && result.Status < 500
}

// outcomeOfBody says how a response ended that nobody needs.
func outcomeOfBody(err error) upstream.Outcome {
	switch {
	case err == io.EOF:
		return upstream.OK
	case errors.Is(err, upstream.ErrCancelled):
		return upstream.Cancelled
	case errors.Is(err, os.ErrDeadlineExceeded):
		return upstream.TimedOut
	}
	return upstream.Reset
}

// close ends the workers; copies under way are cut off.
func (m *shadow) close() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	m.closed = true
	close(m.done)
	for call := range m.workers {
		call.Cancel()
	}
}
