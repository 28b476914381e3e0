package cache

import (
	"sync"
	"sync/atomic"
	"time"

	"gateway/wire"
)

// Cache is a store with the flights that fill it and the purges that empty it.
// It is safe for use by several goroutines and outlives configurations.
type Cache struct {
	store       *store
	flights     flights
	purges      purges
	ids         atomic.Uint64
	tier        atomic.Pointer[Tier]
	lag         atomic.Int64   // ns; while purges do not arrive: older entries count as stale
	known       atomic.Uint64  // the last shared purge that the memory has seen
	leaving     sync.WaitGroup // former tiers
	counts      counts
	coding      coding
	clock       func() int64 // ns since 1970
	filling     atomic.Int64 // bytes of responses that are being received
	queries     atomic.Bool  // a response to QUERY was stored
	maxFilling  int64
	maxObject   atomic.Int64
	uncacheable atomic.Int64  // ns
	collapse    atomic.Int64  // ns that waiters wait
	stall       time.Duration // how long a slow reader may hold up the others
}

// New makes a cache of options that have passed their Check. Close gives its
// memory back.
func New(o Options) (*Cache, error) {
	// A sixteenth is for responses that are being received.
	filling := int64(o.Memory) / 16
	s, err := newStore(int64(o.Memory) - filling)
	if err != nil {
		return nil, err
	}
	c := &Cache{
		store:      s,
		maxFilling: filling,
		stall:      30 * time.Second,
		clock:      func() int64 { return time.Now().UnixNano() },
	}
	c.Apply(o)
	c.purges.closing, c.purges.most = make(chan struct{}), maxRecords
	s.outdated = c.purges.outdated
	return c, nil
}

// Apply puts other options to work, which have passed their Check. Memory stays
// what it was: it takes a new cache to change it.
func (c *Cache) Apply(o Options) {
	c.maxObject.Store(min(int64(o.MaxObject), c.store.largest, c.maxFilling) - slotSize - metaSize)
	c.uncacheable.Store(int64(o.UncacheableTTL))
	c.collapse.Store(int64(o.CollapseTimeout))
}

// Close ends the goroutine of the cache and gives its memory back. No entry may
// be in use, and nothing may be called afterwards.
func (c *Cache) Close() error {
	c.Join(nil)
	c.leaving.Wait()
	c.coding.close()
	p := &c.purges
	p.mu.Lock()
	p.closed = true
	close(p.closing)
	p.mu.Unlock()
	p.done.Wait()
	return c.store.close()
}

// Stats are the numbers of the store.
func (c *Cache) Stats() Stats { return c.store.stats() }

// Verdict is what a lookup found.
type Verdict uint8

const (
	Bypass      Verdict = iota // not for the cache: ask the origin and store nothing
	Miss                       // ask the origin, by way of Begin
	Hit                        // serve Entry
	HitStale                   // serve Entry although it is stale
	HitRefresh                 // serve Entry, and start a flight by way of Refresh
	Validate                   // ask the origin whether Entry is still right, by way of Begin
	Unavailable                // only-if-cached: answer 504
)

// String is the verdict's name in traces.
func (v Verdict) String() string {
	return [...]string{"bypass", "miss", "hit", "stale", "refresh", "validate", "unavailable"}[v]
}

// Answer is how a stored response answers a request.
type Answer uint8

const (
	AnswerWhole       Answer = iota // the response as it is stored
	AnswerNotModified               // 304
	AnswerRanges                    // 206 with Ranges
	AnswerUnsatisfied               // 416
)

