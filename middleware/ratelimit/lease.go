package ratelimit

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

const (
	leaseShards   = 64
	leaseTick     = 25 * time.Millisecond  // between two renewals of a lease, on average
	leaseLead     = 60 * time.Millisecond  // of its use that a lease holds
	leaseHorizon  = 60 * time.Millisecond  // of the rate that may be granted before it comes
	leasePatience = 150 * time.Millisecond // without an answer, then Redis counts as away
	starterShare  = 8                      // of the burst, divided by the nodes, may be spent before Redis is asked
	sweep         = 32                     // entries looked at for one that can be replaced
)

// leases decide with tokens that were taken from Redis ahead of time. No
// decision waits for Redis: a renewer (renew.go) asks in the background.
//
// Tokens of a lease were taken from the bucket in Redis before they are spent,
// so that leases alone never exceed the limit, but for two things:
//
//   - grants may be made from what comes within the next leaseHorizon, or a
//     bucket with a small burst would idle between two renewals;
//   - a key of which nothing is known, or that had tokens left when Redis was
//     asked last, may spend a starter before the next answer: an eighth of the
//     burst divided by the nodes, at least one request. It is told to Redis
//     afterwards and makes its bucket's debt larger than the burst, so that it
//     is paid back: a node that learns of that waits until it is.
//
// So N nodes admit at most burst + rate·(t + leaseHorizon) + N·starter in any
// time t. What is leased and not spent is given back at the next renewal
// without use; the lease of a node that died comes back as time pays its debt.
//
// A node that Redis answers too late decides alone in between, while Redis goes
// on granting to others. Tokens that come late pay for what it gave, and Redis
// is told of the rest.
type leases struct {
	policy string
	redis  *Redis
	rate   atomic.Pointer[rate]
	shards [leaseShards]leaseShard
	wake   chan struct{} // capacity 1: somebody needs tokens soon
	asleep atomic.Bool   // the renewer waits for wake alone

	stop func()
	done sync.WaitGroup
}

// leaseShard has its own lock, which is never held across I/O.
type leaseShard struct {
	sync.Mutex
	index    map[uint64]int32
	entries  []lease
	overflow lease   // of keys for which there was no room
	dirty    []int32 // entries that want to be renewed; -1 is the overflow
	spare    []int32
	most     int // entries
	hand     int // where the next sweep begins
}

// lease is what a node holds of one bucket, and knows of it. Times are
// clock.Mono.
type lease struct {
	key    Key
	tokens int64   // granted and not spent
	owed   int64   // spent without a grant, and not told to Redis
	wanted int64   // asked for since the last renewal
	pace   float64 // asked for in a nanosecond, lately
	debt   float64 // of the bucket in Redis, as of
	at     int64
	asked  int64 // since when an answer is missing, 0 when none is
	last   int64 // renewal
	untold int64 // admitted without Redis since the last renewal was sent
	extra  int64 // of that, what Redis has to be told beside the debt: it went on granting to others
	guess  bool  // Redis may know of less than debt, and has not been told
	queued bool
	urgent bool // should be renewed before its turn
}

func newLeases(policy string, redis *Redis, maxKeys int, r *rate) *leases {
	l := &leases{policy: policy, redis: redis, wake: make(chan struct{}, 1)}
	l.rate.Store(r)
	for i := range l.shards {
		s := &l.shards[i]
		s.index = make(map[uint64]int32)
		s.most = max(1, maxKeys/leaseShards)
		s.overflow.key = overflowKey(i)
	}
	l.begin()
	return l
}

// overflowKey is the key of those that share a shard's overflow.
func overflowKey(shard int) (k Key) {
	copy(k.name[:], "overflow")
	k.name[15] = byte(shard)
	return k
}

// lacks is the debt as far as the node can know, now.
func (e *lease) lacks(now int64, r *rate) float64 {
	return max(0, e.debt-float64(max(0, now-e.at))*r.nano)
}

// starter is what may be spent before Redis is asked.
func starter(r *rate, nodes int64) int64 {
	return max(1, int64(r.burst)/(starterShare*nodes))
}

