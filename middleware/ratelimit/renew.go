package ratelimit

import (
	"context"
	"math"
	"math/rand/v2"
	"time"

	"gateway/internal/clock"
)

const (
	batch    = 256                  // buckets asked for in one round trip
	renewGap = 2 * time.Millisecond // between rounds, however urgent
)

// renewal is an ask on its way and the entry that it is for.
type renewal struct {
	shard *leaseShard
	at    int32
	hash  uint64 // the entry may have another key when the answer comes
	told  int64  // of what is spent, what was not granted
}

// begin starts the renewer.
func (l *leases) begin() {
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	l.done.Go(func() { l.renew(ctx) })
}

// Close ends the renewer. Tokens that are leased come back with time.
func (l *leases) Close() {
	l.stop()
	l.done.Wait()
}

// renew asks for what entries need, until the end: soon after somebody needs
// tokens, else about every tick. With nothing to renew it sleeps.
func (l *leases) renew(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		l.asleep.Store(true)
		tick := timer.C
		if l.busy() {
			l.asleep.Store(false)
			// Jitter, so that no node always comes just after another.
			timer.Reset(leaseTick/2 + rand.N(leaseTick))
		} else {
			tick = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		case <-tick:
		}
		l.asleep.Store(false)
		began := time.Now()
		l.round(ctx)
		timer.Reset(max(renewGap, time.Since(began))) // many entries must not take all the time there is
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
	}
}

// busy reports whether an entry wants to be renewed.
func (l *leases) busy() bool {
	for i := range l.shards {
		s := &l.shards[i]
		s.Lock()
		n := len(s.dirty)
		s.Unlock()
		if n > 0 {
			return true
		}
	}
	return false
}

// round renews all entries that want it, in batches.
func (l *leases) round(ctx context.Context) {
	if l.redis.breaker.IsOpen() {
		return
	}
	asks := make([]ask, 0, batch)
	renewals := make([]renewal, 0, batch)
	for i := range l.shards {
		s := &l.shards[i]
		s.Lock()
		list := s.dirty
		s.dirty = s.spare // what is queued from now on has its turn in the next round
		for len(list) > 0 || len(asks) == batch {
			if len(asks) == batch {
				s.Unlock()
				ok := l.send(ctx, asks, renewals)
				asks, renewals = asks[:0], renewals[:0]
				s.Lock()
				if !ok {
					s.dirty = append(s.dirty, list...)
					s.spare = nil
					s.Unlock()
					return
				}
				continue
			}
			at := list[len(list)-1]
			list = list[:len(list)-1]
			e, now := s.entry(at), clock.Mono()
			if !e.urgent && now-e.last < int64(leaseTick)/2 {
				s.dirty = append(s.dirty, at)
				continue
			}
			e.urgent = false
			if a, told, ok := l.prepare(e, now); ok {
				asks = append(asks, a)
				renewals = append(renewals, renewal{s, at, e.key.hash, told})
			} else if e.queued = e.tokens > 0 || e.wanted > 0; e.queued {
				s.dirty = append(s.dirty, at)
			}
		}
		s.spare = list
		s.Unlock()
	}
	l.send(ctx, asks, renewals)
}

// prepare makes the ask of an entry: what it owes, what it gives back, what it
// wants. ok is false when there is nothing to ask. The lock is held.
func (l *leases) prepare(e *lease, now int64) (a ask, told int64, ok bool) {
	r := l.rate.Load()
	target := e.measure(now, r)
	if e.tokens > 2*target { // a little too much is kept: it would be asked for again
		a.spent = target - e.tokens
		e.tokens = target
	}
	a.want = max(0, target-e.tokens)
	lacks, nodes := e.lacks(now, r), l.redis.Nodes()
	told = e.owed + min(e.extra, int64(lacks)/nodes)
	a.spent += told
	if a.spent == 0 && (a.want == 0 || !room(lacks, r)) {
		e.asked = 0 // what Redis would say is known
		return a, 0, false
	}
	if e.guess {
		a.floor, e.guess = lacks, false // what is decided alone from here on is told next time
	}
	e.debt, e.at = lacks+float64(e.owed), now // until Redis tells
	e.owed, e.untold, e.extra = 0, 0, 0
	a.key = l.redis.key(l.policy, &e.key)
	a.nodes = nodes
	return a, told, true
}

