package ratelimit

import (
	"math/bits"
	"sync/atomic"

	"gateway/internal/clock"
	"gateway/metrics"
)

// Decision is how a request fared with a policy: a label of metrics.
type Decision uint8

// The decisions.
const (
	Allowed Decision = iota
	Delayed          // allowed after a wait
	Denied
	DryRun // would have been denied
	decisionCount
)

var decisionNames = [decisionCount]string{"allowed", "delayed", "denied", "dry_run"}

// state is what of a policy outlives a configuration.
type state struct {
	hasher  *hasher
	table   atomic.Pointer[table] // nil with leases
	strict  *strict
	leases  *leases
	rate    atomic.Pointer[rate] // nil unless a rate is limited
	waiting atomic.Int64         // requests that are being delayed

	redis *Redis // nil for a local store
}

func (s *state) close() {
	if s.leases != nil {
		s.leases.Close()
	}
}

// Limiter is a policy at work. It is safe for use by several goroutines.
type Limiter struct {
	Name    string
	Options Options // not to be changed

	state    *state
	kind     kind
	slack    uint64 // units of delay
	counters [sourceCount][decisionCount]*metrics.Counter
}

// Key makes the key of a value that the i-th source of Options.Key gave; i is
// their number when the request has none of them. The value is not kept.
func (l *Limiter) Key(i int, value []byte) Key { return l.state.hasher.key(i, value) }

// Holds reports whether what is taken is given back with Release.
func (l *Limiter) Holds() bool { return l.kind == limitsConcurrency }

// Paces reports whether the policy limits bandwidth: it has nothing to take,
// and Pace instead.
func (l *Limiter) Paces() bool { return l.kind == limitsBandwidth }

// Shared reports how far away the buckets are: 0 in memory, 1 leased from
// Redis, 2 in Redis. Who asks several limiters asks those first that are near.
func (l *Limiter) Shared() int {
	switch {
	case l.state.strict != nil:
		return 2
	case l.state.leases != nil:
		return 1
	}
	return 0
}

// Clamp is a cost that can be taken at all.
func (l *Limiter) Clamp(cost int64) int64 {
	if l.kind != limitsRate {
		return 1
	}
	return min(cost, l.Options.burst())
}

// moment is the time in units, at which places are counted too.
func (l *Limiter) moment(now int64) uint64 {
	if l.kind == limitsConcurrency {
		return 0
	}
	return units(now)
}

// Peek tells what Take would, without taking, as far as that is known in
// memory: of buckets in Redis it allows everything. now is clock.Mono.
func (l *Limiter) Peek(k *Key, cost, now int64) Verdict {
	if l.state.redis != nil {
		return Verdict{Allowed: true}
	}
	t := l.state.table.Load()
	return t.peek(k.hash, l.moment(now), uint64(cost)*t.scale.Load().cost, l.slack)
}

// Take takes cost tokens, or one place, if they are there; now is clock.Mono.
// With store redis-strict it waits for Redis up to its timeout; otherwise it
// allocates nothing and waits for nothing.
func (l *Limiter) Take(k *Key, cost, now int64) Verdict {
	switch {
	case l.state.leases != nil:
		return l.state.leases.take(k, cost, now, l.Options.RedisDown)
	case l.state.strict != nil:
		return l.state.strict.take(k, cost, l.Options.Delay, l.state.rate.Load(), l.Options.RedisDown)
	}
	t := l.state.table.Load()
	return t.take(k.hash, l.moment(now), uint64(cost)*t.scale.Load().cost, l.slack)
}

// Refund gives back what Take allowed with verdict v.
func (l *Limiter) Refund(k *Key, cost, now int64, v *Verdict) {
	switch {
	case l.state.leases != nil:
		if v.source == fromLease {
			l.state.leases.refund(k, cost, v.overflow)
		}
	case v.source == fromStrict:
		l.state.strict.refund(k, cost, l.state.rate.Load())
	case v.source == fromFallback: // where tokens count several times; it keeps them
	default:
		t := l.state.table.Load()
		t.refund(k.hash, l.moment(now), uint64(cost)*t.scale.Load().cost, v.overflow)
	}
}

// Pace charges bytes that were written and tells how long to wait before the
// next ones, in ns.
func (l *Limiter) Pace(k *Key, bytes int, now int64) int64 {
	hi, lo := bits.Mul64(uint64(bytes), second)
	charge, _ := bits.Div64(hi, lo, uint64(l.Options.Bandwidth))
	return l.state.table.Load().take(k.hash, units(now), charge, uint64(longest)*unitsPerNano).Wait
}

// Queue takes a place among the requests that wait; false when all are taken.
// Who got one calls Unqueue.
func (l *Limiter) Queue() bool {
	if l.state.waiting.Add(1) <= int64(l.Options.DelayQueue) {
		return true
	}
	l.state.waiting.Add(-1)
	return false
}

// Unqueue gives the place back.
func (l *Limiter) Unqueue() { l.state.waiting.Add(-1) }

// Count counts a decision.
func (l *Limiter) Count(d Decision, v *Verdict) { l.counters[v.source][d].Inc() }

// keys is the number of keys whose bucket is not full.
func (l *Limiter) keys() int {
	now := clock.Mono()
	if l.state.leases != nil {
		n, _ := l.state.leases.count(now)
		return n
	}
	return l.state.table.Load().keys(l.moment(now))
}

// leased is the number of tokens that are leased and not spent.
func (l *Limiter) leased() int64 {
	if l.state.leases == nil {
		return 0
	}
	_, n := l.state.leases.count(clock.Mono())
	return n
}
