package upstream

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"gateway/internal/clock"
)

// Registry owns what outlives a configuration: origins with their
// connections, load and health, the addresses of host names, and what was
// counted and decided for each pool. Pools take from it by identity and give
// back when they close; what nobody uses any more is retired.
//
// Locks: Pool.mu before Registry.mu. Neither is taken by a pick, neither is
// held across I/O.
type Registry struct {
	log       *slog.Logger
	observer  Observer
	ejections EjectionObserver // the observer, if it is one; else nil
	resolver  Resolver
	dial      Dial // nil: the network
	probe     func(context.Context, *origin) error
	now       func() int64 // the time that picks and results go by, ns
	random    []byte       // what tokens are signed with that have no secret of their own

	ctx     context.Context // ends probes and lookups
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex
	origins map[identity]*origin
	names   map[lookup]*name
	ledgers map[string]*ledger
	pools   map[*Pool]struct{} // those not closed; two of a name while a reload is under way
	lastID  uint32
}

// RegistryOptions are what a registry works with. The zero value is usable.
type RegistryOptions struct {
	Log      *slog.Logger // nil: nothing is logged
	Observer Observer     // nil: nobody is told
	Resolver Resolver     // nil: net.DefaultResolver
	Dial     Dial         // opens connections for requests; nil: the network
}

// Observer is told of what happens apart from requests. Its methods are
// called from the registry's goroutines and must not block.
type Observer interface {
	// Flip tells that active checks found a server down, or up again.
	Flip(pool, server string, up bool, reason string)
}

// ledger is what outlives the configurations of a pool, by its name.
type ledger struct {
	turn      atomic.Uint64 // picks so far: where round robin stands
	_         [56]byte
	inFlight  atomic.Int64 // requests of the pool, if it is counted
	_         [56]byte
	queue     queue
	retries   [OutcomeCount]atomic.Uint64
	exhausted atomic.Uint64
	hedges    [2]atomic.Uint64          // won and lost
	latencies atomic.Pointer[latencies] // nil until somebody asks for percentiles
	ejecting  sync.Mutex                // held while an ejection begins or ends; taken after Pool.mu

	// Guarded by Registry.mu.

	pools    int // that use the ledger
	tallies  map[string]*tally
	budget   *Budget
	adaptive *adaptive // nil without
}

