package upstream

import (
	"crypto/tls"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"gateway/internal/health"
	"gateway/internal/processor"
)

// Server is one origin address as a member of a pool. It is immutable but for
// the counters and the state behind it, which outlive it.
type Server struct {
	*Endpoint        // how attempts reach it
	Name      string // the address as metrics, logs and admin know it: "10.0.0.1:8080", "https://10.0.0.1:8443", "unix:/run/app.sock"
	Weight    int    // as configured, at least 1
	Backup    bool   // only used when no other one is
	limit     int64  // requests in flight at most, 0 without limit
	exact     bool   // its requests in flight are counted exactly
	pool      *Pool
	origin    *origin
	tally     *tally
	entry     *entry // that it comes from
	token     string // of sticky sessions, "" without them
}

// Result is how an attempt ended.
type Result struct {
	Outcome Outcome // OK when the head of a response came; that of the body when that failed later
	Status  int     // of the response, 0 without one
	Latency int64   // until the head of the response, ns; 0 when not measured
}

// acquire counts a request in if the server has room for it.
func (s *Server) acquire() bool {
	if !s.admit() {
		return false
	}
	if s.pool.counted {
		s.tally.active.Add(1)
	}
	return true
}

// admit counts a request in at the origin if it has room, and the server is not
// on trial with another request.
func (s *Server) admit() bool {
	trial := &s.tally.trial
	if trial.Load() == noTrial {
		return s.enter()
	}
	if !trial.CompareAndSwap(trialOpen, trialUnderWay) {
		return false
	}
	if !s.enter() {
		trial.CompareAndSwap(trialUnderWay, trialOpen)
		return false
	}
	return true
}

