package users

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// CacheOptions configures the cache in Redis. For each number 0 means the
// default.
type CacheOptions struct {
	URL    string        // redis://, rediss:// or unix://
	Prefix string        // of all keys (users:)
	TTL    time.Duration // how long a page or a user may be kept (60 s)

	PoolSize     int           // connections (10)
	MinIdle      int           // of them kept open at least (5); negative: none
	Retries      int           // of a command that failed (3); negative: none
	DialTimeout  time.Duration // (5 s)
	ReadTimeout  time.Duration // (3 s)
	WriteTimeout time.Duration // (3 s)

	// Deadline bounds what Redis may add to a request, retries and waiting for
	// a connection included (100 ms). The timeouts above only bite where they
	// are shorter.
	Deadline time.Duration
}

const (
	defaultPrefix   = "users:"
	breakerFailures = 3           // in a row, then Redis is left alone …
	breakerPause    = time.Second // … for this long
	tokenTTL        = 24 * time.Hour
	tokenSize       = 16
	flushInterval   = 100 * time.Millisecond
)

// Users are spread over a fixed number of scopes, and all lists are one more.
// A write invalidates scopes, so what a replica has to remember when Redis is
// away is bounded.
const (
	listScope  = 1024
	scopeCount = listScope + 1
)

func userScope(id int64) int { return int(uint64(id) % listScope) }

// Cache is a Store that keeps what it reads in Redis (cache-aside).
//
// Each scope has a token in Redis, a random string. An entry begins with the
// token that its scope had before the database was asked, and is valid only
// while the scope has it still. A write deletes the tokens of its scopes after
// it is committed; a reader that finds none sets a new one. So an entry that
// was read before a write, but stored after it, is never valid, whatever the
// order in which things arrive.
//
// Redis is asked within Deadline, and behind a breaker: when it is slow or
// away, the store is asked at once. A write that could not delete its tokens
// remembers their scopes: they bypass the cache on this replica until the
// tokens are deleted. Other replicas may see their old entries until then, but
// never longer than TTL.
type Cache struct {
	Store
	client   *redis.Client
	prefix   string
	ttl      time.Duration
	deadline time.Duration
	breaker  breaker

	// mu guards lost, the scopes whose tokens must still be deleted, and added,
	// which counts the times that one was. anyLost is read without the lock.
	mu      sync.Mutex
	lost    map[int]struct{}
	added   uint64
	anyLost atomic.Bool
	wake    chan struct{}

	stop context.CancelFunc
	done chan struct{}

	hits, misses, bypassed, failed *metrics.Counter
}

// NewCache puts a cache before a store, which it closes with itself. Redis
// need not be there yet.
func NewCache(store Store, o CacheOptions, set *metrics.Set, log *slog.Logger) (*Cache, error) {
	options, err := redis.ParseURL(o.URL)
	if err != nil {
		var bad *url.Error
		if errors.As(err, &bad) {
			err = bad.Err // without the URL, which may hold a password
		}
		return nil, fmt.Errorf("parse Redis URL: %w", err)
	}
	options.Protocol = 2 // no pushes: nothing here listens to them
	options.DisableIdentity = true
	options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	options.ContextTimeoutEnabled = true // without it the deadline would mean nothing
	options.PoolSize = or(o.PoolSize, 10)
	options.MaxActiveConns = options.PoolSize
	options.MinIdleConns = min(max(or(o.MinIdle, 5), 0), options.PoolSize)
	options.MaxRetries = max(or(o.Retries, 3), -1)
	options.DialTimeout = or(o.DialTimeout, 5*time.Second)
	options.ReadTimeout = or(o.ReadTimeout, 3*time.Second)
	options.WriteTimeout = or(o.WriteTimeout, 3*time.Second)
	options.DialerRetries = 1 // Retries are enough
	options.PipelinePoolSize = -1

	ctx, stop := context.WithCancel(context.Background())
	c := &Cache{
		Store:    store,
		client:   redis.NewClient(options),
		prefix:   or(o.Prefix, defaultPrefix),
		ttl:      or(o.TTL, time.Minute),
		deadline: or(o.Deadline, 100*time.Millisecond),
		lost:     make(map[int]struct{}),
		wake:     make(chan struct{}, 1),
		stop:     stop,
		done:     make(chan struct{}),
		hits:     set.NewCounter(`users_cache_requests_total{result="hit"}`),
		misses:   set.NewCounter(`users_cache_requests_total{result="miss"}`),
		bypassed: set.NewCounter(`users_cache_requests_total{result="bypass"}`),
		failed:   set.NewCounter(`users_cache_requests_total{result="error"}`),
	}
	c.breaker = breaker{failures: breakerFailures, pause: breakerPause, flipped: func(open bool) {
		if open {
			log.Warn("Redis fails, going on without it")
		} else {
			log.Info("Redis answers again")
		}
	}}
	set.NewGauge("users_redis_breaker_open", func() float64 {
		if c.breaker.isOpen() {
			return 1
		}
		return 0
	})
	go c.flush(ctx)
	return c, nil
}

