package cache

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"gateway/wire"
)

type flights struct {
	shards   [flightShards]flightShard
	landings atomic.Uint64 // flights that ended, perhaps with something stored
}

type flightShard struct {
	mu          sync.Mutex
	flying      map[uint64]*Flight // by the hash of their names, those of one hash in a chain
	uncacheable [256]struct {
		hash  uint64
		until int64
	}
	landed [256]struct {
		hash uint64
		n    uint64 // of flights.landings
	}
	changes atomic.Uint64 // times that doom was called
	_       [64]byte
}

func (s *flights) shard(hash uint64) *flightShard { return &s.shards[hash%flightShards] }

// oldest is the smallest sequence of a flight.
func (s *flights) oldest() uint64 {
	oldest := uint64(math.MaxUint64)
	for i := range s.shards {
		d := &s.shards[i]
		d.mu.Lock()
		for _, f := range d.flying {
			for ; f != nil; f = f.next {
				oldest = min(oldest, f.sequence)
			}
		}
		d.mu.Unlock()
	}
	return oldest
}

// doom keeps the flights for a key, all variants, from being stored, but for one
// whose response is newer than the change.
func (s *flights) doom(hash uint64, primary []byte, newer *Flight) {
	d := s.shard(hash)
	d.mu.Lock()
	d.changes.Add(1)
	for _, f := range d.flying {
		for ; f != nil; f = f.next {
			if f != newer && string(f.key) == string(primary) {
				f.doomed.Store(true)
			}
		}
	}
	d.mu.Unlock()
}

// find is the flight of this name, nil for none.
func (d *flightShard) find(hash uint64, name []byte) *Flight {
	f := d.flying[hash]
	for f != nil && string(f.name) != string(name) {
		f = f.next
	}
	return f
}

// remove ends that a flight is found.
func (d *flightShard) remove(f *Flight) {
	first := d.flying[f.nameHash]
	if first == f {
		if f.next == nil {
			delete(d.flying, f.nameHash)
		} else {
			d.flying[f.nameHash] = f.next
		}
		return
	}
	for g := first; g != nil; g = g.next {
		if g.next == f {
			g.next = f.next
			return
		}
	}
}

func (d *flightShard) slot(hash uint64) int { return int(hash >> 8 % uint64(len(d.uncacheable))) }

// remember makes requests for this go side by side until then, 0 for no longer.
func (f *Flight) remember(until int64) {
	d := f.shard
	d.mu.Lock()
	if slot := &d.uncacheable[d.slot(f.hash)]; until > 0 || slot.hash == f.hash {
		slot.hash, slot.until = f.hash, until
	}
	d.mu.Unlock()
}

// Begin joins the flight for what a lookup missed, or starts one. With Lead and
// Alone the flight is the caller's to drive: the key and the request's fields
// have been copied. A flight that ends before anybody else has got hold of it is
// valid until the release of the lookup, whose next flight has its memory. With
// Wait the reader is the caller's to close. Without collapse, which is right for
// those whom a flight told to go their own way, nobody waits for anybody. The
// flight is nil, and the role Alone, when nothing is to be stored whatever the
// answer is.
func (c *Cache) Begin(l *Lookup, q *wire.Request, now int64, collapse bool) (Role, *Flight, *Reader) {
	head := l.Asked.Method == wire.MethodHead
	if l.Verdict == Bypass || head && l.Verdict != Validate || l.Asked.Control.Has(NoStore) {
		return Alone, nil, nil
	}
	// Who wants a validation of his own waits for no answer to an older request.
	collapse = collapse && l.policy.Collapse && !head && !l.Asked.Control.Has(NoCache)
	name := l.flightName(q)
	hash := c.nameHash(l, name)
	d := c.flights.shard(l.hash)
	d.mu.Lock()
	defer d.mu.Unlock()
	role, known := Alone, false // that it can't be shared
	if slot := &d.uncacheable[d.slot(l.hash)]; slot.hash == l.hash && now < slot.until {
		known = true
	} else if collapse {
		if f := d.find(hash, name); f == nil {
			if landed := &d.landed[d.slot(l.hash)]; landed.hash == l.hash && landed.n > l.landings {
				return Again, nil, nil // between the lookup and now
			}
			role = Lead
		} else if joined, r := f.join(time.Duration(c.collapse.Load())); joined != Alone {
			return joined, nil, r
		}
	}
	f := l.spare
	if l.spare = nil; f == nil {
		f = newFlight()
	}
	l.flight = f
	c.begin(f, l, q, d, name, hash, role == Lead)
	f.recall = !known && !l.Asked.Control.Has(NoCache) && !head
	return role, f, nil
}

