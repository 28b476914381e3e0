package proxy

import (
	"errors"
	"fmt"
	"os"
	"time"

	"gateway/internal/redisclient"
	"gateway/middleware/cache"
)

// tierChange is what a configuration makes of the cache's Redis tier, nil for
// nothing.
type tierChange struct {
	key  tierKey
	tier *cache.Tier // nil to go on without one
}

// tierKey is what a tier is made of.
type tierKey struct {
	on    bool
	redis redisclient.Options
	cache cache.Options
}

// openCache gives the snapshot the cache that all routes share, none when no
// route caches. It is made for the first configuration that needs it, and lives
// as long as the gateway.
func (g *Gateway) openCache(s *Snapshot) error {
	c := s.config
	if !c.Caches() {
		return nil
	}
	if g.cache == nil {
		store, err := cache.New(c.Cache)
		if err != nil {
			return fmt.Errorf("cache: %w", err)
		}
		store.Register(g.metrics)
		g.cache, g.cacheMemory = store, c.Cache.Memory
		g.loadCache(c.Cache.Save)
	}
	s.cache = g.cache
	var key tierKey
	if c.Cache.Redis {
		key = tierKey{true, c.Redis, c.Cache}
	}
	if key == g.tier {
		return nil
	}
	s.tier = &tierChange{key: key}
	if key.on {
		var err error
		if s.tier.tier, err = cache.NewTier(c.Redis, c.Cache, g.log); err != nil {
			s.tier = nil
			return fmt.Errorf("redis: %w", err)
		}
	}
	return nil
}

// applyCache puts the cache's options of a snapshot that takes over to work. The
// memory cannot change while it is in use.
func (g *Gateway) applyCache(s *Snapshot) {
	if s.cache == nil {
		return
	}
	o := s.config.Cache
	s.cache.Apply(o)
	if o.Memory != g.cacheMemory {
		g.log.Warn("cache.memory takes effect when the gateway is restarted; until then the cache keeps the memory that it has",
			"configured", o.Memory.String(), "in_effect", g.cacheMemory.String())
	}
}

// warmTime bounds reading and writing of the saved cache.
const warmTime = 10 * time.Second

// loadCache reads what a gateway before this one has saved. A file that is
// missing or damaged costs what it held.
func (g *Gateway) loadCache(path string) {
	if path == "" {
		return
	}
	n, err := g.cache.Load(path, time.Now().UnixNano(), time.Now().Add(warmTime))
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		g.log.Warn("the saved cache is not read to its end", "file", path, "entries", n, "error", err)
	default:
		g.log.Info("the saved cache is read", "file", path, "entries", n)
	}
}

// saveCache writes what is stored for the next gateway.
func (g *Gateway) saveCache(path string) {
	if path == "" {
		return
	}
	n, err := g.cache.Save(path, time.Now().UnixNano(), time.Now().Add(warmTime))
	if err != nil {
		g.log.Warn("the cache is not saved", "file", path, "error", err)
		return
	}
	g.log.Info("the cache is saved", "file", path, "entries", n)
}

// commit puts the tier of a snapshot that takes over to work.
func (t *tierChange) commit(g *Gateway) {
	if t != nil {
		g.tier = t.key
		g.cache.Join(t.tier)
	}
}

// discard gives up the tier of a snapshot that did not take over.
func (t *tierChange) discard() {
	if t != nil && t.tier != nil {
		t.tier.Close()
	}
}

// cacheQuiet bounds the wait for exchanges that are being cut off when a
// gateway is closed: they may still read what is stored.
const cacheQuiet = 2 * time.Second

// closeCache gives the cache's memory back, unless somebody still uses it: then
// it ends with the process.
func (g *Gateway) closeCache() {
	g.workers.close()
	g.fills.close()
	if g.cache == nil {
		return
	}
	for end := time.Now().Add(cacheQuiet); g.counters.inFlight.Value() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return
		}
	}
	if s := g.snapshot.Load(); s != nil {
		g.saveCache(s.config.Cache.Save)
	}
	if err := g.cache.Close(); err != nil {
		g.log.Warn("the cache's memory is not given back", "error", err)
	}
}