// enter counts a request in if the limit allows it.
func (s *Server) enter() bool {
	l := &s.origin.load
	if !s.exact {
		l.apart.Load().Add(1)
		return true
	}
	if s.limit == 0 {
		l.exact.Add(1)
		return true
	}
	for {
		n := l.exact.Load()
		if n+max(l.others(), 0) >= s.limit {
			return false
		}
		if l.exact.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// exit counts it out.
func (s *Server) exit() {
	l := &s.origin.load
	if !s.exact {
		l.apart.Load().Add(^uint64(0))
	} else if l.exact.Add(-1) < 0 {
		panic("BUG: a server has negative requests in flight")
	}
}

// full reports whether the server has no room for another request, given how
// many are in flight to it.
func (s *Server) full(inFlight int64) bool {
	return s.limit > 0 && inFlight >= s.limit || s.tally.trial.Load() == trialUnderWay
}

// Done ends what a pick began: the request is no longer in flight, its result
// is counted and judged, and whoever waits longest for a server gets one.
// Exactly once for each pick, also long after the pool was closed. Allocates
// nothing, and takes a lock only when it ejects the server, ends its trial, or
// serves a queue.
func (s *Server) Done(r Result) {
	s.exit()
	p, t := s.pool, s.tally
	now := p.registry.now()
	if p.ejects {
		t.window.roll(now, p.Options.Eject.Window, t)
	}
	failed := blames[r.Outcome]
	if r.Outcome == OK && r.Status >= 500 {
		t.serverErrors.Add(1)
		failed = true
	}
	t.count(r.Outcome)
	if r.Outcome == OK && r.Latency > 0 {
		s.origin.observe(r.Latency)
		if l := p.ledger.latencies.Load(); l != nil {
			l.observe(r.Latency, now)
		}
	}
	if p.peaked {
		if failed {
			t.peak.observe(slow(r.Latency, s.origin.latency.Load()), now)
		} else if r.Outcome == OK && r.Latency > 0 {
			t.peak.observe(r.Latency, now)
		}
	}
	if p.counted {
		t.active.Add(-1)
		p.ledger.inFlight.Add(-1)
		if p.adaptive != nil {
			p.adaptive.observe(r.Latency, r.Outcome == OK, failed, now)
		}
	}
	if p.ejects {
		s.judge(r, failed, now)
	} else if t.trial.Load() != noTrial {
		t.trial.Store(noTrial) // from before a reload turned ejections off
	}
	p.ledger.queue.freed()
	if queues := s.origin.queues.Load(); queues != nil {
		for _, q := range *queues {
			q.freed()
		}
	}
}

// InFlight is the number of requests in flight to the address, those of other
// pools included. While requests come and go it may be off by them, even below
// zero.
func (s *Server) InFlight() int64 { return s.origin.load.now() }

// Usable reports whether the server may be picked: not down, enabled, and not
// ejected unless so many are that it makes no difference.
func (s *Server) Usable() bool {
	return s.inRotation() && (!s.tally.ejected() || s.pool.set.Load().panics)
}

// inRotation reports whether nothing but an ejection keeps the server from
// being picked.
func (s *Server) inRotation() bool {
	return s.Health() != health.Down && s.order() == Enabled
}

// order is what an operator decided.
func (s *Server) order() Order { return Order(s.tally.order.Load()) }

// weight is the server's weight in use, before slow start.
func (s *Server) weight() int {
	if w := s.tally.weight.Load(); w > 0 {
		return int(w)
	}
	return s.Weight
}

// Health is what the active checks say.
func (s *Server) Health() health.State { return health.State(s.origin.health.Load()) }

// Outcomes is the number of attempts that ended so.
func (s *Server) Outcomes(o Outcome) uint64 { return s.tally.ended(o) }

// ServerErrors is the number of responses with status 500 and above; they are
// among the outcomes OK too.
func (s *Server) ServerErrors() uint64 { return s.tally.serverErrors.Load() }

// blames says which outcomes are held against a server. The others are
// trouble of this machine or of the client, or of a connection that grew old.
var blames = [OutcomeCount]bool{
	ConnectRefused:  true,
	ConnectTimedOut: true,
	TLSFailed:       true,
	Reset:           true,
	TimedOut:        true,
	DeadlinePassed:  true,
	Invalid:         true,
}

// Repeatable reports whether another server may do better after an attempt
// with this outcome.
func (o Outcome) Repeatable() bool {
	return o == Stale || blames[o] && o != DeadlinePassed && o != Invalid
}

// tally is what is counted for a server in a pool, what the pool makes of it,
// and what an operator decided. It belongs to the pool's ledger and outlives
// configurations as long as the pool has a server of that name.
type tally struct {
	fine         processor.Counter           // outcomes OK
	others       [OutcomeCount]atomic.Uint64 // by outcome
	serverErrors atomic.Uint64
	active       atomic.Int64 // requests of this pool in flight, if the pool is counted
	peak         peak         // if the pool balances by it
	window       window       // if the pool ejects

	_         [64]byte     // what each request writes is kept from what each pick reads
	streak    atomic.Int32 // failures in a row
	forgiven  atomic.Uint64
	suspected atomic.Int64 // when failures were enough for an ejection that had to wait, as clock.Mono; 0 without one
	ejections [EjectCauseCount]atomic.Uint64

	_      [64]byte
	order  atomic.Uint32 // Order of an operator
	weight atomic.Int32  // by order of an operator, 0 without one
	trial  atomic.Uint32 // noTrial, trialOpen, trialUnderWay
	until  atomic.Int64  // end of the ejection, 0 when not ejected; clock of the registry
	ramp   atomic.Int64  // when slow start began, 0 without one

	times    int   // ejections since the server was well for long; guarded by ledger.ejecting
	returned int64 // from the last ejection; guarded by ledger.ejecting
	servers  int   // that use the tally, of several pools during a reload; guarded by Registry.mu
}

func newTally() *tally { return &tally{fine: processor.NewCounter()} }

// count counts an attempt that ended so.
func (t *tally) count(o Outcome) {
	if o == OK {
		t.fine.Add(1)
	} else {
		t.others[o].Add(1)
	}
}

// ended is the number of attempts that ended so.
func (t *tally) ended(o Outcome) uint64 {
	if o == OK {
		return t.fine.Value()
	}
	return t.others[o].Load()
}

// failures is the number of results that are held against the server.
func (t *tally) failures() uint64 {
	n := t.serverErrors.Load()
	for o, blamed := range blames {
		if blamed {
			n += t.others[o].Load()
		}
	}
	return n
}

// origin is the live state of an address: connections, load, health. Pools
// with the same settings share it. It belongs to the registry and outlives
// configurations; requests may end on it after it was retired.
type origin struct {
	*Endpoint
	identity identity
	name     string
	id       uint32      // unique in the process
	tls      *tls.Config // nil for plain connections

	load    load
	_       [64]byte     // each request writes what follows
	latency atomic.Int64 // moving average in ns, 0 before the first sample
	_       [64]byte

	health atomic.Uint32            // health.State; written by the origin's probe alone
	queues atomic.Pointer[[]*queue] // that wait for it; nil without any

	mu     sync.Mutex // guards reason and since
	reason string     // of the last failed check
	since  time.Time  // when health changed last

	// Guarded by Registry.mu.

	pools map[*Pool]struct{} // that have it as a member; retired when empty
	stop  func()             // ends its probe; nil while nobody attends to it
}

func newOrigin(id identity, t target, number uint32, secret *secret, dial Dial) *origin {
	o := &origin{identity: id, name: id.address, id: number, since: time.Now(), pools: make(map[*Pool]struct{})}
	switch {
	case id.network == "unix":
		o.name = "unix:" + id.address
	case t.secure:
		o.name = "https://" + id.address
		o.tls = secret.forName(secret.serverName(t))
	}
	o.Endpoint = NewEndpoint(EndpointOptions{
		Network:     id.network,
		Address:     id.address,
		TLS:         o.tls,
		MaxIdle:     id.maxIdle,
		IdleTimeout: id.idleTimeout,
		MaxHeader:   id.maxHeader,
		Dial:        dial,
	})
	return o
}

// notify makes requests that end on the origin serve the queues of its pools.
// The caller holds Registry.mu.
func (o *origin) notify() {
	var queues []*queue
	for p := range o.pools {
		if q := &p.ledger.queue; p.Options.Queue > 0 && !slices.Contains(queues, q) {
			queues = append(queues, q)
		}
	}
	if queues == nil {
		o.queues.Store(nil)
		return
	}
	o.queues.Store(&queues)
}

// identity tells origins apart: same identity, same origin.
type identity struct {
	network, address string
	tls              string // digest of the TLS settings with the server name, "" without TLS
	maxIdle          int
	idleTimeout      time.Duration
	maxHeader        int
	check            check // zero without active checks
}

// observe mixes a latency into the moving average (weight 1/8). A sample that
// races with another one may be lost.
func (o *origin) observe(ns int64) {
	old := o.latency.Load()
	next := ns
	if old != 0 {
		next = old + (ns-old)/8
	}
	o.latency.CompareAndSwap(old, max(next, 1))
}

// become sets the health and reports whether that makes the origin usable or
// unusable, or usable again.
func (o *origin) become(s health.State, reason string) (flipped bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	old := health.State(o.health.Load())
	o.reason = reason
	if old == s {
		return false
	}
	o.since = time.Now()
	o.health.Store(uint32(s))
	return old == health.Down || s == health.Down
}