func or[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

// List answers from the cache where it can. Nothing is kept of an empty list:
// clients can invent pages without end.
func (c *Cache) List(ctx context.Context, q Query, page *Page) error {
	var buf [96]byte
	k := append(buf[:0], c.prefix...)
	switch q.Kind {
	case ByPage:
		k = append(k, "page:"...)
		k = strconv.AppendInt(k, int64(q.Page), 10)
	case ByCursor:
		k = append(k, "after:"...)
		k = q.After.append(k)
	case ByRole:
		k = append(k, "role:"...)
		k = append(k, q.Role...)
	}
	k = append(k, ':')
	k = strconv.AppendInt(k, int64(q.Size), 10)
	e := c.lookup(ctx, listScope, string(k), page)
	if e.hit {
		return nil
	}
	err := c.Store.List(ctx, q, page)
	if err == nil && len(page.Users) > 0 {
		c.fill(ctx, &e, page)
	}
	return err
}

func (c *Cache) User(ctx context.Context, id int64) (User, error) {
	var page Page
	e := c.lookup(ctx, userScope(id), c.prefix+"user:"+strconv.FormatInt(id, 10), &page)
	if e.hit && len(page.Users) == 1 && page.Users[0].ID == id {
		return page.Users[0], nil
	}
	u, err := c.Store.User(ctx, id)
	if err == nil {
		page.Reset()
		page.Users = append(page.Users, u)
		c.fill(ctx, &e, &page)
	}
	return u, err
}

// The writes invalidate whether they succeeded or not: one whose connection
// broke may have been committed all the same.

func (c *Cache) Create(ctx context.Context, drafts []Draft) ([]User, error) {
	created, err := c.Store.Create(ctx, drafts)
	c.invalidate(ctx, listScope) // nothing is kept of users that did not exist
	return created, err
}

func (c *Cache) Update(ctx context.Context, id int64, d Draft) (User, error) {
	u, err := c.Store.Update(ctx, id, d)
	c.invalidate(ctx, listScope, userScope(id))
	return u, err
}

func (c *Cache) Delete(ctx context.Context, id int64) error {
	err := c.Store.Delete(ctx, id)
	c.invalidate(ctx, listScope, userScope(id))
	return err
}

// PingRedis says whether Redis answers. It goes past the breaker.
func (c *Cache) PingRedis(ctx context.Context) error {
	return c.client.Ping(ctx).Err()
}

// Close closes the store, too.
func (c *Cache) Close() {
	c.stop()
	<-c.done
	_ = c.client.Close()
	c.Store.Close()
}

// entry is one passage of a request through the cache.
type entry struct {
	hit    bool
	key    string
	token  string        // that the entry must begin with; "" means do not fill
	budget time.Duration // what is left of the deadline
}

// lookup fills page, and says so, when the cache holds a valid entry.
func (c *Cache) lookup(ctx context.Context, scope int, key string, page *Page) entry {
	e := entry{key: key, budget: c.deadline}
	if c.anyLost.Load() && c.isLost(scope) {
		c.bypassed.Inc()
		return e
	}
	var values []any
	tokenKey := c.tokenKey(scope)
	err := c.ask(ctx, &e.budget, func(ctx context.Context) (err error) {
		values, err = c.client.MGet(ctx, tokenKey, key).Result()
		return err
	})
	if err != nil {
		return e
	}
	token, _ := values[0].(string)
	value, _ := values[1].(string)
	if len(token) == tokenSize {
		e.token = token
		if payload, ok := strings.CutPrefix(value, token); ok && parseStored(payload, page) == nil {
			c.hits.Inc()
			e.hit = true
			return e
		}
		page.Reset() // parseStored may have begun
		c.misses.Inc()
		return e
	}
	c.misses.Inc()
	token = rand.Text()[:tokenSize]
	_ = c.ask(ctx, &e.budget, func(ctx context.Context) error {
		set, err := c.client.SetNX(ctx, tokenKey, token, tokenTTL).Result()
		if set {
			e.token = token
		} // else somebody was faster: this passage fills nothing
		return err
	})
	return e
}

// fill stores page under the token that was valid before the store was asked.
func (c *Cache) fill(ctx context.Context, e *entry, page *Page) {
	if e.token == "" {
		return
	}
	value := make([]byte, 0, 64+160*len(page.Users))
	value = append(value, e.token...)
	value = appendStored(value, page)
	_ = c.ask(ctx, &e.budget, func(ctx context.Context) error {
		return c.client.Set(ctx, e.key, value, c.ttl).Err()
	})
}

func (c *Cache) invalidate(ctx context.Context, scopes ...int) {
	keys := make([]string, len(scopes))
	for i, scope := range scopes {
		keys[i] = c.tokenKey(scope)
	}
	budget := c.deadline
	// The write has happened, though its request may be over.
	err := c.ask(context.WithoutCancel(ctx), &budget, func(ctx context.Context) error {
		return c.client.Del(ctx, keys...).Err()
	})
	if err == nil {
		return
	}
	c.mu.Lock()
	for _, scope := range scopes {
		c.lost[scope] = struct{}{}
	}
	c.added++
	c.anyLost.Store(true)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *Cache) isLost(scope int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.lost[scope]
	return ok
}

// flush deletes the tokens that writes could not delete, until ctx ends.
func (c *Cache) flush(ctx context.Context) {
	defer close(c.done)
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		}
		for !c.flushOnce(ctx) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(flushInterval):
			}
		}
	}
}

