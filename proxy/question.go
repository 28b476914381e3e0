package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"gateway/config"
	"gateway/exchange"
	"gateway/internal/clock"
	"gateway/metrics"
	"gateway/middleware"
	"gateway/middleware/compress"
	"gateway/middleware/ratelimit"
	"gateway/upstream"
	"gateway/upstream/dependency"
	"gateway/wire"
)

// Question is a request that is to be explained.
type Question struct {
	URL    string   // http://… or https://…
	Method string   // "" for GET
	Fields []string // "Name: value"; a Host among them stands for that of the URL
	Client string   // the address that the request comes from, "" for 127.0.0.1
}

// maxFields bounds the fields of a question.
const maxFields = 1000

// fill makes the exchange that of the question. The error says what is wrong
// with the question; a head that the gateway refuses is none.
func (q *Question) fill(x *exchange.Exchange, l wire.Limits) error {
	scheme, rest, found := strings.Cut(q.URL, "://")
	if scheme = strings.ToLower(scheme); !found || scheme != "http" && scheme != "https" {
		return fmt.Errorf("unexpected URL %q; want one such as https://api.example.com/users", q.URL)
	}
	rest, _, _ = strings.Cut(rest, "#")
	host, target := rest, ""
	if at := strings.IndexAny(rest, "/?"); at >= 0 {
		host, target = rest[:at], rest[at:]
	}
	if target == "" || target[0] == '?' {
		target = "/" + target
	}
	if host == "" {
		return fmt.Errorf("the URL %q has no host", q.URL)
	}
	if len(q.Fields) > maxFields {
		return fmt.Errorf("%d fields; want at most %d", len(q.Fields), maxFields)
	}
	method := q.Method
	if method == "" {
		method = "GET"
	}
	if strings.ContainsAny(method+target+host, " \r\n") {
		return errors.New("a method and a URL have no spaces in them")
	}
	var fields strings.Builder
	for _, f := range q.Fields {
		name, value, found := strings.Cut(f, ":")
		if !found || name == "" || strings.ContainsAny(f, "\r\n") {
			return fmt.Errorf("unexpected field %q; want \"Name: value\"", f)
		}
		if strings.EqualFold(name, "host") {
			host = strings.TrimSpace(value)
			continue
		}
		fmt.Fprintf(&fields, "%s: %s\r\n", name, strings.TrimSpace(value))
	}
	client := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if q.Client != "" {
		var err error
		if client, err = netip.ParseAddr(q.Client); err != nil {
			return fmt.Errorf("unexpected client %q; want an address such as 192.0.2.1", q.Client)
		}
	}
	x.Peer, x.Secure, x.Start = netip.AddrPortFrom(client, 0), scheme == "https", clock.Mono()
	x.Fault = x.Request.ParseParts([]byte(method), []byte(target), []byte("HTTP/1.1"), []byte("Host: "+host+"\r\n"+fields.String()), &l)
	return nil
}

// answer explains the question on a snapshot.
func (s *Snapshot) answer(q Question) (*Explanation, error) {
	x := exchange.Acquire()
	defer exchange.Release(x)
	if err := q.fill(x, s.config.Client.Limits()); err != nil {
		return nil, err
	}
	s.explainer.Asked(x) // takes the field off, as on live traffic
	return s.explain(x), nil
}

// Explain tells what would become of a request now. Nothing is forwarded,
// counted or taken. The error says what is wrong with the question.
func (g *Gateway) Explain(q Question) (*Explanation, error) {
	g.explaining.RLock() // stored responses stay where they are meanwhile
	defer g.explaining.RUnlock()
	select {
	case <-g.closed:
		return nil, errStopping
	default:
	}
	return g.snapshot.Load().answer(q)
}

// Offline explains requests by a configuration alone: no socket is bound, no
// name looked up, no server, database or Redis asked. Every bucket is full and
// the cache empty.
type Offline struct {
	g *Gateway
	s *Snapshot
}

// NewOffline builds what a configuration that is valid describes. Close ends it.
// The error is that of a file that the configuration names.
func NewOffline(c *config.Config) (*Offline, error) {
	log := slog.New(slog.DiscardHandler)
	g := &Gateway{log: log, metrics: metrics.New(), closed: make(chan struct{})}
	g.counters = newCounters(g.metrics)
	g.servers = upstream.NewRegistry(upstream.RegistryOptions{Log: log, Resolver: noNames{}})
	g.dependencies = dependency.NewRegistry(dependency.RegistryOptions{Log: log, Metrics: g.metrics})
	g.limits = ratelimit.NewRegistry(g.metrics, log)
	g.compress = compress.NewEngine(g.metrics)
	s, err := g.build(context.Background(), alone(c))
	if err != nil {
		g.servers.Close()
		g.dependencies.Close()
		return nil, err
	}
	s.offline, s.config = true, c
	return &Offline{g, s}, nil
}

// Explain tells what would become of a request; see Gateway.Explain.
func (o *Offline) Explain(q Question) (*Explanation, error) { return o.s.answer(q) }

// Sign is the field that makes a running gateway with this configuration
// explain the request in its answer.
func (o *Offline) Sign(q Question) (string, error) {
	if o.s.explainer == nil {
		return "", errors.New(`explain.secret: missing; want [explain] with secret = "${EXPLAIN_SECRET}"`)
	}
	x := exchange.Acquire()
	defer exchange.Release(x)
	if err := q.fill(x, o.s.config.Client.Limits()); err != nil {
		return "", err
	}
	if x.Fault != wire.NoFault {
		return "", fmt.Errorf("the gateway refuses the request: %v", x.Fault)
	}
	return middleware.ExplainField + ": " + o.s.explainer.Sign(x, clock.Wall()), nil
}

// Close gives back what NewOffline has taken.
func (o *Offline) Close() error {
	o.s.discard()
	o.g.servers.Close()
	o.g.dependencies.Close()
	if o.g.cache == nil {
		return nil
	}
	return o.g.cache.Close()
}

// alone is the configuration without whatever it would talk to.
func alone(c *config.Config) *config.Config {
	own := *c
	own.Upstreams = maps.Clone(c.Upstreams)
	for name, o := range own.Upstreams {
		o.Health.On = false
		own.Upstreams[name] = o
	}
	own.Dependencies = nil
	own.Limits = maps.Clone(c.Limits)
	for name, o := range own.Limits {
		o.Store = "local"
		own.Limits[name] = o
	}
	own.Routes = slices.Clone(c.Routes)
	for i := range own.Routes {
		limits := slices.Clone(own.Routes[i].Limit)
		for j, l := range limits {
			if l.Value != nil {
				o := *l.Value
				o.Store = "local"
				limits[j].Value = &o
			}
		}
		own.Routes[i].Limit = limits
	}
	own.Cache.Redis, own.Cache.Memory = false, 1<<20
	return &own
}

// noNames finds no host names.
type noNames struct{}

var errNotLookedUp = errors.New("host names are not looked up")

func (noNames) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return nil, errNotLookedUp
}

var _ io.Closer = (*Offline)(nil)