// Lookup is a question to the cache and what came of it. It keeps its memory
// and is meant to be pooled with whatever holds it.
type Lookup struct {
	Verdict Verdict
	Forward ForwardReason // why the origin is asked
	Asked   Asked
	Entry   Entry // with Hit, HitStale, HitRefresh and Validate; to be released
	Terms   Terms // of Entry
	Answer  Answer
	Ranges  Ranges // with AnswerRanges
	// Part is with Miss the beginning of the response, if it is stored and the
	// origin may be asked for the rest; see AskRest. Release gives it up.
	Part Entry
	// Recalled says that the entry has come from the Redis tier for this request.
	Recalled bool

	policy  *Policy
	key     []byte
	primary int
	hash    uint64 // of the key without variant
	scratch []byte
	flight  *Flight // that Begin has started
	spare   *Flight // memory for the next one

	landings uint64  // flights that had ended before the store was asked
	changed  changed // before a POST
	quiet    bool    // see Examine
}

// Release gives up the entry and keeps the memory.
func (l *Lookup) Release() {
	if l.policy == nil {
		return // nothing was asked
	}
	l.Entry.Release()
	l.Part.Release()
	spare := l.spare
	if l.flight != nil {
		spare = l.flight.reuse()
	}
	*l = Lookup{key: l.key[:0], scratch: l.scratch[:0], spare: spare}
}

// Lookup looks for a stored response. u is what the client asked for, whatever
// is forwarded; digest is that of a QUERY's body and else nil; now is in
// nanoseconds since 1970. It allocates nothing once l has grown.
func (c *Cache) Lookup(l *Lookup, p *Policy, q *wire.Request, u *URL, digest *[DigestSize]byte, now int64) Verdict {
	l.Release()
	return c.look(l, p, q, u, digest, now)
}

func (c *Cache) look(l *Lookup, p *Policy, q *wire.Request, u *URL, digest *[DigestSize]byte, now int64) Verdict {
	l.policy = p
	l.Asked = p.Ask(q)
	if !l.Asked.Cacheable() || l.Asked.Method == wire.MethodQuery && digest == nil {
		l.Verdict, l.Forward = Bypass, ForwardMethod
		if l.Asked.Method == wire.MethodPost {
			c.watch(l, u)
		}
		return Bypass
	}
	if q.Has(wire.IfMatch) || q.Has(wire.IfUnmodifiedSince) || q.Upgrade != nil {
		l.Verdict, l.Forward = Bypass, ForwardRequest
		return Bypass
	}
	l.key = p.appendKey(l.key[:0], u, l.Asked.Method, digest)
	l.primary = len(l.key)
	l.hash = c.store.hash(l.key)
	return c.decide(l, q, now)
}

// decide looks for the entry and says what it is good for.
func (c *Cache) decide(l *Lookup, q *wire.Request, now int64) Verdict {
	l.Part.Release()
	l.Forward, l.key = NotForwarded, l.key[:l.primary]
	l.landings = c.flights.landings.Load()
	if !c.find(l, q, now) {
		l.miss()
		return l.Verdict
	}
	l.Terms = l.Entry.Terms()
	// While purges may have been missed what is old may have been purged.
	if lag := c.lag.Load(); lag > 0 && now-l.Terms.Received > lag {
		l.Entry.soft = true
	}
	use := l.Terms.May(&l.Asked.Control, now, l.Entry.Soft())
	if !l.has(q) {
		if l.incomplete() {
			l.Part, l.Entry = l.Entry, Entry{}
		}
		l.Entry.Release()
		l.Forward = ForwardPartial
		l.miss()
		return l.Verdict
	}
	switch use {
	case UseFresh:
		l.Verdict = Hit
	case UseStale:
		l.Verdict = HitStale
	case UseRefresh:
		l.Verdict = HitRefresh
		if l.Asked.Control.Has(OnlyIfCached) {
			l.Verdict = HitStale
		}
	case UseValidate:
		l.Verdict, l.Forward = Validate, ForwardStale
		if l.Terms.Left(now) > 0 && !l.Terms.Control.Has(NoCache) && !l.Entry.Soft() {
			l.Forward = ForwardRequest
		}
		if l.Asked.Control.Has(OnlyIfCached) {
			l.Verdict = Unavailable
		}
	}
	l.Evaluate(&l.Entry, &q.Header)
	return l.Verdict
}

