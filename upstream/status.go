package upstream

import (
	"time"

	"gateway/internal/health"
)

// PoolStatus is a pool as an operator sees it.
type PoolStatus struct {
	Name    string         `json:"name"`
	Balance string         `json:"balance"`
	Usable  int            `json:"usable"`          // servers that may be picked, backups included
	Panic   bool           `json:"panic,omitempty"` // so many are ejected that ejections are ignored
	Limit   int64          `json:"limit,omitempty"` // of requests in flight, found by adaptive
	Refused uint64         `json:"refused,omitempty"`
	Queue   *QueueStats    `json:"queue,omitempty"` // nil without a queue
	Servers []ServerStatus `json:"servers"`
	Names   []NameStatus   `json:"names,omitempty"`
}

// ServerStatus is a server as an operator sees it.
type ServerStatus struct {
	Address        string    `json:"address"`
	State          string    `json:"state"`            // up, down, unknown; or ejected, trial, drained or disabled whatever its health
	Usable         bool      `json:"usable"`           // may be picked
	Reason         string    `json:"reason,omitempty"` // why the last check failed
	Since          time.Time `json:"since"`            // when the health changed last, or the server was first known
	Weight         int       `json:"weight"`           // as configured, or as an operator set it
	WeightSet      bool      `json:"weight_set,omitempty"`
	Share          int64     `json:"slow_start_percent,omitempty"` // of its weight that it has while it is in slow start
	EjectedFor     float64   `json:"ejected_for_seconds,omitempty"`
	Ejections      Ejections `json:"ejections,omitzero"` // so far, by cause
	Backup         bool      `json:"backup,omitempty"`
	MaxConnections int64     `json:"max_connections,omitempty"`
	InFlight       int64     `json:"in_flight"`
	Open           int       `json:"open_connections"` // idle ones included
	Idle           int       `json:"idle_connections"`
	Requests       uint64    `json:"requests"`   // attempts that ended
	Failures       uint64    `json:"failures"`   // of them: held against the server
	Latency        float64   `json:"latency_ms"` // moving average until the head of the response
}

// Ejections counts a server's ejections by cause.
type Ejections struct {
	Consecutive uint64 `json:"consecutive"`
	FailureRate uint64 `json:"failure_rate"`
	Trial       uint64 `json:"trial"`
}

// NameStatus is a host name as an operator sees it.
type NameStatus struct {
	Name      string `json:"name"`
	Addresses int    `json:"addresses"`
	Error     string `json:"error,omitempty"` // of the last lookup
}

// Status describes the pool. Cold path.
func (p *Pool) Status() PoolStatus {
	set := p.set.Load()
	status := PoolStatus{Name: p.Name, Balance: p.Options.Balance, Usable: set.usable, Panic: set.panics, Servers: []ServerStatus{}}
	status.Limit, status.Refused = p.Limit()
	if p.Options.Queue > 0 {
		queue := p.QueueStats()
		status.Queue = &queue
	}
	for _, s := range set.servers {
		status.Servers = append(status.Servers, s.status())
	}
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	for _, e := range p.entries {
		if e.name != nil {
			n := NameStatus{Name: e.target.name, Addresses: len(e.name.places)}
			if e.name.err != nil {
				n.Error = e.name.err.Error()
			}
			status.Names = append(status.Names, n)
		}
	}
	return status
}

func (s *Server) status() ServerStatus {
	o := s.origin
	open, idle := o.Stats()
	st := ServerStatus{
		Address:        s.Name,
		Usable:         s.Usable(),
		Weight:         s.weight(),
		WeightSet:      s.tally.weight.Load() > 0,
		Backup:         s.Backup,
		MaxConnections: s.limit,
		InFlight:       max(s.InFlight(), 0),
		Open:           open,
		Idle:           idle,
		Failures:       s.tally.failures(),
		Latency:        float64(o.latency.Load()) / float64(time.Millisecond),
	}
	for o := range OutcomeCount {
		st.Requests += s.tally.ended(o)
	}
	o.mu.Lock()
	st.State, st.Reason, st.Since = s.Health().String(), o.reason, o.since
	o.mu.Unlock()
	t, now := s.tally, s.pool.registry.now()
	st.Ejections = Ejections{s.Ejections(EjectedInARow), s.Ejections(EjectedByRate), s.Ejections(EjectedOnTrial)}
	if part, _ := t.part(now, s.pool.Options.SlowStart); part < whole {
		st.Share = part
	}
	until := t.until.Load()
	if until != 0 {
		st.EjectedFor = max(time.Duration(until-now), 0).Seconds()
	}
	switch {
	case s.order() != Enabled:
		st.State = s.order().String()
	case s.Health() == health.Down:
	case until != 0:
		st.State = "ejected"
	case t.trial.Load() != noTrial:
		st.State = "trial"
	}
	return st
}
