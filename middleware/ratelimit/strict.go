package ratelimit

import (
	"context"
	"sync/atomic"
	"time"

	"gateway/internal/clock"
)

// rate is a policy's rate as Redis and leases count it: in whole and broken
// tokens.
type rate struct {
	count int64
	per   time.Duration
	nano  float64 // tokens that come in a nanosecond
	burst float64
}

func newRate(o *Options) *rate {
	return &rate{
		count: o.Rate.Count, per: o.Rate.Per,
		nano: float64(o.Rate.Count) / float64(o.Rate.Per), burst: float64(o.burst()),
	}
}

// time is how long so many tokens take to come, in ns.
func (r *rate) time(tokens float64) int64 { return int64(max(0, tokens)/r.nano + 0.999999) }

// verdict describes a bucket with a debt.
func (r *rate) verdict(debt float64, from source) Verdict {
	return Verdict{Left: int64(max(0, r.burst-debt+1e-6)), Reset: r.time(debt), source: from}
}

// strict asks Redis about each charge. A call that fails, or Redis left alone
// by the breaker, is decided by the local mirror of the buckets, in which each
// token counts as often as there are gateways.
type strict struct {
	policy string
	redis  *Redis
	doubt  atomic.Int64 // clock.Mono until which the mirror may know more than Redis
	state  *state       // its table is the mirror
}

// take decides about n tokens, with a wait of at most slack. It waits for Redis
// up to its timeout.
func (s *strict) take(k *Key, n int64, slack time.Duration, r *rate, down string) Verdict {
	if s.redis.breaker.IsOpen() {
		return s.fallback(k, n, slack, r, down)
	}
	sent := clock.Mono()
	floor := 0.0
	table := s.state.table.Load()
	if sent < s.doubt.Load() {
		// Redis does not know what was decided without it, and may have lost
		// buckets. Less what could have come while an answer is under way, or
		// each question would add to the debt.
		late := float64(s.redis.timeout) * r.nano
		floor = max(0, float64(table.debt(k.hash, units(sent)))/unitsPerNano*r.nano-late)
	}
	a := ask{key: s.redis.key(s.policy, k), want: n, least: n, floor: floor, nodes: 1}
	ctx, cancel := context.WithTimeout(context.Background(), s.redis.timeout)
	a.read(bucketScript.Run(ctx, s.redis.client, []string{a.key}, a.arguments(r, r.burst+float64(slack)*r.nano)...))
	cancel()
	s.redis.breaker.Report(a.err == nil)
	if a.err != nil {
		return s.fallback(k, n, slack, r, down)
	}
	debt := units(r.time(a.debt))
	if sent < s.doubt.Load() { // others may have decided without Redis while this one waited
		debt = max(debt, table.debt(k.hash, units(sent)))
	}
	table.put(k.hash, units(sent), debt)
	v := r.verdict(a.debt, fromStrict)
	v.Allowed = a.granted == n
	if v.Allowed {
		v.Wait = r.time(a.debt - r.burst)
	} else {
		v.Wait = max(1, r.time(a.debt+float64(n)-r.burst))
	}
	return v
}

func (s *strict) fallback(k *Key, n int64, slack time.Duration, r *rate, down string) Verdict {
	switch down {
	case "open":
		return Verdict{Allowed: true, source: fromFallback}
	case "closed":
		return Verdict{Wait: int64(time.Second), source: fromFallback}
	}
	mono := clock.Mono()
	s.doubt.Store(mono + r.time(r.burst)) // then the mirror's buckets are full again
	now := units(mono)
	scale := s.state.table.Load().scale.Load()
	charge := scale.cost * uint64(n*s.redis.Nodes())
	more := units(int64(slack))
	if charge > scale.window { // a share of the burst is less than what is asked for
		more += charge - scale.window
	}
	v := s.state.table.Load().take(k.hash, now, charge, more)
	if v.Allowed {
		v.Wait = min(v.Wait, int64(slack))
	}
	v.source = fromFallback
	return v
}

// refund gives tokens back; nobody waits for it beyond the timeout.
func (s *strict) refund(k *Key, n int64, r *rate) {
	if s.redis.breaker.IsOpen() {
		return
	}
	a := ask{key: s.redis.key(s.policy, k), spent: -n, nodes: 1}
	ctx, cancel := context.WithTimeout(context.Background(), s.redis.timeout)
	defer cancel()
	a.read(bucketScript.Run(ctx, s.redis.client, []string{a.key}, a.arguments(r, r.burst)...))
	s.redis.breaker.Report(a.err == nil)
}
