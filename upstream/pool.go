package upstream

import (
	"cmp"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Pool is the servers that share the requests of an upstream, as one
// configuration describes them. Picks take no lock; every change of servers,
// health or administrative state replaces the set that they look at.
type Pool struct {
	Name    string
	Options *Options // as it was built; read only
	Budget  *Budget  // of repeated attempts

	registry *Registry
	ledger   *ledger
	secret   *secret
	entries  []entry
	users    int // configurations that hold the pool; guarded by Registry.mu
	set      atomic.Pointer[set]

	excuse atomic.Pointer[excuse] // see Excuse, nil without one

	// What follows from the options.

	ejects   bool      // results are judged
	peaked   bool      // latencies are kept for peak_ewma
	counted  bool      // its requests in flight are counted apart from those of others
	compares bool      // it chooses by the requests in flight to its servers
	adaptive *adaptive // of the ledger, nil without
	sticky   *sticky   // nil without

	mu     sync.Mutex  // held while the set is replaced
	closed bool        // the servers are given back, the set is final
	timer  *time.Timer // replaces the set when time alone changes it, nil before the first such change
}

// entry is a configured server: one address, or all addresses of a name.
type entry struct {
	options *ServerOptions
	target  target
	name    *name // nil without a host name
}

func newPool(r *Registry, name string, o *Options, secret *secret, l *ledger) *Pool {
	own := *o
	own.Servers = slices.Clone(o.Servers)
	p := &Pool{Name: name, Options: &own, Budget: l.budget, registry: r, ledger: l, secret: secret, users: 1}
	for i := range own.Servers {
		t, err := parseTarget(own.Servers[i].Address)
		if err != nil {
			panic("BUG: a checked address: " + err.Error())
		}
		p.entries = append(p.entries, entry{options: &own.Servers[i], target: t})
	}
	p.ejects = own.Eject.On
	p.peaked = own.Balance == "peak_ewma"
	p.counted = own.Balance == "hash" || own.Adaptive.On
	p.compares = own.Balance == "least_conn" || own.Balance == "p2c" || p.peaked
	p.adaptive = l.adaptive
	p.sticky = newSticky(&own.Sticky, name, r.random)
	p.set.Store(&set{})
	return p
}

// same reports whether a pool built from these would be this one.
func (p *Pool) same(o *Options, secret *secret) bool {
	return p.secret.digest == secret.digest && reflect.DeepEqual(p.Options, o)
}

// Pick is PickFor a request without anything to go by.
func (p *Pool) Pick(tried *Tried) (*Server, Verdict) { return p.PickFor(tried, Intent{}) }

// PickFor chooses a server that is not in tried, and counts the request in;
// Done of that server ends it. Backups are asked when no other server is
// usable, or when all of them were tried. Without a server the verdict says
// why; if it Waits, Wait may find one later. Allocates nothing, takes no lock.
func (p *Pool) PickFor(tried *Tried, in Intent) (*Server, Verdict) {
	if p.Options.Queue > 0 && p.ledger.queue.waiting.Load() > 0 {
		return nil, AllFull // others came first
	}
	return p.pick(tried, in)
}

// pick is a pick that does not look who waits.
func (p *Pool) pick(tried *Tried, in Intent) (*Server, Verdict) {
	if !p.counted {
		return p.choose(tried, in)
	}
	inFlight := &p.ledger.inFlight
	if n := inFlight.Add(1); p.adaptive != nil && !p.adaptive.admits(n, in.Low) {
		inFlight.Add(-1)
		return nil, Overloaded
	}
	s, verdict := p.choose(tried, in)
	if s == nil {
		inFlight.Add(-1)
	}
	return s, verdict
}

// choose asks the pickers.
func (p *Pool) choose(tried *Tried, in Intent) (*Server, Verdict) {
	set := p.set.Load()
	if len(in.Token) > 0 {
		if s := set.sticks(tried, in.Token); s != nil {
			return s, Picked
		}
	}
	verdict := NoServer
	if set.primary != nil {
		var s *Server
		if s, verdict = set.primary.Pick(*tried, in.Key); verdict != AllTried {
			return s, verdict
		}
	}
	if set.backup != nil {
		return set.backup.Pick(*tried, in.Key)
	}
	return nil, verdict
}

// Retried counts a repeated attempt by the outcome that made it necessary.
func (p *Pool) Retried(o Outcome) { p.ledger.retries[o].Add(1) }

// Retries is the number of attempts repeated after that outcome.
func (p *Pool) Retries(o Outcome) uint64 { return p.ledger.retries[o].Load() }

// BudgetExhausted counts an attempt that was not repeated because the budget
// did not allow it.
func (p *Pool) BudgetExhausted() { p.ledger.exhausted.Add(1) }

// Exhausted is the number of attempts that the budget did not allow.
func (p *Pool) Exhausted() uint64 { return p.ledger.exhausted.Load() }

// Excuse gives the pool two questions about something that all its servers
// share, such as a database. Without them one dead database would empty the
// pool, and everything with it that does not need the database.
//
// While it is failing, answers of the servers say nothing about them, and those
// that can be reached stay in use whatever their checks say. While it is
// doubtful, which is while nobody knows whether it was well after that moment
// (clock.Mono), the verdict about a server waits: the servers feel its end
// before others do. Both are asked on the path of requests that failed, and
// must not block. nil takes the questions back.
func (p *Pool) Excuse(failing func() bool, doubtful func(since int64) bool) {
	if failing == nil {
		p.excuse.Store(nil)
		return
	}
	p.excuse.Store(&excuse{failing, doubtful})
}

type excuse struct {
	failing  func() bool
	doubtful func(since int64) bool
}

func (p *Pool) excused() bool {
	e := p.excuse.Load()
	return e != nil && e.failing()
}

func (p *Pool) doubtful(since int64) bool {
	e := p.excuse.Load()
	return e != nil && e.doubtful != nil && e.doubtful(since)
}

// Servers are the servers of the moment. Read only.
func (p *Pool) Servers() []*Server { return p.set.Load().servers }

// Close tells that one configuration less holds the pool. After the last one
// its servers are given back: those that no other pool uses are retired.
// Requests that still hold the pool may go on picking from its last set.
func (p *Pool) Close() {
	r := p.registry
	r.mu.Lock()
	p.users--
	last := p.users == 0
	if last {
		delete(r.pools, p)
	}
	r.mu.Unlock()
	if !last {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		panic("BUG: pool closed more often than built")
	}
	p.closed = true
	if p.timer != nil {
		p.timer.Stop()
	}
	r.closed(p, p.Servers())
}

// resolve makes the servers those of the names' present addresses. Servers
// that vanish are given back; what is in flight to them goes on.
func (p *Pool) resolve() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	old := p.Servers()
	r := p.registry
	r.mu.Lock()
	var servers []*Server
	for i := range p.entries {
		e := &p.entries[i]
		if e.name == nil {
			servers = p.join(servers, old, e, place{addr: e.target.addr})
			continue
		}
		for _, at := range e.name.places {
			servers = p.join(servers, old, e, at)
		}
	}
	r.mu.Unlock()

	p.publish(servers) // first: nobody picks what is given back

	r.mu.Lock()
	gone := slices.DeleteFunc(slices.Clone(old), func(s *Server) bool { return slices.Contains(servers, s) })
	retired := r.release(p, gone, servers)
	left := r.attend(append(servers[:len(servers):len(servers)], gone...))
	r.mu.Unlock()
	retire(retired)
	closeIdle(left)
}

