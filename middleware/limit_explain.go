package middleware

import (
	"time"

	"gateway/exchange"
	"gateway/internal/clock"
	"gateway/middleware/ratelimit"
)

// LimitState is how a policy would fare with a request, and what its bucket has
// now. Nothing is taken for it.
type LimitState struct {
	Policy string `json:"policy"`
	Line   int    `json:"line,omitempty"` // of the file; whoever knows the file sets it
	// When is the place at which the policy is asked: before credentials are
	// looked at ("address"), after ("identity"), or only for what the cache
	// does not answer ("miss").
	When   string `json:"when"`
	Source string `json:"source"`          // what the key is made of: ip, header:X-Api-Key; "none" when the request has none of the sources
	Key    string `json:"key,omitempty"`   // its value, cut to 64 bytes
	Store  string `json:"store"`           // local, redis or redis-strict
	Rate   string `json:"rate,omitempty"`  // of a policy that has one
	Burst  int    `json:"burst,omitempty"` // 0 for the rate's own
	Places int    `json:"places,omitempty"`
	Cost   int64  `json:"cost"` // tokens that the request takes, 0 when it is exempt

	// Known is false when the bucket is in Redis: what follows is then
	// missing, and the request is taken to be allowed.
	Known   bool   `json:"known"`
	Allowed bool   `json:"allowed"`
	Left    int64  `json:"left"`                          // tokens or places that remain, once it is allowed
	Reset   string `json:"full_in,omitempty"`             // until the bucket is full again
	Wait    string `json:"wait,omitempty"`                // before an allowed request goes on; for a denied one, until it would be allowed
	DryRun  bool   `json:"dry_run,omitempty"`             // a denial is counted and has no effect
	Paced   string `json:"bytes_per_second,omitempty"`    // the policy limits bandwidth: it refuses nothing
	Exempt  bool   `json:"exempt,omitempty"`              // the client's address, or the method, costs nothing
	Hit     bool   `json:"spared_by_the_cache,omitempty"` // the cache answers: a policy for misses is not asked
}

// Refuses reports whether the request ends here.
func (s *LimitState) Refuses() bool { return !s.Allowed && !s.DryRun }

// Places at which policies are asked, by the method that asks them.
const (
	WhenAddress  = "address"
	WhenIdentity = "identity"
	WhenMiss     = "miss"
)

// Explain is what ByAddress, ByIdentity or ByMiss would decide, by policy in
// the order in which they are asked. It counts, takes and answers nothing.
func (l *Limit) Explain(x *exchange.Exchange, when string) (list []LimitState) {
	if l == nil {
		return nil
	}
	policies := l.address
	switch when {
	case WhenIdentity:
		policies = l.identity
	case WhenMiss:
		policies = l.miss
	}
	now := clock.Mono()
	for _, p := range policies {
		list = append(list, l.state(x, p, when, now))
	}
	return list
}

func (l *Limit) state(x *exchange.Exchange, p *limitPolicy, when string, now int64) LimitState {
	o := &p.Options
	s := LimitState{
		Policy: p.Name, When: when, Store: o.Store, Places: o.Concurrency,
		Known: p.Known(), Allowed: true, DryRun: o.DryRun,
	}
	if o.Rate.Count > 0 {
		s.Rate, s.Burst = o.Rate.String(), o.Burst
	}
	if o.Bandwidth > 0 {
		s.Paced = o.Bandwidth.String()
	}
	if p.exempt.contains(x.Addr) {
		s.Exempt, s.Source = true, "none"
		return s
	}
	var buffer [keyBuffer]byte
	i, value := l.value(x, p, buffer[:0])
	if s.Source = "none"; i < len(o.Key) {
		s.Source, s.Key = o.Key[i].String(), shown(value)
		if o.Key[i].Kind == ratelimit.ByIP {
			s.Key = l.network(x, p).String()
		}
	}
	if s.Cost = p.cost(x); s.Cost == 0 {
		s.Exempt = true
		return s
	}
	if p.Paces() || !s.Known {
		return s
	}
	key := p.Key(i, value)
	v := p.Peek(&key, s.Cost, now)
	if s.Allowed = v.Allowed; v.Allowed && v.Wait > 0 && p.Crowded() {
		s.Allowed = false
	}
	s.Left = v.Left
	if v.Wait > 0 {
		s.Wait = time.Duration(v.Wait).Round(time.Millisecond).String()
	}
	if v.Reset > 0 && !p.Holds() {
		s.Reset = time.Duration(v.Reset).Round(time.Millisecond).String()
	}
	return s
}

// shown is a value for people, not too long.
func shown(value []byte) string {
	const most = 64
	if len(value) > most {
		return string(value[:most]) + "…"
	}
	return string(value)
}
