package proxy

import (
	"sync/atomic"

	"gateway/exchange"
	"gateway/listener"
	"gateway/metrics"
	"gateway/upstream"
)

// counters are the gateway's own metrics that belong to no route.
type counters struct {
	inFlight        *metrics.Level
	ended           [exchange.ReasonCount]*metrics.Counter
	panics          *metrics.Counter
	spliced         *metrics.Counter
	refreshes       [refreshResults]*metrics.Counter
	reloadsApplied  *metrics.Counter
	reloadsRejected *metrics.Counter
	reloadOK        *metrics.Gauge
	accessDropped   atomic.Uint64 // lines, by access logs that were replaced
}

// unrouted is the route label of requests that no route took: those that were
// refused, and those that match nothing.
const unrouted = "none"

func newCounters(r *metrics.Registry) *counters {
	const (
		ended   = "Exchanges by who ended them, and in which phase."
		reloads = "Configuration reloads by result."
	)
	c := &counters{
		inFlight:        r.Level("gateway_http_in_flight", "Requests being served now."),
		panics:          r.Counter("gateway_panics_total", "Panics that were contained; each is a bug."),
		spliced:         r.Counter("gateway_http_response_spliced_bytes_total", "Bytes of response bodies that went from the server's socket to the client's without being copied."),
		reloadsApplied:  r.Counter("gateway_config_reloads_total", reloads, "result", "applied"),
		reloadsRejected: r.Counter("gateway_config_reloads_total", reloads, "result", "rejected"),
		reloadOK:        r.Gauge("gateway_config_last_reload_successful", "Whether the last configuration was put to work (1) or rejected (0)."),
	}
	for reason := range c.ended {
		c.ended[reason] = r.Counter("gateway_ended_total", ended, "reason", exchange.Reason(reason).String())
	}
	for result, name := range refreshNames {
		c.refreshes[result] = r.Counter("gateway_cache_refreshes_total", "Stored responses that were to be renewed while they were served, by what became of it.", "result", name)
	}
	c.reloadOK.Set(1)
	return c
}

// routeMetrics are the counters of a route, by its name: they survive reloads.
func (g *Gateway) routeMetrics(name string) *exchange.Metrics {
	return &exchange.Metrics{
		Requests: g.metrics.Requests(name, methods()),
		BytesIn:  g.metrics.Counter("gateway_http_request_bytes_total", "Bytes of request bodies read from clients.", "route", name),
		BytesOut: g.metrics.Counter("gateway_http_response_bytes_total", "Bytes of response bodies written to clients.", "route", name),
	}
}

