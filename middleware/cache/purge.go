package cache

import (
	"sync"
	"sync/atomic"
	"time"
)

// purges are the purges that are under way. A purge is a record first: from
// that moment on lookups and stores compare entries with it, so that it is
// effective at once. Then one walk over the store serves all records that have
// gathered, and they are forgotten. So no index from tags to entries is needed;
// an entry carries the hashes of its tags.
//
// Entries know how many purges there had been when they were asked for from the
// origin; records hit those that know of fewer.
type purges struct {
	sequence atomic.Uint64 // purges so far
	active   atomic.Bool   // there are records
	mu       sync.RWMutex
	records  records
	most     int        // records
	walking  sync.Mutex // one walk at a time
	swept    uint64     // all records up to this one have been applied
	sweeping bool
	closed   bool
	done     sync.WaitGroup
	closing  chan struct{}
}

const (
	maxRecords = 1 << 16
	sweepPause = time.Second // between two walks over the store
)

// outdated is the worst that any record means for an entry. It allocates
// nothing.
func (p *purges) outdated(e Entry) fate {
	if !p.active.Load() {
		return keep
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.records.fate(e, e.sequence())
}

// purge makes a record of what a purge hits here.
func (c *Cache) purge(t target, soft bool) {
	p := &c.purges
	p.mu.Lock()
	for len(p.records.all) >= p.most {
		p.mu.Unlock()
		c.sweep(true)
		p.mu.Lock()
	}
	// Entries that are asked for from now on know of this one.
	p.records.add(t, p.sequence.Load()+1, soft)
	p.active.Store(true)
	p.sequence.Add(1)
	start := !p.sweeping && !p.closed
	if start {
		p.sweeping = true
		p.done.Add(1)
	}
	p.mu.Unlock()
	if start {
		go c.keepSweeping()
	}
}

// keepSweeping walks over the store until there are no records.
func (c *Cache) keepSweeping() {
	p := &c.purges
	defer p.done.Done()
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-pause.C:
		case <-p.closing:
			return
		}
		c.sweep(false)
		p.mu.Lock()
		if len(p.records.all) == 0 {
			p.sweeping = false
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
		pause.Reset(sweepPause)
	}
}

// sweep applies the records to all entries and forgets those that no flight
// needs any more, or all of them: flights that began before are not stored then.
func (c *Cache) sweep(forget bool) {
	p := &c.purges
	p.walking.Lock()
	defer p.walking.Unlock()
	upTo := p.sequence.Load()
	p.mu.RLock()
	fresh := upTo != p.swept
	p.mu.RUnlock()
	if fresh {
		c.store.each(p.outdated)
	}
	walked := upTo
	if oldest := c.flights.oldest(); oldest < upTo {
		if !forget {
			upTo = oldest
		} else {
			c.store.floor.Store(max(c.store.floor.Load(), upTo))
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.swept = walked
	p.records.prune(upTo)
	if len(p.records.all) == 0 {
		p.active.Store(false)
	}
}

// PurgeAll purges everything. A soft purge marks responses as stale: they are
// validated, and serve where stale ones may. A hard purge removes them. Both are
// effective when the method returns, and some milliseconds later on the gateways
// that share a Redis, or as soon as that is back.
func (c *Cache) PurgeAll(soft bool) { c.purgeEverywhere(target{kind: kindAll}, soft) }

// PurgeHost purges all responses of a host, with its port if URLs have one.
func (c *Cache) PurgeHost(host string, soft bool) {
	c.purgeEverywhere(hostTarget([]byte(host)), soft)
}

// PurgePrefix purges the responses of a host whose normalised path begins with
// path.
func (c *Cache) PurgePrefix(host, path string, soft bool) {
	c.purgeEverywhere(prefixTarget([]byte(host), []byte(path)), soft)
}

// PurgeTag purges the responses that carry a tag in Surrogate-Key or Cache-Tag.
func (c *Cache) PurgeTag(tag string, soft bool) {
	c.purgeEverywhere(tagTarget(TagHash([]byte(tag))), soft)
}

// PurgeURL purges a URL in the namespaces of the given policies, with all
// variants, and for QUERY with all bodies.
func (c *Cache) PurgeURL(policies []*Policy, u *URL, soft bool) { c.purgeURL(policies, u, soft, nil) }

func (c *Cache) purgeURL(policies []*Policy, u *URL, soft bool, newer *Flight) {
	for _, p := range policies {
		key := p.appendKey(nil, u, 0, nil)
		k, _ := splitKey(key)
		part := urlPart(key, &k)
		c.share(purge{urlTarget(part), soft, string(part)})
		c.purgeKey(key, soft, newer)
	}
}

// purgeKey purges what has this key, of class G, and queries of the same URL.
func (c *Cache) purgeKey(key []byte, soft bool, newer *Flight) {
	if !soft {
		c.forget(key, newer)
	}
	if soft || c.queries.Load() {
		k, _ := splitKey(key)
		c.purge(urlTarget(urlPart(key, &k)), soft)
	}
}

// purgeEverywhere purges here and on the other gateways.
func (c *Cache) purgeEverywhere(t target, soft bool) {
	c.share(purge{target: t, soft: soft})
	c.purge(t, soft)
}
