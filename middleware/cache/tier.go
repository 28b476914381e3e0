package cache

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"gateway/internal/redisclient"
)

const (
	tierPatience = 2 * time.Second // of calls that nobody waits for
	tierWriters  = 2
)

// Tier is the Redis behind the memory of several gateways. It gives and takes
// responses, and it carries purges. Whoever leads a flight asks it, with a
// deadline; all else is done in the background: a request never waits for a
// write or a purge. Make it with NewTier, and put it to work with Cache.Join.
type Tier struct {
	client    redis.UniversalClient
	url       string
	prefix    string
	timeout   time.Duration
	lag       time.Duration
	breaker   *redisclient.Breaker
	log       *slog.Logger
	node      string
	decoder   *decoder
	most      int         // records of purges in Redis
	queue     chan string // keys of entries to be written
	c         *Cache      // set by Join
	connected atomic.Bool // purges arrive
	ctx       context.Context
	stop      context.CancelFunc
	done      sync.WaitGroup
	purged    ledger
	synced    bool          // purged has all that Redis knows; of the subscriber
	wake      chan struct{} // there are purges to publish; capacity 1
	back      chan struct{} // Redis is back; capacity 1
}

// NewTier makes the tier of options that have passed their Check; Redis need
// not be there. Errors hold nothing of the URL. Close is for a tier that no
// cache has joined.
func NewTier(r redisclient.Options, o Options, log *slog.Logger) (*Tier, error) {
	client, err := redisclient.New(r, tierPatience)
	if err != nil {
		return nil, err
	}
	t := &Tier{
		client:  client,
		url:     r.URL,
		prefix:  r.Prefix,
		timeout: o.RedisTimeout,
		lag:     o.PurgeLag,
		log:     log,
		node:    rand.Text(),
		most:    maxRecords,
		queue:   make(chan string, o.RedisQueue),
		wake:    make(chan struct{}, 1),
		back:    make(chan struct{}, 1),
	}
	t.breaker = redisclient.NewBreaker(func(open bool) {
		if open {
			log.Warn("Redis does not answer; the cache goes without it")
		} else {
			log.Info("Redis answers again; the cache asks it")
		}
	})
	t.ctx, t.stop = context.WithCancel(context.Background())
	return t, nil
}

// Close ends what the tier does. Purges that it could not publish are lost.
func (t *Tier) Close() {
	t.stop()
	t.done.Wait()
	_ = t.client.Close()
}

// Join puts a tier to work in place of the one before, which is closed; nil for
// none. Flights that began before go on with theirs.
func (c *Cache) Join(t *Tier) {
	if t != nil {
		t.c = c
		t.decoder = newDecoder(c.store.largest)
	}
	old := c.tier.Swap(t)
	if old != nil {
		c.leaving.Go(old.Close) // Redis may be slow
	}
	if t == nil {
		c.lag.Store(0)
		return
	}
	if old != nil && old.url != t.url {
		c.known.Store(0) // another Redis counts otherwise
	}
	t.purged.last.Store(c.known.Load())
	c.lag.Store(int64(t.lag)) // until its subscription stands
	t.done.Go(t.subscribe)
	t.done.Go(t.publishAll)
	for range tierWriters {
		t.done.Go(t.write)
	}
}

// Ready reports whether the tier answers and purges arrive.
func (t *Tier) Ready() bool { return t.connected.Load() && !t.breaker.IsOpen() }

// name is the key in Redis of what has this key here: variants are found by what
// they vary by, whatever their generation is.
func (t *Tier) name(primary, variant []byte) string {
	h := sha256.New()
	_, _ = h.Write(primary)
	if variant != nil {
		_, _ = h.Write([]byte{'V'})
		_, _ = h.Write(variant)
	}
	var sum [sha256.Size]byte
	var b strings.Builder
	b.Grow(len(t.prefix) + 8 + 32)
	b.WriteString(t.prefix)
	b.WriteString("cache:1:")
	b.WriteString(hex.EncodeToString(h.Sum(sum[:0])[:16]))
	return b.String()
}

// variantOf is what a variant's key says about the request, nil for an entry
// without variants.
func variantOf(e *Entry) []byte {
	if len(e.vary()) == 0 {
		return nil
	}
	return e.key()[e.u32(atPrimaryLen)+generationSize:]
}

// get asks Redis for a value. Anything but a value that can be used is nil.
func (t *Tier) get(ctx context.Context, name string) ([]byte, TierResult) {
	b, err := t.client.Get(ctx, name).Bytes()
	switch {
	case err == nil:
		t.breaker.Report(true)
		return b, TierHit
	case errors.Is(err, redis.Nil):
		t.breaker.Report(true)
		return nil, TierMiss
	case wrongType(err):
		t.breaker.Report(true)
		return nil, TierInvalid
	}
	if t.ctx.Err() == nil {
		t.breaker.Report(false)
	}
	return nil, TierFailed
}

// wrongType reports whether a key of ours holds something foreign.
func wrongType(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply) && strings.HasPrefix(reply.Error(), "WRONGTYPE")
}

// keep notes that what has this key has to be written.
func (t *Tier) keep(key []byte) {
	select {
	case t.queue <- string(key):
	default:
		t.c.counts.writes[writeDropped].Add(1)
	}
}

// write writes what the queue names as it is in memory by then.
func (t *Tier) write() {
	enc := newEncoder()
	defer func() { _ = enc.zstd.Close() }()
	for {
		select {
		case <-t.ctx.Done():
			return
		case key := <-t.queue:
			t.writeOne(enc, []byte(key))
		}
	}
}

func (t *Tier) writeOne(enc *encoder, key []byte) {
	c := t.c
	if !t.Ready() {
		c.counts.writes[writeDropped].Add(1)
		return
	}
	now := c.clock()
	e, found := c.store.lookup(c.store.hash(key), key, now, false)
	if !found {
		return
	}
	terms := e.Terms()
	dead := terms.Dead()
	if e.flags()&flagVary != 0 {
		dead = terms.Keep
	}
	generation := e.generation()
	name := t.name(e.primary(), variantOf(&e))
	outdated := e.Soft() || t.purged.fate(e, generation) != keep
	value := enc.encode(&e, generation)
	e.Release()
	life := time.Duration(dead - now)
	if outdated || life < time.Millisecond {
		return
	}
	ctx, cancel := context.WithTimeout(t.ctx, tierPatience)
	defer cancel()
	err := t.client.Set(ctx, name, value, life.Round(time.Millisecond)).Err()
	if err != nil {
		if t.ctx.Err() != nil {
			return
		}
		c.counts.writes[writeFailed].Add(1)
		var reply redis.Error
		if !errors.As(err, &reply) { // else it has answered: that its memory is full, for one
			t.breaker.Report(false)
		}
		return
	}
	c.counts.writes[writeStored].Add(1)
}
