package ratelimit

// Ticket is what an exchange took of its policies. The zero value took
// nothing. It belongs to the exchange's goroutine.
type Ticket struct {
	Refused string // name of the policy that refused, "" when none did

	n     int
	takes [MaxPolicies]Taken
}

// Taken is what was taken of one policy.
type Taken struct {
	Limiter *Limiter
	Key     Key
	Cost    int64
	Verdict Verdict
	charged bool // it can be given back
}

// Add notes a decision. A route has no more policies than fit.
func (t *Ticket) Add(taken Taken) {
	taken.charged = taken.Verdict.Allowed && !taken.Limiter.Paces()
	t.takes[t.n] = taken
	t.n++
}

// Len is the number of decisions; Taken is one of them.
func (t *Ticket) Len() int { return t.n }

// Taken is the i-th decision.
func (t *Ticket) Taken(i int) *Taken { return &t.takes[i] }

// Refund gives everything back and forgets the decisions.
func (t *Ticket) Refund(now int64) {
	for i := range t.takes[:t.n] {
		if k := &t.takes[i]; k.charged {
			k.Limiter.Refund(&k.Key, k.Cost, now, &k.Verdict)
		}
	}
	clear(t.takes[:t.n])
	t.n = 0
}

// Release gives back the places of policies that limit concurrency. It is
// called when the exchange ends; again it does nothing.
func (t *Ticket) Release() {
	for i := range t.takes[:t.n] {
		if k := &t.takes[i]; k.charged && k.Limiter.Holds() {
			k.Limiter.Refund(&k.Key, k.Cost, 0, &k.Verdict)
			k.charged = false
		}
	}
}

// Reset releases, and makes the ticket as good as new.
func (t *Ticket) Reset() {
	t.Release()
	clear(t.takes[:t.n])
	t.n, t.Refused = 0, ""
}

// Paces reports whether a policy limits bandwidth.
func (t *Ticket) Paces() bool {
	for i := range t.takes[:t.n] {
		if t.takes[i].Limiter.Paces() {
			return true
		}
	}
	return false
}

// Pace charges bytes of the response to the policies that limit bandwidth, and
// tells how long to wait before more are written, in ns; now is clock.Mono.
func (t *Ticket) Pace(bytes int, now int64) (wait int64) {
	for i := range t.takes[:t.n] {
		if k := &t.takes[i]; k.Limiter.Paces() {
			wait = max(wait, k.Limiter.Pace(&k.Key, bytes, now))
		}
	}
	return wait
}