// collectPools registers what is read from the pools at each scrape: servers
// come and go, and what they count lives with them.
func (g *Gateway) collectPools() {
	each := func(f func(*upstream.Pool)) {
		s := g.snapshot.Load()
		if s == nil {
			return
		}
		for _, name := range s.poolNames {
			f(s.pools[name])
		}
	}
	server := func(value func(*upstream.Server) float64) func(*metrics.Samples) {
		return func(m *metrics.Samples) {
			each(func(p *upstream.Pool) {
				for _, s := range p.Servers() {
					m.Add(value(s), "upstream", p.Name, "server", s.Name)
				}
			})
		}
	}
	r := g.metrics
	r.CollectGauge("gateway_upstream_up", "Whether a server may get requests (1) or is down, drained, disabled or ejected (0).",
		server(func(s *upstream.Server) float64 {
			if s.Usable() {
				return 1
			}
			return 0
		}))
	r.CollectGauge("gateway_upstream_in_flight", "Requests in flight to a server.",
		server(func(s *upstream.Server) float64 { return float64(s.InFlight()) }))
	r.CollectGauge("gateway_upstream_connections", "Connections to a server, by state.", func(m *metrics.Samples) {
		each(func(p *upstream.Pool) {
			for _, s := range p.Servers() {
				open, idle := s.Stats()
				m.Add(float64(open-idle), "upstream", p.Name, "server", s.Name, "state", "active")
				m.Add(float64(idle), "upstream", p.Name, "server", s.Name, "state", "idle")
			}
		})
	})
	r.CollectCounter("gateway_upstream_ejections_total", "How often a server was taken out of use because it failed requests, by cause.", func(m *metrics.Samples) {
		each(func(p *upstream.Pool) {
			for _, s := range p.Servers() {
				for c := range upstream.EjectCauseCount {
					m.Add(float64(s.Ejections(c)), "upstream", p.Name, "server", s.Name, "cause", c.String())
				}
			}
		})
	})
	r.CollectGauge("gateway_upstream_queue_length", "Requests that wait for a server.", func(m *metrics.Samples) {
		each(func(p *upstream.Pool) { m.Add(float64(p.QueueStats().Waiting), "upstream", p.Name) })
	})
	r.CollectCounter("gateway_upstream_queued_total", "Requests that had to wait for a server.", func(m *metrics.Samples) {
		each(func(p *upstream.Pool) { m.Add(float64(p.QueueStats().Queued), "upstream", p.Name) })
	})
	r.CollectCounter("gateway_upstream_queue_refused_total", "Requests that found the queue full, or waited in it in vain.", func(m *metrics.Samples) {
		each(func(p *upstream.Pool) {
			q := p.QueueStats()
			m.Add(float64(q.Refused), "upstream", p.Name, "cause", "full")
			m.Add(float64(q.TimedOut), "upstream", p.Name, "cause", "timeout")
		})
	})
	r.CollectGauge("gateway_upstream_limit", "Requests in flight that adaptive allows a pool; 0 without it.", func(m *metrics.Samples) {
		each(func(p *upstream.Pool) {
			limit, _ := p.Limit()
			m.Add(float64(limit), "upstream", p.Name)
		})
	})
	r.CollectCounter("gateway_upstream_limited_total", "Requests that adaptive did not admit at once.", func(m *metrics.Samples) {
		each(func(p *upstream.Pool) {
			_, refused := p.Limit()
			m.Add(float64(refused), "upstream", p.Name)
		})
	})
	r.CollectCounter("gateway_upstream_requests_total", "Attempts at a server, by how they ended.", func(m *metrics.Samples) {
		each(func(p *upstream.Pool) {
			for _, s := range p.Servers() {
				for o := range upstream.OutcomeCount {
					m.Add(float64(s.Outcomes(o)), "upstream", p.Name, "server", s.Name, "result", o.String())
				}
			}
		})
	})
	r.CollectCounter("gateway_upstream_server_errors_total", "Responses of a server with status 500 and above.",
		server(func(s *upstream.Server) float64 { return float64(s.ServerErrors()) }))
	r.CollectCounter("gateway_retries_total", "Attempts that were repeated, by the result that made it necessary.", func(m *metrics.Samples) {
		each(func(p *upstream.Pool) {
			for o := range upstream.OutcomeCount {
				switch {
				case o == upstream.OK:
					m.Add(float64(p.Retries(o)), "upstream", p.Name, "result", "status")
				case o.Repeatable():
					m.Add(float64(p.Retries(o)), "upstream", p.Name, "result", o.String())
				}
			}
		})
	})
	r.CollectCounter("gateway_hedges_total", "Second attempts beside slow ones, by whether their response was used (won) or not (lost).", func(m *metrics.Samples) {
		each(func(p *upstream.Pool) {
			won, lost := p.Hedges()
			m.Add(float64(won), "upstream", p.Name, "result", "won")
			m.Add(float64(lost), "upstream", p.Name, "result", "lost")
		})
	})
	r.CollectCounter("gateway_retry_budget_exhausted_total", "Attempts that were not repeated because the budget did not allow it.", func(m *metrics.Samples) {
		each(func(p *upstream.Pool) { m.Add(float64(p.Exhausted()), "upstream", p.Name) })
	})
}

// collectConnections registers what is read from the sockets at each scrape.
func (g *Gateway) collectConnections() {
	socket := func(value func(*listener.Socket) float64) func(*metrics.Samples) {
		return func(m *metrics.Samples) {
			for _, s := range g.front.Sockets() {
				m.Add(value(s), "listener", s.Address().String())
			}
		}
	}
	r := g.metrics
	r.CollectGauge("gateway_connections_active", "Client connections that are open.",
		socket(func(s *listener.Socket) float64 { return float64(s.Active()) }))
	r.CollectCounter("gateway_connections_total", "Client connections accepted, refused ones included.",
		socket(func(s *listener.Socket) float64 { return float64(s.Accepted()) }))
	r.CollectCounter("gateway_accept_errors_total", "Failures to accept a connection, such as no free descriptor.",
		socket(func(s *listener.Socket) float64 { return float64(s.Failed()) }))
	const refused = "Client connections refused because of a limit."
	r.CollectCounter("gateway_connections_refused_total", refused, func(m *metrics.Samples) {
		st := g.front.Stats()
		m.Add(float64(st.RefusedTotal), "limit", "max_connections")
		m.Add(float64(st.RefusedClient), "limit", "max_connections_per_ip")
	})
	r.CollectCounter("gateway_access_log_dropped_total", "Access log lines that were dropped because the output is slow or fails.", func(m *metrics.Samples) {
		m.Add(float64(g.counters.accessDropped.Load() + g.access.Load().Dropped()))
	})
	r.CollectGauge("gateway_tls_certificate_expiry_seconds", "When a certificate expires, in seconds since 1970.", func(m *metrics.Samples) {
		for _, e := range g.keys.Load().Expiries() {
			m.Add(float64(e.NotAfter.Unix()), "name", e.Name)
		}
	})
}

// Flip counts a server that checks found down, or up again. It implements
// upstream.Observer.
func (g *Gateway) Flip(pool, server string, up bool, _ string) {
	to := "down"
	if up {
		to = "up"
	}
	g.metrics.Counter("gateway_upstream_health_changes_total", "Changes of a server's health, by what it became.",
		"upstream", pool, "server", server, "to", to).Inc()
}
