package upstream

import (
	"time"

	"gateway/internal/health"
)

// Candidates are the servers of a pool as a request would find them.
type Candidates struct {
	Pool    string `json:"upstream"`
	Line    int    `json:"line,omitempty"` // of the file; whoever knows the file sets it
	Balance string `json:"balance"`

	// Verdict is what a pick would say now: picked, no_server, all_full or
	// overloaded.
	Verdict string `json:"verdict"`
	// Next is the server that the next pick takes if nobody else picks before,
	// "" when that is drawn.
	Next string `json:"next,omitempty"`
	// Why says how Next follows: "sticky", "hash", "turn" or "only".
	Why string `json:"why,omitempty"`

	Panic   bool         `json:"panic,omitempty"` // so many are ejected that ejections are ignored
	Servers []Candidate  `json:"servers"`
	Names   []NameStatus `json:"names,omitempty"`
	Unknown []string     `json:"not_looked_up,omitempty"` // host names, where none are looked up; set by the caller
}

// Candidate is one of them.
type Candidate struct {
	Address  string `json:"address"`
	State    string `json:"state"` // as in ServerStatus
	Eligible bool   `json:"eligible"`
	Why      string `json:"why,omitempty"` // why it is not
	Weight   int64  `json:"weight"`        // in use, in relation to those of the others; slow start included
	Backup   bool   `json:"backup,omitempty"`
	InFlight int64  `json:"in_flight"`
	Most     int64  `json:"max_connections,omitempty"`

	// Score is what the balancing compares, the smaller the better: requests in
	// flight by weight, for peak_ewma the latency in ms times one more than
	// that. 0 for others, and for a server of which peak_ewma knows nothing.
	Score   float64 `json:"score"`
	Latency float64 `json:"latency_ms"` // moving average until the head of the response
}

// Candidates tells what a pick for the intent would find, without picking, and
// what it would say. That is out of date as soon as others pick. Cold path.
func (p *Pool) Candidates(in Intent) (Candidates, Verdict) {
	set, now := p.set.Load(), p.registry.now()
	c := Candidates{Pool: p.Name, Balance: p.Options.Balance, Panic: set.panics, Servers: []Candidate{}, Names: p.Status().Names}
	primaries := false
	for _, s := range set.servers {
		primaries = primaries || !s.Backup && s.Usable()
	}
	for _, s := range set.servers {
		c.Servers = append(c.Servers, s.candidate(now, primaries))
	}
	next, verdict, why := p.preview(set, in)
	c.Verdict = verdict.String()
	if next != nil {
		c.Next, c.Why = next.Name, why
	}
	return c, verdict
}

func (s *Server) candidate(now int64, primaries bool) Candidate {
	status := s.status()
	part, _ := s.tally.part(now, s.pool.Options.SlowStart)
	c := Candidate{
		Address: s.Name, State: status.State, Eligible: true, Backup: s.Backup,
		Weight: int64(s.weight()) * part / whole, InFlight: status.InFlight, Most: s.limit, Latency: status.Latency,
	}
	switch s.pool.Options.Balance {
	case "least_conn", "p2c":
		c.Score = float64(c.InFlight) / float64(max(c.Weight, 1))
	case "peak_ewma":
		c.Score = s.tally.peak.read(now) / float64(time.Millisecond) * (float64(c.InFlight)/float64(max(c.Weight, 1)) + 1)
	}
	switch {
	case s.order() != Enabled:
		c.Why = s.order().String()
	case s.Health() == health.Down:
		c.Why = "down"
		if status.Reason != "" {
			c.Why += ": " + status.Reason
		}
	case !s.Usable():
		c.Why = "ejected for " + (time.Duration(status.EjectedFor * float64(time.Second))).Round(time.Millisecond).String()
	case s.full(c.InFlight):
		c.Why = "full"
		if s.tally.trial.Load() == trialUnderWay {
			c.Why = "on trial with another request"
		}
	case s.Backup && primaries:
		c.Why = "backup, and others are usable"
	}
	c.Eligible = c.Why == ""
	return c
}

// preview is pick without a trace. The server is nil when it is drawn, or when
// there is none.
func (p *Pool) preview(set *set, in Intent) (*Server, Verdict, string) {
	if p.Options.Queue > 0 && p.ledger.queue.waiting.Load() > 0 {
		return nil, AllFull, ""
	}
	if p.adaptive != nil {
		limit := p.adaptive.limit.Load()
		if in.Low {
			limit -= (limit + 9) / 10
		}
		if p.ledger.inFlight.Load()+1 > limit {
			return nil, Overloaded, ""
		}
	}
	if s := set.tokens[string(in.Token)]; s != nil && len(in.Token) > 0 && s.room() {
		return s, Picked, "sticky"
	}
	picker := set.primary
	if picker == nil {
		picker = set.backup
	}
	switch k := picker.(type) {
	case *roundRobin:
		at := int(k.turn.Load() % uint64(len(k.sequence)))
		for i := range k.sequence {
			if s := k.sequence[(at+i)%len(k.sequence)]; s.room() {
				return s, Picked, only(set, "turn")
			}
		}
		return nil, AllFull, ""
	case *leastConn:
		if s, verdict := k.least(new(Tried), int(k.order[k.turn.Load()%uint64(len(k.order))])); s != nil {
			return s, verdict, only(set, "turn")
		}
		return nil, AllFull, ""
	case *maglev:
		return k.preview(in.Key)
	case *twoChoices:
		var one *Server
		for _, m := range k.sequence {
			if !m.room() {
				continue
			}
			if one != nil && one != m.Server {
				return nil, Picked, ""
			}
			one = m.Server
		}
		if one == nil {
			return nil, AllFull, ""
		}
		return one, Picked, "only"
	}
	return nil, NoServer, ""
}

// only names a pick that had no choice.
func only(s *set, otherwise string) string {
	if s.usable == 1 {
		return "only"
	}
	return otherwise
}

// room reports whether a pick could take the server.
func (s *Server) room() bool { return !s.full(s.origin.load.now()) }

// preview follows the table as Pick does.
func (g *maglev) preview(key uint64) (*Server, Verdict, string) {
	inFlight := g.ledger.inFlight.Load() + 1
	takes := func(m *member) bool {
		return m.tally.active.Load() < g.bound(m.share, inFlight) && m.room()
	}
	free := false
	for i := range g.members {
		free = free || g.members[i].room()
	}
	switch {
	case !free:
		return nil, AllFull, ""
	case len(g.members) == 1:
		return g.members[0].Server, Picked, "only"
	case key == 0:
		return nil, Picked, ""
	}
	slot := g.slot(key)
	for range maxProbes {
		if m := &g.members[g.table[slot]]; takes(m) {
			return m.Server, Picked, "hash"
		}
		if slot++; slot == maglevSize {
			slot = 0
		}
	}
	return nil, Picked, ""
}
