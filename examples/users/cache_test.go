package users

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gateway/internal/testenv"

	"github.com/VictoriaMetrics/metrics"
)

// generous is a deadline that a busy machine keeps.
const generous = 5 * time.Second

func newCache(t *testing.T, store Store, url string) *Cache {
	t.Helper()
	c, err := NewCache(store, CacheOptions{URL: url, Prefix: t.Name() + ":", Deadline: generous},
		metrics.NewSet(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// counting counts the reads that reach a store, and can be made to wait in
// them.
type counting struct {
	Store
	reads atomic.Int64
	// between, when not nil, runs between the read and its return.
	between func()
}

func (c *counting) List(ctx context.Context, q Query, page *Page) error {
	c.reads.Add(1)
	err := c.Store.List(ctx, q, page)
	if c.between != nil {
		c.between()
	}
	return err
}

func (c *counting) User(ctx context.Context, id int64) (User, error) {
	c.reads.Add(1)
	u, err := c.Store.User(ctx, id)
	if c.between != nil {
		c.between()
	}
	return u, err
}

var (
	anyQuery = Query{Page: 1, Size: 10}
	anyDraft = Draft{Name: "New", Email: "new@example.com", Role: "user", PasswordHash: "h"}
)

func TestSecondReadComesFromTheCache(t *testing.T) {
	store := &counting{Store: NewMemory(2000)}
	c := newCache(t, store, sharedRedis().URL())
	f := func(read func() any, reads int64) {
		t.Helper()
		store.reads.Store(0)
		first, second := read(), read()
		if !reflect.DeepEqual(first, second) {
			t.Errorf("first %+v, second %+v", first, second)
		}
		if n := store.reads.Load(); n != reads {
			t.Errorf("%d reads of the store; want %d", n, reads)
		}
	}
	list := func(q Query) func() any {
		return func() any {
			var p Page
			if err := c.List(t.Context(), q, &p); err != nil {
				t.Error(err)
			}
			p.Users = p.Users[:len(p.Users):len(p.Users)]
			return p
		}
	}
	f(list(anyQuery), 1)
	f(list(Query{Page: 1, Size: 11}), 1)
	f(list(Query{Page: 2, Size: 10}), 1)
	f(list(Query{Kind: ByCursor, Size: 10}), 1)
	f(list(Query{Kind: ByCursor, Size: 10, After: Cursor{seedEpoch.UnixMicro(), 1}}), 1)
	f(list(Query{Kind: ByRole, Role: "admin", Size: 10}), 1)
	f(list(Query{Kind: ByRole, Role: "editor", Size: 10}), 1)
	f(func() any { u, err := c.User(t.Context(), 7); return []any{u, err} }, 1)
	// Users of one scope are told apart.
	f(func() any { u, err := c.User(t.Context(), 7+listScope); return []any{u, err} }, 1)
	// What does not exist is not kept.
	f(list(Query{Page: 1000, Size: 10}), 2)
	f(func() any { _, err := c.User(t.Context(), 5000); return err }, 2)
}

func TestWritesOfOneReplicaAreSeenByAnother(t *testing.T) {
	store := NewMemory(5)
	c1 := newCache(t, store, sharedRedis().URL())
	c2 := newCache(t, store, sharedRedis().URL())
	see := func(name string, total int64) {
		t.Helper()
		for i, c := range []*Cache{c1, c2, c1} {
			var p Page
			if err := c.List(t.Context(), anyQuery, &p); err != nil || p.Total != total || p.Users[1].Name != name {
				t.Errorf("replica %d: %+v, %v; want total %d, name %q", i, p, err, total, name)
			}
			if u, err := c.User(t.Context(), 2); err != nil || u.Name != name {
				t.Errorf("replica %d: user %+v, %v; want name %q", i, u, err, name)
			}
		}
	}
	see("Alan Bartik", 5)
	created, err := c1.Create(t.Context(), []Draft{anyDraft})
	if err != nil {
		t.Fatal(err)
	}
	see("Alan Bartik", 6)
	if _, err := c2.Update(t.Context(), 2, Draft{Name: "Other", Email: "other@example.com", Role: "user"}); err != nil {
		t.Fatal(err)
	}
	see("Other", 6)
	if u, err := c2.User(t.Context(), created[0].ID); err != nil || u.Name != "New" {
		t.Fatalf("user %+v, %v", u, err)
	}
	if err := c1.Delete(t.Context(), created[0].ID); err != nil {
		t.Fatal(err)
	}
	see("Other", 5)
	if _, err := c2.User(t.Context(), created[0].ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("a deleted user: %v; want ErrNotFound", err)
	}
}

// A read from before a write that arrives in the cache after it must not be
// believed.
func TestEntryThatWasReadBeforeAWriteIsNeverValid(t *testing.T) {
	store := &counting{Store: NewMemory(5)}
	c := newCache(t, store, sharedRedis().URL())
	for range 2 { // with and without a token to begin with
		var once sync.Once
		store.between = func() {
			once.Do(func() {
				if _, err := c.Update(t.Context(), 2, Draft{Name: "Fresh", Email: "user2@example.com", Role: "user"}); err != nil {
					t.Error(err)
				}
			})
		}
		if u, err := c.User(t.Context(), 2); err != nil {
			t.Fatalf("stale read: %+v, %v", u, err)
		}
		once = sync.Once{}
		var p Page
		if err := c.List(t.Context(), anyQuery, &p); err != nil {
			t.Fatal(err)
		}
		store.between = nil
		if u, err := c.User(t.Context(), 2); err != nil || u.Name != "Fresh" {
			t.Errorf("user %+v, %v; want Fresh", u, err)
		}
		p.Reset()
		if err := c.List(t.Context(), anyQuery, &p); err != nil || p.Users[1].Name != "Fresh" {
			t.Errorf("list %+v, %v; want Fresh", p.Users[1], err)
		}
		if _, err := c.Update(t.Context(), 2, Draft{Name: "Stale", Email: "user2@example.com", Role: "user"}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.User(t.Context(), 3); err != nil { // leaves tokens behind
			t.Fatal(err)
		}
	}
}

func TestGarbageInTheCacheIsAMiss(t *testing.T) {
	c := newCache(t, NewMemory(5), sharedRedis().URL())
	if _, err := c.User(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	token := c.client.Get(t.Context(), c.tokenKey(userScope(2))).Val()
	if len(token) != tokenSize {
		t.Fatalf("token %q", token)
	}
	for _, garbage := range []string{"", "x", token, token + "\x01", token + "\x02\x00", token + strings.Repeat("\xff", 40)} {
		if err := c.client.Set(t.Context(), c.prefix+"user:2", garbage, time.Minute).Err(); err != nil {
			t.Fatal(err)
		}
		if u, err := c.User(t.Context(), 2); err != nil || u.ID != 2 {
			t.Errorf("%q: user %+v, %v", garbage, u, err)
		}
	}
	if ttl := c.client.PTTL(t.Context(), c.prefix+"user:2").Val(); ttl <= 0 || ttl > time.Minute {
		t.Errorf("entry lives for %v; want at most a minute", ttl)
	}
}

func TestServiceGoesOnWithoutRedis(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]struct{ begin, end func(*testenv.Server) }{
		"killed": {(*testenv.Server).Kill, (*testenv.Server).Restart},
		"frozen": {(*testenv.Server).Freeze, (*testenv.Server).Thaw},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			redis := testenv.StartRedis(t)
			r := start(t, Options{Seed: 100, RedisURL: redis.URL()})
			r.get("/users")
			fault.begin(redis)
			var slowest atomic.Int64
			var wg sync.WaitGroup
			for w := range 16 {
				wg.Go(func() {
					for i := range 20 {
						method, path, body := "GET", fmt.Sprintf("/users?page=%d", i+1), ""
						switch i % 5 {
						case 0:
							path = fmt.Sprintf("/users/%d", i+1)
						case 1:
							method, path, body = "POST", "/users", fmt.Sprintf(`{"name":"N","email":"n%d-%d@example.com","password_hash":"h"}`, w, i)
						}
						a, err := r.try(method, path, body)
						if err != nil || a.status >= 300 {
							t.Errorf("%s %s: %d, %v", method, path, a.status, err)
							return
						}
						for old := slowest.Load(); int64(a.took) > old && !slowest.CompareAndSwap(old, int64(a.took)); old = slowest.Load() {
						}
					}
				})
			}
			wg.Wait()
			// Twentyfold, for a busy machine. Without the deadline it would be 3 s
			// and more: read timeout times retries.
			if took := time.Duration(slowest.Load()); took > 2*time.Second {
				t.Errorf("slowest request took %v; want about 100 ms", took)
			}
			t.Logf("slowest request: %v", time.Duration(slowest.Load()))
			if h := decode[map[string]string](t, r.want(200, r.get("/health"))); h["status"] != "degraded" || h["redis"] != "disconnected" {
				t.Errorf("health %v", h)
			}
			if total := r.list("/users").Pagination.Total; total != 164 {
				t.Errorf("total %d; want 164", total)
			}
			fault.end(redis)
			cache := r.service.store.(*Cache)
			poll(t, "deletion of lost tokens", func() bool { return !cache.anyLost.Load() })
			if total := r.list("/users").Pagination.Total; total != 164 {
				t.Errorf("total %d after Redis came back; want 164", total)
			}
			hits := cache.hits.Get()
			poll(t, "hit", func() bool { r.get("/users"); return cache.hits.Get() > hits })
		})
	}
}

// What a replica wrote while Redis was away must not be hidden by an entry
// from before, once Redis is back.
func TestEntriesFromBeforeAnOutageAreNotBelieved(t *testing.T) {
	t.Parallel()
	redis := testenv.StartRedis(t)
	c := newCache(t, NewMemory(5), redis.URL())
	c.deadline = 100 * time.Millisecond
	var p Page
	poll(t, "hit", func() bool {
		p.Reset()
		return c.List(t.Context(), anyQuery, &p) == nil && c.hits.Get() > 0
	})
	redis.Freeze()
	if _, err := c.Create(t.Context(), []Draft{anyDraft}); err != nil {
		t.Fatal(err)
	}
	redis.Thaw()
	for ended := false; !ended; {
		ended = !c.anyLost.Load()
		p.Reset()
		if err := c.List(t.Context(), anyQuery, &p); err != nil || p.Total != 6 {
			t.Fatalf("total %d, %v; want 6", p.Total, err)
		}
	}
}

func TestUselessRedisURLIsRefusedWithoutShowingIt(t *testing.T) {
	for _, url := range []string{"redis://:s3cret@host:port", "http://:s3cret@host", "redis://:s3cret@host/x"} {
		if _, err := New(t.Context(), Options{RedisURL: url}); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: error %v", url, err)
		}
	}
}

func TestBreaker(t *testing.T) {
	var flips []bool
	b := breaker{failures: 3, pause: time.Second, flipped: func(open bool) { flips = append(flips, open) }}
	now := time.Unix(0, 0)
	report := func(ok bool) { b.report(now, ok) }
	allow := func(want bool) {
		t.Helper()
		if b.allow(now) != want {
			t.Fatalf("at %v: allowed %v; want %v", now.Unix(), !want, want)
		}
	}
	report(false)
	report(false)
	report(true) // failures count in a row
	report(false)
	report(false)
	allow(true)
	report(false)
	allow(false)
	now = now.Add(999 * time.Millisecond)
	allow(false)
	now = now.Add(time.Millisecond)
	allow(true)  // the trial
	allow(false) // one at a time
	report(false)
	allow(false)
	now = now.Add(time.Second)
	allow(true)
	report(true)
	allow(true)
	allow(true)
	if fmt.Sprint(flips) != "[true false]" {
		t.Errorf("flips %v", flips)
	}
}

func FuzzParseStored(f *testing.F) {
	var page Page
	page.Changed = seedEpoch
	f.Add(string(appendStored(nil, &page)))
	_ = NewMemory(20).List(f.Context(), Query{Kind: ByCursor, Size: 10}, &page)
	f.Add(string(appendStored(nil, &page)))
	f.Add("\x01\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
	f.Fuzz(func(t *testing.T, s string) {
		var p, again Page
		if parseStored(s, &p) != nil {
			return
		}
		if err := parseStored(string(appendStored(nil, &p)), &again); err != nil || !reflect.DeepEqual(p, again) {
			t.Errorf("%q: %+v; again %+v, %v", s, p, again, err)
		}
	})
}
