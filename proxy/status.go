package proxy

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"gateway/exchange"
	"gateway/metrics"
	"gateway/middleware/ratelimit"
	"gateway/upstream"
	"gateway/upstream/dependency"
)

// Health is the answer of /healthz: every part with its state.
type Health struct {
	Status    string                `json:"status"` // "healthy" or "unhealthy"
	Timestamp time.Time             `json:"timestamp"`
	Version   string                `json:"version"`
	Ready     bool                  `json:"ready"`  // listeners serve, no shutdown has begun; dependencies by option
	Config    ConfigHealth          `json:"config"` // of the last reload
	Upstreams map[string]PoolHealth `json:"upstreams"`

	// Dependencies are "connected", "disconnected", or "unknown" before their
	// first probe.
	Dependencies map[string]string `json:"dependencies"`
}

// ConfigHealth says whether the running configuration is the one in the file.
type ConfigHealth struct {
	Status string    `json:"status"` // "current" or "rejected": the last reload failed, the old one runs on
	Loaded time.Time `json:"loaded"`
	Error  string    `json:"error,omitempty"`
}

// PoolHealth counts the servers of a pool.
type PoolHealth struct {
	Status  string `json:"status"` // "healthy", "degraded" or "unhealthy"
	Servers int    `json:"servers"`
	Usable  int    `json:"usable"`
}

// Status is the answer of /status.
type Status struct {
	Version     string                `json:"version"`
	Started     time.Time             `json:"started"`
	Uptime      float64               `json:"uptime_seconds"`
	State       string                `json:"state"` // "starting", "serving" or "draining"
	Connections int64                 `json:"connections"`
	InFlight    int64                 `json:"in_flight"`
	Reloads     ReloadStatus          `json:"reloads"`
	Listeners   []ListenerStatus      `json:"listeners"`
	Routes      []RouteStatus         `json:"routes"`
	Unrouted    RouteStatus           `json:"unrouted"` // requests that no route took
	Upstreams   []upstream.PoolStatus `json:"upstreams"`

	Dependencies []dependency.Status `json:"dependencies"`
	Limits       []LimitStatus       `json:"limits"`
	Cache        *CacheStatus        `json:"cache"` // null when no route caches
}

// ReloadStatus counts configuration changes.
type ReloadStatus struct {
	Applied  int64     `json:"applied"`
	Rejected int64     `json:"rejected"`
	Last     time.Time `json:"last"`
	Error    string    `json:"error,omitempty"` // of the last one, when it was rejected
}

// ListenerStatus is one address that clients connect to.
type ListenerStatus struct {
	Address     string `json:"address"`
	Connections int64  `json:"connections"`
}

// RouteStatus is one route, in the order in which routes are tried.
type RouteStatus struct {
	Name     string `json:"name"`
	Match    string `json:"match"`
	Action   string `json:"action"`
	Requests uint64 `json:"requests"`

	Statuses [6]uint64 `json:"statuses"` // of them by class: none, 1xx to 5xx
	Seconds  float64   `json:"seconds"`  // that they took together
	BytesOut uint64    `json:"bytes_out"`
}

// LimitStatus is a limit policy, with its decisions so far.
type LimitStatus struct {
	Name   string `json:"name"`
	Limit  string `json:"limit"`  // what it allows, in words
	Client string `json:"client"` // what makes a client, in words

	Decisions map[string]uint64 `json:"decisions"` // "allowed", "delayed", "denied" and so on
}

// CacheStatus is the cache of all routes.
type CacheStatus struct {
	Bytes     uint64            `json:"bytes"`
	Capacity  uint64            `json:"capacity_bytes"`
	Entries   uint64            `json:"entries"`
	Results   map[string]uint64 `json:"results"`   // requests by what the cache did
	Evictions map[string]uint64 `json:"evictions"` // entries by why they are gone
}

// Health looks at every part. It takes no lock of the request path.
func (g *Gateway) Health() Health {
	s := g.snapshot.Load()
	h := Health{
		Status:    "healthy",
		Timestamp: time.Now().UTC(),
		Version:   g.version,
		Ready:     g.Ready(),
		Config:    ConfigHealth{Status: "current", Loaded: s.loaded.UTC()},
		Upstreams: make(map[string]PoolHealth, len(s.pools)),

		Dependencies: make(map[string]string),
	}
	if problem := g.reloadProblem.Load(); problem != nil {
		h.Config.Status, h.Config.Error = "rejected", *problem
	}
	for name, pool := range s.pools {
		p := PoolHealth{Status: "healthy"}
		for _, server := range pool.Servers() {
			p.Servers++
			if server.Usable() {
				p.Usable++
			}
		}
		switch {
		case p.Usable == 0:
			p.Status, h.Status = "unhealthy", "unhealthy"
		case p.Usable < p.Servers:
			p.Status = "degraded"
		}
		h.Upstreams[name] = p
	}
	for _, d := range s.dependencies.Status() {
		h.Dependencies[d.Name] = d.State
		if d.State == dependency.Disconnected.String() {
			h.Status = "unhealthy"
		}
	}
	if !h.Ready {
		h.Status = "unhealthy"
	}
	return h
}

