package cache

import (
	"bytes"

	"gateway/wire"
)

// changed is what had changed in the cache when a POST came.
type changed struct {
	sequence   uint64 // purges
	changes    uint64 // to URLs of the shard
	generation uint64 // the last shared purge
}

// watch notes what has changed until now, for Posted.
func (c *Cache) watch(l *Lookup, u *URL) {
	l.key = l.policy.appendKey(l.key[:0], u, wire.MethodGet, nil)
	l.primary = len(l.key)
	l.hash = c.store.hash(l.key)
	l.changed = changed{sequence: c.purges.sequence.Load(), changes: c.flights.shard(l.hash).changes.Load()}
	if t := c.tier.Load(); t != nil {
		l.changed.generation = t.purged.last.Load()
	}
}

// Posted begins a flight for the response to a POST if that is what a GET of the
// same URL would get: its Content-Location is the target URI, and it is fresh by
// what the origin says (RFC 9110 section 9.3.3). Else nil. Nobody waits for the
// flight; Invalidate must be told of it before it is driven. A response that
// varies is not stored, because the fields that the origin has seen may be others
// than the client's; nor one during which anything was purged that it might be
// subject to.
func (c *Cache) Posted(l *Lookup, q *wire.Request, u *URL, o *Origin) *Flight {
	if l.Asked.Method != wire.MethodPost || o.Status != 200 || !located(u, o.Header) {
		return nil
	}
	if l.policy.ignore&ignoreVary == 0 && o.Header.Has(wire.Vary) {
		return nil
	}
	asked := l.Asked
	asked.Method, asked.Body, asked.Ranged = wire.MethodGet, false, false
	terms, reason := l.policy.Judge(&asked, o)
	if reason != Storable || !terms.Explicit || !sharable(&terms) {
		return nil
	}
	d := c.flights.shard(l.hash)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.changes.Load() != l.changed.changes || c.purges.sequence.Load() != l.changed.sequence {
		return nil
	}
	f := newFlight()
	c.begin(f, l, q, d, l.key, l.hash, false)
	f.asked, f.generation = asked, l.changed.generation
	return f
}

// located reports whether Content-Location is the URL itself.
func located(u *URL, h *wire.Header) bool {
	i := h.Next(wire.ContentLocation, 0)
	if i < 0 || h.Next(wire.ContentLocation, i+1) >= 0 {
		return false
	}
	_, value, _, _ := h.Field(i)
	target, ok := resolve(u, value)
	return ok && len(value) > 0 && bytes.Equal(target.Path, u.Path) && bytes.Equal(target.Query, u.Query)
}