// flushOnce says whether nothing is left to do.
func (c *Cache) flushOnce(ctx context.Context) bool {
	c.mu.Lock()
	added := c.added
	keys := make([]string, 0, len(c.lost))
	for scope := range c.lost {
		keys = append(keys, c.tokenKey(scope))
	}
	c.mu.Unlock()
	if len(keys) == 0 {
		return true
	}
	budget := c.deadline
	err := c.ask(ctx, &budget, func(ctx context.Context) error {
		return c.client.Del(ctx, keys...).Err()
	})
	if err != nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.added != added {
		return false // a write that was committed after this deletion
	}
	clear(c.lost)
	c.anyLost.Store(false)
	return true
}

func (c *Cache) tokenKey(scope int) string {
	return c.prefix + "token:" + strconv.Itoa(scope)
}

var errLeftAlone = errors.New("ask Redis: it is left alone after failures")

// ask runs one command within what is left of the budget, and behind the
// breaker.
func (c *Cache) ask(ctx context.Context, budget *time.Duration, command func(context.Context) error) error {
	start := time.Now()
	if *budget <= 0 || !c.breaker.allow(start) {
		c.bypassed.Inc()
		return errLeftAlone
	}
	ctx, cancel := context.WithTimeout(ctx, *budget)
	defer cancel()
	err := command(ctx)
	end := time.Now()
	*budget -= end.Sub(start)
	c.breaker.report(end, err == nil)
	if err != nil {
		c.failed.Inc()
	}
	return err
}