func (l *Lookup) miss() {
	l.Verdict = Miss
	if l.Asked.Control.Has(OnlyIfCached) {
		l.Verdict = Unavailable
	}
}

// find looks for the variant that the request asks for.
func (c *Cache) find(l *Lookup, q *wire.Request, now int64) bool {
	e, found := c.entry(l, l.hash, l.key, now)
	if !found {
		l.Forward = ForwardURIMiss
		return false
	}
	if e.flags()&flagVary == 0 {
		l.Entry = e
		return true
	}
	defer e.Release()
	// Of several that suit the newest counts, and of those that are as old the
	// one that came last, whose list comes first (RFC 9111 section 4).
	for lists := e.Body(); len(lists) > 1; {
		n := int(lists[0])<<8 | int(lists[1])
		vary := lists[2 : 2+n]
		lists = lists[2+n:]
		l.key = appendGeneration(l.key[:l.primary], e.id())
		l.key = appendVariant(l.key, vary, &q.Header)
		v, found := c.entry(l, c.store.hash(l.key), l.key, now)
		if found && l.Entry.Valid() && v.i64(atDate) <= l.Entry.i64(atDate) {
			v.Release()
		} else if found {
			l.Entry.Release()
			l.Entry = v
		}
	}
	if !l.Entry.Valid() {
		l.Forward = ForwardVaryMiss
		return false
	}
	l.key = append(l.key[:0], l.Entry.key()...)
	return true
}

// has reports whether the entry has what the request asks for: a part of a
// response may not.
func (l *Lookup) has(q *wire.Request) bool {
	if _, _, partial := l.Entry.Partial(); !partial {
		return true
	}
	return l.Asked.Method == wire.MethodGet && l.Entry.Ranges(&l.Ranges, &q.Header) != RangeAbsent
}

// Evaluate decides how an entry that has what is asked for, found or just
// validated, answers a request with the fields h: its conditions come before its
// ranges (RFC 9110 section 13.2.2). It allocates nothing.
func (l *Lookup) Evaluate(e *Entry, h *wire.Header) {
	l.Answer = AnswerWhole
	if l.Asked.Method != wire.MethodQuery && e.NotModified(h) {
		l.Answer = AnswerNotModified
		return
	}
	if l.Asked.Method == wire.MethodGet && l.Asked.Ranged {
		switch e.Ranges(&l.Ranges, h) {
		case RangeSatisfied:
			l.Answer = AnswerRanges
		case RangeUnsatisfiable:
			l.Answer = AnswerUnsatisfied
		}
	}
}

// flightName is the key, and for a part what part it is: whoever asks for
// another one has nothing to wait for.
func (l *Lookup) flightName(q *wire.Request) []byte {
	if !l.Asked.Ranged || l.Verdict == Validate || l.Verdict == HitRefresh {
		return l.key
	}
	name := append(l.scratch[:0], l.key...)
	for _, id := range [...]wire.FieldID{wire.Range, wire.IfRange} {
		name = append(name, 'R')
		for i := q.Next(id, 0); i >= 0; i = q.Next(id, i+1) {
			_, value, _, _ := q.Field(i)
			name = appendPart(name, value)
		}
	}
	l.scratch = name
	return name
}

// maxLists bounds the ways in which the responses of one URL differ.
const maxLists = 4

// generation is the number that ties variants to the list of their names: the
// one that is stored, or a new one.
func (c *Cache) generation(hash uint64, primary []byte, now int64) uint64 {
	if e, found := c.store.lookup(hash, primary, now, false); found {
		defer e.Release()
		if e.flags()&flagVary != 0 {
			return e.id()
		}
	}
	return c.ids.Add(1)
}