// measure is the number of tokens that the entry should hold: what was asked
// for lately, requests that were refused included, and nothing when nobody
// asked.
func (e *lease) measure(now int64, r *rate) (target int64) {
	const tick = int64(leaseTick)
	elapsed := min(now-e.last, 3*tick/2) // before that it was asleep
	pace := e.pace
	if elapsed < tick/2 { // an urgent renewal: too early to say that use has ceased
		pace = max(pace, float64(e.wanted)/float64(tick))
	} else {
		lately := float64(e.wanted) / float64(elapsed)
		pace = max(lately, (pace+lately)/2)
		if e.wanted == 0 {
			pace = 0
		}
		e.pace, e.wanted, e.last = pace, 0, now
	}
	most := int64(r.burst) + int64(float64(leaseHorizon)*r.nano)
	return min(int64(math.Ceil(pace*float64(leaseLead))), most)
}

// room reports whether a bucket with this debt could give a token.
func room(lacks float64, r *rate) bool {
	return lacks+1 <= r.burst+float64(leaseHorizon)*r.nano+1e-6
}

// send makes the calls and enters the answers; it reports whether Redis
// answered.
func (l *leases) send(ctx context.Context, asks []ask, renewals []renewal) bool {
	if len(asks) == 0 {
		return true
	}
	r := l.rate.Load()
	sent := clock.Mono()
	call, cancel := context.WithTimeout(ctx, max(l.redis.timeout, backgroundMin))
	run(call, l.redis.client, asks, r, r.burst+float64(leaseHorizon)*r.nano)
	cancel()
	answered := false
	for i := range asks {
		answered = answered || asks[i].err == nil
		l.enter(&asks[i], &renewals[i], sent)
	}
	if ctx.Err() == nil {
		l.redis.breaker.Report(answered)
	}
	return answered
}

// enter takes an answer into its entry.
func (l *leases) enter(a *ask, n *renewal, sent int64) {
	n.shard.Lock()
	defer n.shard.Unlock()
	e := n.shard.entry(n.at)
	if e.key.hash != n.hash {
		panic("BUG: an entry that is being renewed was replaced")
	}
	if a.err == nil {
		e.tokens += max(0, a.granted-e.untold) // what came too late was given without it
		r, now := l.rate.Load(), clock.Mono()
		lacks := e.lacks(now, r)
		e.tell(e.untold-a.granted, lacks, l.redis.Nodes())
		e.debt, e.at = a.debt+float64(e.extra), sent
		if e.guess && e.lacks(now, r) < lacks { // Redis has not been told yet of what was decided meanwhile
			e.debt, e.at = lacks, now
		}
		e.asked = 0
	} else {
		e.guess = e.guess || n.told > 0 || a.floor > 0 // the debt is in e.debt already
		e.tell(e.untold, e.lacks(clock.Mono(), l.rate.Load()), l.redis.Nodes())
	}
	if e.queued = e.tokens > 0 || e.wanted > 0 || e.owed > 0 || e.extra > 0 || a.err != nil && e.asked != 0; e.queued {
		n.shard.dirty = append(n.shard.dirty, n.at)
	}
}

// tell has Redis be told of tokens that were given without it. All nodes
// together tell no more than the bucket lacks: the rest has come since.
func (e *lease) tell(tokens int64, lacks float64, nodes int64) {
	e.extra = min(max(0, tokens), int64(lacks)/nodes)
	e.untold = 0
}