// Refresh starts a flight for a stale response unless there is one already.
func (c *Cache) Refresh(l *Lookup, q *wire.Request) (f *Flight, begun bool) {
	name := l.flightName(q)
	hash := c.nameHash(l, name)
	d := c.flights.shard(l.hash)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.find(hash, name) != nil {
		return nil, false
	}
	f = newFlight() // it outlives the lookup
	c.begin(f, l, q, d, name, hash, true)
	f.recall = true
	return f, true
}

// nameHash is the hash of a flight's name.
func (c *Cache) nameHash(l *Lookup, name []byte) uint64 {
	if len(name) == l.primary {
		return l.hash
	}
	return c.store.hash(name)
}

// begin starts a flight, under a name that others find or under one of its own;
// the shard is locked, so that a purge sees the flight or is seen by it.
func (c *Cache) begin(f *Flight, l *Lookup, q *wire.Request, d *flightShard, name []byte, hash uint64, found bool) {
	f.c, f.shard, f.policy, f.asked, f.tier = c, d, l.policy, l.Asked, c.tier.Load()
	f.name = append(f.name[:0], name...)
	f.key = append(f.key[:0], l.key[:l.primary]...)
	f.sequence, f.hash, f.nameHash = c.purges.sequence.Load(), l.hash, hash
	if f.tier != nil {
		f.generation = f.tier.purged.last.Load()
	}
	if !found {
		f.name = le.AppendUint64(append(f.name, 'A'), c.ids.Add(1))
	}
	if f.asked.Method == wire.MethodHead {
		f.asked.Method = wire.MethodGet // what is stored is the answer to one
	}
	f.fields = f.request.CopyFromIn(f.fields, &q.Header)
	if d.flying == nil {
		d.flying = make(map[uint64]*Flight)
	}
	f.next = d.flying[hash]
	d.flying[hash] = f
}

func newFlight() *Flight { return &Flight{length: -1, space: make(chan struct{}, 1)} }

// keptFlight bounds the memory of a flight that is kept for another one.
const keptFlight = 16 << 10

// reuse makes a flight that has ended a new one with the same memory; nil when
// others may still have a part in it.
func (f *Flight) reuse() *Flight {
	f.mu.Lock()
	free := f.over && !f.shared
	f.mu.Unlock()
	if !free || cap(f.blob)+cap(f.fields)+cap(f.name)+cap(f.key) > keptFlight {
		return nil
	}
	f.request.Reset()
	*f = Flight{
		length: -1, space: f.space, name: f.name, key: f.key, variant: f.variant,
		request: f.request, fields: f.fields, blob: f.blob,
	}
	return f
}

// Request is the client's fields as they came, whatever was forwarded.
func (f *Flight) Request() *wire.Header { return &f.request }

// join makes a reader if the flight still takes one; the shard is locked.
func (f *Flight) join(timeout time.Duration) (Role, *Reader) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.phase == phaseAgain || f.phase == phaseDone:
		return Again, nil
	case f.phase >= phaseAlone, len(f.readers) >= maxReaders, f.base > 0:
		return Alone, nil
	}
	return Wait, f.reader(timeout)
}

func (f *Flight) reader(timeout time.Duration) *Reader {
	f.shared = true
	r := &Reader{f: f, wake: make(chan struct{}, 1), timeout: timeout}
	f.readers = append(f.readers, r)
	return r
}

// Reader makes a reader for the leader's own client, which then reads like the
// others while a goroutine drives the flight. It must be made before the first
// Write, and is of use if Response says that the response is stored.
func (f *Flight) Reader() *Reader {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.reader(math.MaxInt64)
	r.leader = true
	return r
}
