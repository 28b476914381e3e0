package proxy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"gateway/config"
	"gateway/exchange"
	"gateway/internal/match"
	"gateway/middleware"
	"gateway/middleware/cache"
	"gateway/middleware/ratelimit"
	"gateway/tracing"
	"gateway/upstream"
	"gateway/upstream/dependency"
	"gateway/wire"
)

// Snapshot is one configuration as running parts. It is immutable; a request
// loads it once and ends on it. This file is the only place where options
// become objects.
type Snapshot struct {
	config    *config.Config
	loaded    time.Time
	identity  *middleware.Identity
	tracer    *tracing.Tracer
	router    *match.Router
	routes    []*route
	pools     map[string]*upstream.Pool
	poolNames []string // sorted

	dependencies *dependency.Set
	limits       *ratelimit.Set

	cache    *cache.Cache    // nil when no route caches
	policies []*cache.Policy // of all routes
	tier     *tierChange     // until it has taken over

	explainer *middleware.Explain // nil without a secret
	offline   bool                // for explanations alone
}

// route is what serves the requests that match one [[route]]. A stage that is
// off is nil.
type route struct {
	info    exchange.Route
	gateway *Gateway
	rule    string // what it matches, in words
	action  string // what it does, in words

	identity *middleware.Identity
	access   *middleware.Access
	cors     *middleware.CORS
	token    *middleware.Token
	limit    *middleware.Limit
	compress *middleware.Compress
	rewrite  *middleware.Rewrite
	needs    *middleware.Needs
	headers  *middleware.Headers
	respond  *respond // nil when the route has a target
	target   *target  // nil when the route answers by itself
	split    []share  // other targets of some clients, nil without any
	mirror   *shadow

	timeout    time.Duration // of the whole exchange, 0 for none
	tunnelIdle time.Duration
	maxBody    int64 // bytes, 0 for no limit
	bufferBody int64 // bytes
	upgrades   bool
}

// build makes the parts of a configuration, taking what lives from the
// gateway's registries. After an error nothing has changed; otherwise the
// caller closes the snapshot when it is retired or was never used.
func (g *Gateway) build(ctx context.Context, c *config.Config) (*Snapshot, error) {
	s := &Snapshot{
		config: c,
		loaded: time.Now(),
		pools:  make(map[string]*upstream.Pool, len(c.Upstreams)),

		explainer: middleware.NewExplain(c.Explain),
	}
	var err error
	if s.tracer, err = g.tracerOf(c.Tracing); err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	s.identity = middleware.NewIdentity(c.Client.TrustedProxies, s.tracer)
	dependencies, err := g.dependencies.Build(c.Dependencies)
	if err != nil {
		return nil, fmt.Errorf("dependency.%w", err)
	}
	s.dependencies = dependencies
	if s.limits, err = g.limits.Build(c.AllLimits(), c.Redis); err != nil {
		s.close()
		return nil, err
	}
	// All at once: a pool waits until its host names are known, or ctx ends.
	var mu sync.Mutex
	var all sync.WaitGroup
	var problems []string
	for name, o := range c.Upstreams {
		all.Go(func() {
			pool, err := g.servers.Build(ctx, name, &o)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				problems = append(problems, fmt.Sprintf("upstream.%s: %v", name, err))
				return
			}
			s.pools[name] = pool
			s.poolNames = append(s.poolNames, name)
		})
	}
	all.Wait()
	if len(problems) > 0 {
		s.discard()
		slices.Sort(problems)
		return nil, errors.New(strings.Join(problems, "\n"))
	}
	slices.Sort(s.poolNames)
	if err := g.openCache(s); err != nil {
		s.discard()
		return nil, err
	}
	rules := make([]match.Rule, len(c.Routes))
	for i := range c.Routes {
		rules[i] = c.Routes[i].Rule()
		r, err := g.newRoute(s, i, &c.Routes[i])
		if err != nil {
			s.discard()
			return nil, err
		}
		s.routes = append(s.routes, r)
	}
	s.router = match.New(rules)
	return s, nil
}