// Ready reports whether listeners serve, no shutdown has begun, and no
// dependency is down on which readiness depends.
func (g *Gateway) Ready() bool {
	return state(g.state.Load()) == serving && g.snapshot.Load().dependencies.Ready()
}

// Status describes what runs.
func (g *Gateway) Status() Status {
	s := g.snapshot.Load()
	st := Status{
		Version:  g.version,
		Started:  g.started.UTC(),
		Uptime:   time.Since(g.started).Seconds(),
		State:    state(g.state.Load()).String(),
		InFlight: g.counters.inFlight.Value(),
		Reloads: ReloadStatus{
			Applied:  int64(g.counters.reloadsApplied.Value()),
			Rejected: int64(g.counters.reloadsRejected.Value()),
			Last:     s.loaded.UTC(),
		},
	}
	for _, l := range g.front.Sockets() {
		st.Listeners = append(st.Listeners, ListenerStatus{Address: l.Address().String(), Connections: l.Active()})
	}
	st.Connections = int64(g.front.Stats().Active)
	st.Dependencies = s.dependencies.Status()
	if problem := g.reloadProblem.Load(); problem != nil {
		st.Reloads.Error = *problem
	}
	for _, r := range s.routes {
		st.Routes = append(st.Routes, routeStatus(r.info.Name, r.rule, r.action, r.info.Metrics))
	}
	st.Unrouted = routeStatus(unrouted, "", "", g.unrouted.Metrics)
	st.Limits = g.limitStatus(s)
	st.Cache = g.cacheStatus()
	for _, name := range s.poolNames {
		st.Upstreams = append(st.Upstreams, s.pools[name].Status())
	}
	return st
}

func routeStatus(name, match, action string, m *exchange.Metrics) RouteStatus {
	var t metrics.Totals
	m.Requests.AddTo(&t)
	return RouteStatus{Name: name, Match: match, Action: action, Requests: t.Requests(),
		Statuses: t.Statuses, Seconds: t.Time.Seconds(), BytesOut: m.BytesOut.Value()}
}

func (g *Gateway) limitStatus(s *Snapshot) []LimitStatus {
	list := []LimitStatus{}
	all := s.config.AllLimits()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		o := all[name]
		list = append(list, LimitStatus{Name: name, Limit: describeLimit(&o), Client: describeKey(&o), Decisions: map[string]uint64{}})
	}
	g.metrics.Each("gateway_limit_decisions_total", func(value float64, labels []string) {
		for i := range list {
			if list[i].Name == label(labels, "policy") {
				list[i].Decisions[label(labels, "decision")] += uint64(value)
			}
		}
	})
	return list
}

func describeLimit(o *ratelimit.Options) string {
	switch {
	case o.Concurrency > 0:
		return fmt.Sprintf("%d at the same time", o.Concurrency)
	case o.Bandwidth > 0:
		return o.Bandwidth.String() + "/s"
	}
	return o.Rate.String()
}

func describeKey(o *ratelimit.Options) string {
	var words []string
	for i := range o.Key {
		words = append(words, o.Key[i].String())
	}
	return strings.Join(words, ", ")
}

func (g *Gateway) cacheStatus() *CacheStatus {
	c := &CacheStatus{
		Bytes:     uint64(g.metrics.Sum("gateway_cache_bytes")),
		Capacity:  uint64(g.metrics.Sum("gateway_cache_capacity_bytes")),
		Entries:   uint64(g.metrics.Sum("gateway_cache_entries")),
		Results:   map[string]uint64{},
		Evictions: map[string]uint64{},
	}
	g.metrics.Each("gateway_cache_requests_total", func(value float64, labels []string) {
		c.Results[label(labels, "result")] += uint64(value)
	})
	g.metrics.Each("gateway_cache_evictions_total", func(value float64, labels []string) {
		c.Evictions[label(labels, "cause")] += uint64(value)
	})
	if len(c.Results) == 0 {
		return nil
	}
	return c
}

// Config is the running configuration as TOML, defaults filled in and secrets
// masked.
func (g *Gateway) Config() []byte { return g.snapshot.Load().config.Effective() }

// WriteMetrics writes all metrics in Prometheus' text format.
func (g *Gateway) WriteMetrics(w io.Writer) error { return g.metrics.WritePrometheus(w) }