// keep stores an entry, and for a variant the names that it varies by.
func (c *Cache) keep(e *Entry, hash uint64, body [][]byte, t *Terms, now int64) bool {
	vary := e.vary()
	if len(vary) == 0 {
		return c.store.put(hash, e.blob, body, t.Dead(), now)
	}
	if !c.store.put(c.store.hash(e.key()), e.blob, body, t.Dead(), now) {
		return false
	}
	return c.list(e, hash, vary, t, now)
}

// list stores, under the key without variant, the names by which responses
// differ, the newest first.
func (c *Cache) list(e *Entry, hash uint64, vary []byte, t *Terms, now int64) bool {
	generation := le.Uint64(e.key()[e.u32(atPrimaryLen)+1:])
	lists := append([]byte{byte(len(vary) >> 8), byte(len(vary))}, vary...)
	old, found := c.store.lookup(hash, e.primary(), now, false)
	if found {
		defer old.Release()
		if old.flags()&flagVary != 0 && old.id() == generation {
			rest := old.Body()
			if len(rest) >= len(lists) && string(rest[:len(lists)]) == string(lists) && old.i64(atKeep) >= t.Dead() {
				return true
			}
			for n := 1; len(rest) > 1 && n < maxLists; n++ {
				size := 2 + int(rest[0])<<8 + int(rest[1])
				if string(rest[2:size]) != string(vary) {
					lists = append(lists, rest[:size]...)
				}
				rest = rest[size:]
			}
		}
	}
	primary := e.primary()
	b := make([]byte, metaSize, metaSize+len(primary)+len(lists))
	le.PutUint16(b[atVersion:], entryVersion)
	le.PutUint32(b[atFlags:], flagVary)
	// It is of use for as long as the last of its variants, and written anew
	// now and then only.
	dead := t.Dead() + 600*second
	if found && old.flags()&flagVary != 0 {
		dead = max(dead, old.i64(atKeep))
	}
	le.PutUint64(b[atKeep:], uint64(dead))
	le.PutUint64(b[atSequence:], e.sequence())
	le.PutUint64(b[atGeneration:], e.generation())
	le.PutUint64(b[atID:], generation)
	le.PutUint32(b[atKeyLen:], uint32(len(primary)))
	le.PutUint32(b[atPrimaryLen:], uint32(len(primary)))
	b = append(append(b, primary...), lists...)
	return c.store.put(hash, b, nil, dead, now)
}

// forget removes what is stored under a key, with all variants, and keeps
// flights but for a newer one from storing it.
func (c *Cache) forget(key []byte, newer *Flight) {
	hash := c.store.hash(key)
	c.flights.doom(hash, key, newer)
	c.store.removeKey(hash, key, EvictedPurged)
}

// Invalidate follows a response to an unsafe method (RFC 9111 section 4.4): if
// it is no error, what is stored for the URL, and for the URLs of the same
// origin in Location and Content-Location, is removed from the namespaces of
// all policies that are given; and the groups in Cache-Group-Invalidation are
// purged (RFC 9875 section 3). newer is the flight that the response itself may be
// stored by, or nil; see Posted. Allocates, but little.
func (c *Cache) Invalidate(policies []*Policy, method wire.Method, u *URL, status int, h *wire.Header, newer *Flight) {
	if method.Safe() || status < 200 || status >= 400 {
		return
	}
	c.purgeURL(policies, u, false, newer)
	for _, id := range [...]wire.FieldID{wire.Location, wire.ContentLocation} {
		if value := h.Get(id); value != nil {
			if target, ok := resolve(u, value); ok {
				c.purgeURL(policies, &target, false, newer)
			}
		}
	}
	scheme := byte('h')
	if u.Secure {
		scheme = 's'
	}
	eachGroup(h, "Cache-Group-Invalidation", func(group []byte) {
		hash := groupHash(scheme, u.Host, group)
		c.purgeEverywhere(tagTarget(hash), true)
	})
}