// NewRegistry is an empty registry. Close ends it.
func NewRegistry(o RegistryOptions) *Registry {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Resolver == nil {
		o.Resolver = defaultResolver
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &Registry{
		log:      o.Log,
		observer: o.Observer,
		resolver: o.Resolver,
		dial:     o.Dial,
		probe:    probe,
		now:      clock.Coarse,
		random:   make([]byte, 32),
		ctx:      ctx,
		cancel:   cancel,
		origins:  make(map[identity]*origin),
		names:    make(map[lookup]*name),
		ledgers:  make(map[string]*ledger),
		pools:    make(map[*Pool]struct{}),
	}
	r.ejections, _ = o.Observer.(EjectionObserver)
	rand.Read(r.random)
	return r
}

// Build gives the pool of that name with those options: the one that exists
// if nothing changed, TLS files included, else a new one that takes over the
// live state of all servers that the two have in common. Close it when the
// configuration that it was built for is retired, or was never used.
//
// Host names that are not known yet are looked up, for as long as ctx lasts; a
// name that is not found leaves the pool without its servers until it is.
// The error says what is wrong with the options ("servers[1]: …"). Safe for
// concurrent use, so that pools need not wait for each other's names.
func (r *Registry) Build(ctx context.Context, name string, o *Options) (*Pool, error) {
	var problem error
	o.Check(func(key, text string) {
		if problem == nil {
			problem = fmt.Errorf("%s: %s", key, text)
		}
	})
	if problem != nil {
		return nil, problem
	}
	secret, err := o.TLS.load()
	if err != nil {
		return nil, err
	}
	p, fresh := r.pool(name, o, secret)
	if fresh {
		for _, e := range p.entries {
			if e.name != nil {
				e.name.await(ctx)
			}
		}
		p.resolve()
	}
	return p, nil
}

// pool finds an unchanged pool or begins a new one, which has no servers yet.
func (r *Registry) pool(name string, o *Options, secret *secret) (p *Pool, fresh bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range r.pools {
		if p.Name == name && p.same(o, secret) {
			p.users++
			return p, false
		}
	}
	l := r.ledgers[name]
	if l == nil {
		l = &ledger{tallies: make(map[string]*tally)}
		r.ledgers[name] = l
	}
	l.pools++
	if budget := NewBudget(o.Retry.Budget.Fraction(), o.Retry.MinPerSecond); l.budget == nil || !l.budget.same(budget) {
		l.budget = budget
	}
	switch {
	case !o.Adaptive.On:
		l.adaptive = nil
	case l.adaptive == nil || l.adaptive.options != o.Adaptive:
		l.adaptive = newAdaptive(o.Adaptive)
	}
	p = newPool(r, name, o, secret, l)
	for i := range p.entries {
		if e := &p.entries[i]; e.target.name != "" {
			e.name = r.subscribe(p, lookup{e.target.name, e.target.service, o.Resolve})
		}
	}
	r.pools[p] = struct{}{}
	return p, true
}

// closed forgets a pool whose last user closed it. The caller holds p.mu.
func (r *Registry) closed(p *Pool, servers []*Server) {
	r.mu.Lock()
	for _, e := range p.entries {
		if e.name != nil {
			r.unsubscribe(p, e.name)
		}
	}
	retired := r.release(p, servers, nil)
	if p.ledger.pools--; p.ledger.pools == 0 {
		delete(r.ledgers, p.Name)
	}
	left := r.attend(servers) // perhaps it is disabled in those pools that remain
	r.mu.Unlock()
	retire(retired)
	closeIdle(left)
}

// origin is the origin of that identity, p being one of its pools from now on.
// A new one is not attended to yet. The caller holds r.mu.
func (r *Registry) origin(p *Pool, id identity, t target) *origin {
	o := r.origins[id]
	if o == nil {
		r.lastID++
		o = newOrigin(id, t, r.lastID, p.secret, r.dial)
		r.origins[id] = o
	}
	if _, member := o.pools[p]; !member {
		o.pools[p] = struct{}{}
		o.notify()
	}
	return o
}

// release gives servers of p back, which keeps others: their tallies, and
// those origins that no kept server uses. It returns the origins that nobody
// uses any more, to be retired without the lock. The caller holds r.mu.
func (r *Registry) release(p *Pool, servers, kept []*Server) (retired []*origin) {
	for _, s := range servers {
		if s.tally.servers--; s.tally.servers == 0 {
			delete(p.ledger.tallies, s.Name)
		}
		o := s.origin
		if slices.ContainsFunc(kept, func(k *Server) bool { return k.origin == o }) {
			continue
		}
		delete(o.pools, p)
		o.notify()
		if len(o.pools) == 0 {
			if o.stop != nil {
				o.stop()
				o.stop = nil
			}
			delete(r.origins, o.identity)
			retired = append(retired, o)
		}
	}
	return retired
}

// attend begins the checks of the servers' origins and has their connections
// kept, or ends both for those that are disabled wherever they are used. It
// returns the latter, whose idle connections are to be closed without the lock.
// The caller holds r.mu.
func (r *Registry) attend(servers []*Server) (left []*origin) {
	for _, s := range servers {
		o := s.origin
		use := o.enabled()
		o.Keep(use)
		switch {
		case !use:
			left = append(left, o)
			if o.stop != nil {
				o.stop()
				o.stop = nil
			}
		case o.stop == nil:
			ctx, cancel := context.WithCancel(r.ctx)
			o.stop = cancel
			if o.identity.check.on {
				r.running.Go(func() { r.watch(ctx, o) })
			}
		}
	}
	return left
}

// enabled reports whether any pool has the origin as a server that is not
// disabled. The caller holds Registry.mu.
func (o *origin) enabled() bool {
	for p := range o.pools {
		for _, s := range p.Servers() {
			if s.origin == o && s.order() != Disabled {
				return true
			}
		}
	}
	return false
}

func closeIdle(origins []*origin) {
	for _, o := range origins {
		o.CloseIdle()
	}
}

// retire closes the idle connections of origins that no pool uses any more.
// Requests in flight end by themselves.
func retire(origins []*origin) {
	for _, o := range origins {
		o.Retire()
	}
}

// named are the pools of a name that are not closed.
func (r *Registry) named(name string) (pools []*Pool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range r.pools {
		if p.Name == name {
			pools = append(pools, p)
		}
	}
	return pools
}

// excused reports whether any pool of an origin has an excuse for its failed
// checks.
func (r *Registry) excused(o *origin) bool {
	return slices.ContainsFunc(r.poolsOf(o), (*Pool).excused)
}

// doubtful reports whether any pool of an origin may have had one since.
func (r *Registry) doubtful(o *origin, since int64) bool {
	return slices.ContainsFunc(r.poolsOf(o), func(p *Pool) bool { return p.doubtful(since) })
}

func (r *Registry) poolsOf(o *origin) []*Pool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Keys(o.pools))
}

// flipped makes the pools of an origin follow its health, and tells.
func (r *Registry) flipped(o *origin, up bool, reason string) {
	r.mu.Lock()
	pools := slices.Collect(maps.Keys(o.pools))
	r.mu.Unlock()
	type place struct{ pool, server string }
	var places []place
	for _, p := range pools {
		if up {
			p.recovered(o)
		}
		p.refresh()
		for _, s := range p.Servers() {
			if s.origin == o {
				places = append(places, place{p.Name, s.Name})
			}
		}
	}
	slices.SortFunc(places, func(a, b place) int { return strings.Compare(a.pool+a.server, b.pool+b.server) })
	places = slices.Compact(places) // during a reload there are two pools of a name
	var names []string
	for _, at := range places {
		names = append(names, at.pool)
		if r.observer != nil {
			r.observer.Flip(at.pool, at.server, up, reason)
		}
	}
	if up {
		r.log.Info("server is up", "server", o.name, "upstreams", names)
	} else {
		r.log.Warn("server is down", "server", o.name, "upstreams", names, "reason", reason)
	}
}

// Close ends all checks and lookups, waits for them, and closes all idle
// connections. Pools that were not closed can still be picked from, with the
// health that they had.
func (r *Registry) Close() {
	r.cancel()
	r.running.Wait()
	r.mu.Lock()
	origins := slices.Collect(maps.Values(r.origins))
	r.mu.Unlock()
	retire(origins)
}