func (g *Gateway) newRoute(s *Snapshot, index int, o *config.Route) (*route, error) {
	var limiters []*ratelimit.Limiter
	for _, l := range o.Limits() {
		limiters = append(limiters, s.limits.Limiter(l.Name))
	}
	token, err := middleware.NewToken(o.JWT.Value)
	if err != nil {
		return nil, fmt.Errorf("route %q: jwt: %w", o.Name, err)
	}
	limit, err := middleware.NewLimit(o.Name, limiters, token.Claim)
	if err != nil {
		return nil, err
	}
	r := &route{
		info:       exchange.Route{Name: o.Name, Index: index, Metrics: g.routeMetrics(o.Name)},
		gateway:    g,
		rule:       o.Describe(),
		identity:   s.identity,
		access:     middleware.NewAccess(o.AccessOptions),
		token:      token,
		limit:      limit,
		compress:   middleware.NewCompress(o.Compress.Value, g.compress, o.Name, o.Path),
		rewrite:    middleware.NewRewrite(o.RewriteOptions),
		headers:    middleware.NewHeaders(o.HeaderOptions),
		timeout:    o.Timeout,
		tunnelIdle: o.TunnelIdleTimeout,
		maxBody:    int64(o.MaxBody),
		bufferBody: int64(o.BufferBody),
		upgrades:   o.WebSocket,
	}
	if o.CORS.Value != nil {
		r.cors = middleware.NewCORS(*o.CORS.Value)
	}
	switch {
	case o.Redirect != nil:
		r.respond = newRedirect(o.Redirect)
		r.action = "redirect to " + o.Redirect.To
	case o.Respond != nil:
		r.respond = newFixed(o.Respond)
		r.action = fmt.Sprintf("respond %d", o.Respond.Status)
	default:
		r.action = "upstream " + o.Upstream
		r.needs = middleware.NewNeeds(o.NeedsOptions, s.dependencies)
		r.target = g.newTarget(s, r, o, o.Upstream)
		r.target.cache = g.newCache(s, o, o.Upstream)
		r.split = g.newSplit(s, r, o)
		if o.Mirror != nil {
			r.mirror = g.newShadow(s, r, o)
		}
	}
	return r, nil
}

func (g *Gateway) newTarget(s *Snapshot, r *route, o *config.Route, name string) *target {
	pool := s.pools[name]
	u := pool.Options
	pool.Hedging(o.Hedge)
	return &target{
		route:    r,
		pool:     pool,
		hedging:  o.Hedge,
		intents:  newIntents(u, o.Priority),
		repeats:  u.Retry.Causes(),
		attempts: u.Retry.Attempts,
		host:     u.Host,
		duration: g.metrics.Histogram("gateway_upstream_duration_seconds",
			"Time from the first attempt until the head of the response.", "upstream", name),
		connectTimeout:   either(o.ConnectTimeout, u.ConnectTimeout),
		firstByteTimeout: either(o.FirstByteTimeout, u.FirstByteTimeout),
		betweenTimeout:   either(o.BetweenTimeout, u.BetweenTimeout),
	}
}

// newCache builds the cache stage for one of a route's upstreams. Each has a room
// of its own: shares of clients see different versions of a site.
func (g *Gateway) newCache(s *Snapshot, o *config.Route, upstream string) *middleware.Cache {
	if o.Cache.Value == nil {
		return nil
	}
	options := *o.Cache.Value
	if options.Namespace == "" {
		options.Namespace = o.Name
	}
	if upstream != o.Upstream {
		options.Namespace += "/" + upstream
	}
	if options.TTL == 0 {
		options.TTL = s.config.Cache.TTL
	}
	stage := middleware.NewCache(options, &s.config.Cache, s.cache, o.Name, g.metrics)
	stage.Policy.Protected = o.JWT.Value != nil
	s.policies = append(s.policies, stage.Policy)
	return stage
}

// either is the route's own value where it has one.
func either(own, inherited time.Duration) time.Duration {
	if own > 0 {
		return own
	}
	return inherited
}

// match finds the first route that takes the request, nil without one.
func (s *Snapshot) match(x *exchange.Exchange) *route {
	i := s.router.Match(&x.Request, x.Scheme)
	if i < 0 {
		return nil
	}
	return s.routes[i]
}

// close gives the pools back. Requests under way end on them.
func (s *Snapshot) close() {
	for _, r := range s.routes {
		r.mirror.close()
	}
	for _, p := range s.pools {
		p.Close()
	}
	s.dependencies.Close()
}

// discard gives back all that a snapshot holds which never took over. The
// limits of one that did are ended by those of its successor.
func (s *Snapshot) discard() {
	s.limits.Close()
	s.tier.discard()
	s.close()
}

// excuse keeps a pool's servers in use while a dependency of one of its routes
// fails, as far as they can be reached. One failed probe is enough, and while
// none has been made since the servers began to fail, the verdict about them
// waits. Pools are shared with the snapshot before this one, so it is done when
// this one takes over.
func (s *Snapshot) excuse() {
	for _, p := range s.pools {
		var needs []*middleware.Needs
		for _, r := range s.routes {
			if r.needs != nil && r.uses(p) {
				needs = append(needs, r.needs)
			}
		}
		if needs == nil {
			p.Excuse(nil, nil)
			continue
		}
		p.Excuse(
			func() bool { return slices.ContainsFunc(needs, (*middleware.Needs).Failing) },
			func(since int64) bool {
				return slices.ContainsFunc(needs, func(n *middleware.Needs) bool { return n.Doubtful(since) })
			})
	}
}

// methods are the values of the method label, by wire.Method.
func methods() []string {
	names := make([]string, wire.MethodCount)
	for m := range names {
		names[m] = wire.Method(m).String()
	}
	return names
}