// take decides about n tokens. It allocates nothing for a key that is known,
// and waits for nothing.
func (l *leases) take(k *Key, n, now int64, down string) Verdict {
	r := l.rate.Load()
	s := &l.shards[k.hash%leaseShards]
	s.Lock()
	e, at := s.find(k, now, r)
	v, urgent := l.decide(e, n, now, r, down)
	v.overflow = at < 0
	e.urgent = e.urgent || urgent
	s.queue(e, at)
	s.Unlock()
	if urgent || l.asleep.Load() {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
	return v
}

// decide spends tokens of an entry; urgent asks for a renewal before its turn.
func (l *leases) decide(e *lease, n, now int64, r *rate, down string) (v Verdict, urgent bool) {
	e.wanted += n
	if e.tokens >= n {
		e.tokens -= n
		v = r.verdict(e.lacks(now, r)-float64(e.tokens), fromLease)
		v.Allowed = true
		return v, e.tokens < n+int64(e.pace*float64(leaseTick))
	}
	short := n - e.tokens
	if e.asked == 0 {
		e.asked = now
	}
	nodes := l.redis.Nodes()
	lacks := e.lacks(now, r)
	open := l.redis.breaker.IsOpen()
	if open { // Redis grants nothing to others either
		e.extra = 0
	}
	if open || now-e.asked > int64(leasePatience) {
		return e.alone(n, short, now, nodes, lacks, r, down), false
	}
	lacks += float64(e.owed)
	if lacks+float64(short) <= r.burst+1e-6 && (e.owed == 0 || e.owed+short <= starter(r, nodes)) {
		e.owed += short
		e.tokens = 0
		v = r.verdict(lacks+float64(short), fromLease)
		v.Allowed = true
		return v, true
	}
	v = r.verdict(max(lacks, r.burst), fromLease)
	v.Wait = max(int64(leaseTick), r.time(lacks+float64(n)-r.burst))
	return v, lacks < r.burst
}

// alone decides without Redis: a token counts as often as there are nodes, so
// that the node gives its share.
func (e *lease) alone(n, short, now, nodes int64, lacks float64, r *rate, down string) Verdict {
	switch down {
	case "open":
		return Verdict{Allowed: true, source: fromFallback}
	case "closed":
		return Verdict{Wait: int64(time.Second), source: fromFallback}
	}
	lacks += float64(e.owed * nodes)
	charge := float64(short * nodes)
	most := max(r.burst, charge)
	if lacks+charge > most+1e-6 {
		v := r.verdict(max(lacks, r.burst), fromFallback)
		v.Wait = max(1, r.time(lacks+charge-most))
		return v
	}
	e.untold += e.owed + short
	e.tokens, e.owed = 0, 0
	e.debt, e.at, e.guess = lacks+charge, now, true
	v := r.verdict(e.debt, fromFallback)
	v.Allowed = true
	return v
}

// refund gives back what take allowed.
func (l *leases) refund(k *Key, n int64, overflow bool) {
	s := &l.shards[k.hash%leaseShards]
	s.Lock()
	at, ok := s.index[k.hash]
	if overflow {
		at, ok = -1, true
	}
	if ok {
		e := s.entry(at)
		back := min(n, e.owed) // what is owed was spent after the tokens
		e.owed -= back
		e.tokens += n - back
		s.queue(e, at)
	}
	s.Unlock()
}

// queue has the entry renewed. The lock is held.
func (s *leaseShard) queue(e *lease, at int32) {
	if !e.queued {
		e.queued = true
		s.dirty = append(s.dirty, at)
	}
}

// entry is the one at an index, or the overflow at -1.
func (s *leaseShard) entry(at int32) *lease {
	if at < 0 {
		return &s.overflow
	}
	return &s.entries[at]
}

// find is the entry of a key, a new one, or the overflow. The lock is held.
func (s *leaseShard) find(k *Key, now int64, r *rate) (*lease, int32) {
	if at, ok := s.index[k.hash]; ok {
		return &s.entries[at], at
	}
	at := int32(-1)
	if len(s.entries) < s.most {
		s.entries = append(s.entries, lease{})
		at = int32(len(s.entries) - 1)
	} else if at = s.victim(now, r); at < 0 {
		return &s.overflow, -1
	} else {
		delete(s.index, s.entries[at].key.hash)
	}
	s.entries[at] = lease{key: *k, at: now, last: now}
	s.index[k.hash] = at
	return &s.entries[at], at
}

// victim is an entry to replace: one of the next few that waits for nothing
// and whose bucket is full, else the one with the smallest debt that is not
// being limited; -1 when there is none.
func (s *leaseShard) victim(now int64, r *rate) int32 {
	best, least := int32(-1), math.MaxFloat64
	for range min(sweep, len(s.entries)) {
		s.hand++
		if s.hand >= len(s.entries) {
			s.hand = 0
		}
		e := &s.entries[s.hand]
		lacks := e.lacks(now, r)
		if e.queued || e.tokens > 0 || e.owed > 0 || lacks+1 > r.burst && lacks > 0 || lacks >= least {
			continue
		}
		best, least = int32(s.hand), lacks
		if lacks == 0 {
			break
		}
	}
	return best
}

// count is the number of keys with a lease or a debt, and of tokens that are
// leased and not spent.
func (l *leases) count(now int64) (keys int, tokens int64) {
	r := l.rate.Load()
	for i := range l.shards {
		s := &l.shards[i]
		s.Lock()
		for j := range s.entries {
			if e := &s.entries[j]; e.tokens > 0 || e.owed > 0 || e.lacks(now, r) > 0 {
				keys++
				tokens += e.tokens
			}
		}
		s.Unlock()
	}
	return keys, tokens
}
