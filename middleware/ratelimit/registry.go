package ratelimit

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync"

	"gateway/internal/clock"
	"gateway/metrics"
)

// Registry keeps the buckets of policies across configurations. A policy is
// known by its name: as long as its store and its keys stay the same its
// buckets do, and a changed rate or burst leaves each bucket the tokens that it
// lacks.
type Registry struct {
	metrics *metrics.Registry
	log     *slog.Logger

	mu      sync.Mutex
	current *Set // nil before the first Commit
}

// NewRegistry has no policies yet. It registers the families that are read at
// each scrape.
func NewRegistry(m *metrics.Registry, log *slog.Logger) *Registry {
	r := &Registry{metrics: m, log: log}
	each := func(value func(*Limiter) float64) func(*metrics.Samples) {
		return func(s *metrics.Samples) {
			r.mu.Lock()
			set := r.current
			r.mu.Unlock()
			for _, name := range set.names() {
				s.Add(value(set.limiters[name]), "policy", name)
			}
		}
	}
	m.CollectGauge("gateway_limit_keys", "Keys whose bucket is not full, or that hold a place, in this process.",
		each(func(l *Limiter) float64 { return float64(l.keys()) }))
	m.CollectGauge("gateway_limit_leased_tokens", "Tokens taken from Redis ahead of time and not spent.",
		each(func(l *Limiter) float64 { return float64(l.leased()) }))
	m.CollectGauge("gateway_limit_waiting", "Requests that wait for their turn.",
		each(func(l *Limiter) float64 { return float64(l.state.waiting.Load()) }))
	m.CollectGauge("gateway_limit_nodes", "Gateways that share limits through Redis, as last seen.", func(s *metrics.Samples) {
		r.mu.Lock()
		set := r.current
		r.mu.Unlock()
		if set != nil && set.redis != nil {
			s.Add(float64(set.redis.Nodes()))
		}
	})
	return r
}

// Set is the policies of one configuration.
type Set struct {
	registry     *Registry
	limiters     map[string]*Limiter
	redis        *Redis // nil when no policy needs it
	redisOptions RedisOptions
	fresh        []*state // made for this set
	freshRedis   bool
	committed    bool
}

// names are those of the policies, sorted.
func (s *Set) names() []string {
	if s == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(s.limiters))
}

// Limiter is the policy of that name, nil when there is none.
func (s *Set) Limiter(name string) *Limiter { return s.limiters[name] }

// Build makes the policies of a configuration, with the buckets that they have
// already. Until Commit the policies that are at work do not change. The
// options were checked.
func (r *Registry) Build(policies map[string]Options, redis RedisOptions) (*Set, error) {
	r.mu.Lock()
	former := r.current
	r.mu.Unlock()
	s := &Set{registry: r, limiters: make(map[string]*Limiter, len(policies)), redisOptions: redis}
	for _, name := range slices.Sorted(maps.Keys(policies)) {
		o := policies[name]
		if o.Store != "local" && s.redis == nil {
			if err := s.connect(former); err != nil {
				return nil, err
			}
		}
		s.limiters[name] = s.limiter(name, o, former)
	}
	return s, nil
}

// connect takes over the client of the former set, or makes one.
func (s *Set) connect(former *Set) (err error) {
	if former != nil && former.redis != nil && former.redisOptions == s.redisOptions {
		s.redis = former.redis
		return nil
	}
	if s.redisOptions.URL == "" {
		return errors.New(`redis.url: missing, and a limit has its store there; want "redis://host:6379/0"`)
	}
	if s.redis, err = NewRedis(s.redisOptions, s.registry.log); err != nil {
		return fmt.Errorf("redis.url: %w", err)
	}
	s.freshRedis = true
	return nil
}

func (s *Set) limiter(name string, o Options, former *Set) *Limiter {
	l := &Limiter{Name: name, Options: o, kind: o.kind(), slack: units(int64(o.Delay))}
	const help = "Decisions about requests, by policy, decision and where it was made."
	for from := range l.counters {
		for d := range l.counters[from] {
			l.counters[from][d] = s.registry.metrics.Counter("gateway_limit_decisions_total", help,
				"policy", name, "decision", decisionNames[d], "store", sourceNames[from])
		}
	}
	var redis *Redis
	if o.Store != "local" {
		redis = s.redis
	}
	if former != nil {
		if old := former.limiters[name]; old != nil && old.state.redis == redis && sameBuckets(&old.Options, &o) {
			l.state = old.state
			return l
		}
	}
	l.state = newState(name, &o, redis)
	s.fresh = append(s.fresh, l.state)
	return l
}

// sameBuckets reports whether buckets of one policy mean something to another.
func sameBuckets(a, b *Options) bool {
	return a.kind() == b.kind() && a.Store == b.Store && reflect.DeepEqual(a.Key, b.Key) &&
		a.IPv4Prefix == b.IPv4Prefix && a.IPv6Prefix == b.IPv6Prefix &&
		(a.Store != "redis" || a.MaxKeys == b.MaxKeys) // leases come from Redis anyway
}

func newState(name string, o *Options, redis *Redis) *state {
	s := &state{hasher: newHasher(o.Key, redis != nil), redis: redis}
	if o.kind() == limitsRate {
		s.rate.Store(newRate(o))
	}
	if o.Store == "redis" {
		s.leases = newLeases(name, redis, o.MaxKeys, newRate(o))
		return s
	}
	t := newTable(o.MaxKeys, newScale(o.scale()))
	t.sticky = o.kind() == limitsConcurrency
	s.table.Store(t)
	if o.Store == "redis-strict" {
		s.strict = &strict{policy: name, redis: redis, state: s}
	}
	return s
}

// Commit puts the set to work: buckets that it has taken over follow its
// options, and what only the former set had ends. Requests under way may still
// use the former set's limiters.
func (s *Set) Commit() {
	r := s.registry
	r.mu.Lock()
	former := r.current
	r.current = s
	r.mu.Unlock()
	s.committed = true
	now := clock.Mono()
	for _, l := range s.limiters {
		l.follow(now)
	}
	if former == nil || former == s {
		return
	}
	for name, old := range former.limiters {
		if l := s.limiters[name]; l == nil || l.state != old.state {
			old.state.close()
		}
		if s.limiters[name] == nil {
			r.metrics.Remove("gateway_limit_decisions_total", "policy", name)
		}
	}
	if former.redis != nil && former.redis != s.redis {
		former.redis.Close()
	}
}

// follow makes the buckets obey the options.
func (l *Limiter) follow(now int64) {
	s := l.state
	if s.rate.Load() != nil {
		s.rate.Store(newRate(&l.Options))
	}
	if s.leases != nil {
		s.leases.rate.Store(s.rate.Load())
		return
	}
	t := s.table.Load()
	cost, window := l.Options.scale()
	if have := t.scale.Load(); have.cost != cost || have.window != window {
		t.rescale(cost, window, l.moment(now))
	}
	if groupCount(l.Options.MaxKeys) != len(t.groups) {
		other := newTable(l.Options.MaxKeys, t.scale.Load())
		other.sticky = t.sticky
		other.inherit(t, l.moment(now))
		s.table.Store(other)
	}
}

// Close ends a set that was not committed, or the last one that was.
func (s *Set) Close() {
	if s == nil {
		return
	}
	states := s.fresh
	if s.committed {
		states = nil
		for _, l := range s.limiters {
			states = append(states, l.state)
		}
	}
	for _, state := range states {
		state.close()
	}
	if s.redis != nil && (s.committed || s.freshRedis) {
		s.redis.Close()
	}
}
