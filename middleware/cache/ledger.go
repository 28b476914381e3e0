package cache

import (
	"math"
	"sync"
	"sync/atomic"
)

// ledger is what this gateway knows of the purges that all gateways share: for
// each thing the number of its last purge, its generation. Values in Redis carry
// the last generation that was known when their origin was asked, so that old
// ones are known for what they are for as long as they live, without an index
// from tags to values.
type ledger struct {
	last    atomic.Uint64 // all purges up to this one have been applied here
	mu      sync.RWMutex
	records records
	floor   uint64 // purges before this one are forgotten: older values count as purged
	pending map[pendingKey]purge
}

// purge is a purge on its way to the other gateways.
type purge struct {
	target
	soft bool
	url  string // what urlTarget hashes, if known: purges at the others' at once
}

type pendingKey struct {
	target
	soft bool
}

const (
	maxPending     = 1 << 14 // purges that wait for Redis
	maxPendingURLs = 1 << 10 // of them, with their URL
	unpublished    = math.MaxUint64
)

// fate is what purges mean for a value of this generation.
func (l *ledger) fate(e Entry, generation uint64) fate {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if generation < l.floor {
		return remove
	}
	return l.records.fate(e, generation)
}

// add notes a purge that was published, and returns how many are known.
func (l *ledger) add(t target, n uint64, soft bool) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records.add(t, n, soft)
	return len(l.records.all)
}

// want notes a purge that is to be published; until then no value that it hits
// is used.
func (l *ledger) want(p purge) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pending) >= maxPending {
		p = purge{target: target{kind: kindAll}} // more than can be remembered
		clear(l.pending)
	}
	if len(l.pending) >= maxPendingURLs {
		p.url = ""
	}
	if l.pending == nil {
		l.pending = make(map[pendingKey]purge)
	}
	l.pending[pendingKey{p.target, p.soft}] = p
	l.records.add(p.target, unpublished, p.soft)
}

// take is some of the purges that are to be published.
func (l *ledger) take(most int) (batch []purge) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, p := range l.pending {
		if len(batch) == most {
			break
		}
		batch = append(batch, p)
		delete(l.pending, key)
	}
	return batch
}

// published notes the generations that purges got, the last of them n. It
// reports whether all purges up to that one have been applied here.
func (l *ledger) published(batch []purge, n uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := n - uint64(len(batch)) + 1
	for i, p := range batch {
		if _, again := l.pending[pendingKey{p.target, p.soft}]; again {
			continue
		}
		r := l.records.all[p.target]
		if p.soft {
			r.soft = first + uint64(i)
		} else {
			r.hard = first + uint64(i)
		}
		l.records.all[p.target] = r
	}
	// Its own purges have been applied here.
	return l.last.CompareAndSwap(first-1, n)
}

// failed takes purges back that could not be published.
func (l *ledger) failed(batch []purge) {
	for _, p := range batch {
		l.want(p)
	}
}

// replace takes over what Redis knows.
func (l *ledger) replace(all []purged, floor uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	unsent := make([]pendingKey, 0, len(l.pending))
	for t, r := range l.records.all { // also those that are just being published
		if r.hard == unpublished {
			unsent = append(unsent, pendingKey{t, false})
		}
		if r.soft == unpublished {
			unsent = append(unsent, pendingKey{t, true})
		}
	}
	l.records = records{}
	for _, p := range all {
		l.records.add(p.target, p.generation, p.soft)
	}
	for _, k := range unsent {
		l.records.add(k.target, unpublished, k.soft)
	}
	l.floor = floor
}

// purged is a record in Redis.
type purged struct {
	target
	soft       bool
	generation uint64
}