// join appends the server of an entry at a place, unless an earlier entry has
// it already. The caller holds both locks.
func (p *Pool) join(servers, old []*Server, e *entry, at place) []*Server {
	weight, backup := max(e.options.Weight, 1)*max(at.weight, 1), e.options.Backup || at.backup
	o := p.registry.origin(p, p.identity(e, at), e.target)
	name := o.name
	for _, s := range servers {
		switch {
		case s.origin == o:
			return servers
		case s.Name == o.name: // one address under two names that must be told apart
			name = o.name + "#" + e.target.host()
		}
	}
	for _, s := range old {
		if s.origin == o && s.entry == e && s.Name == name && s.Weight == weight && s.Backup == backup {
			return append(servers, s)
		}
	}
	s := &Server{
		Endpoint: o.Endpoint,
		Name:     name,
		Weight:   weight,
		Backup:   backup,
		limit:    p.Options.limit(e.options),
		pool:     p,
		origin:   o,
		entry:    e,
		token:    p.sticky.token(name),
	}
	if s.exact = s.limit > 0 || p.compares; !s.exact {
		o.load.expect()
	}
	s.tally = p.ledger.tallies[s.Name]
	if s.tally == nil {
		s.tally = newTally()
		p.ledger.tallies[s.Name] = s.tally
	}
	s.tally.servers++
	return append(servers, s)
}

// identity is that of an entry's origin at a place.
func (p *Pool) identity(e *entry, at place) identity {
	o := p.Options
	id := identity{
		network:     "tcp",
		maxIdle:     o.MaxIdle,
		idleTimeout: o.KeepaliveIdle,
		maxHeader:   int(o.MaxResponseHeader),
	}
	if o.KeepaliveIdle == 0 {
		id.maxIdle = 0 // to the endpoint, 0 is no limit of time
	}
	if e.target.path != "" {
		id.network, id.address = "unix", e.target.path
	} else {
		id.address = netip.AddrPortFrom(at.addr, cmp.Or(at.port, e.target.port)).String()
	}
	if e.target.secure {
		id.tls = p.secret.digest + strconv.Quote(p.secret.serverName(e.target))
	}
	if o.Health.On {
		id.check = newCheck(&o.Health, o.Host, e.target)
	}
	return id
}

// refresh makes picks follow the servers' health and administrative state.
func (p *Pool) refresh() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.publish(p.Servers())
	}
}
