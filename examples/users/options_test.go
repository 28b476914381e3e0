package users

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func fromEnv(t *testing.T, variables ...string) (Options, error) {
	t.Helper()
	return FromEnv(func(name string) (string, bool) {
		for _, v := range variables {
			if value, ok := strings.CutPrefix(v, name+"="); ok {
				return value, true
			}
		}
		return "", false
	})
}

func TestEnvironment(t *testing.T) {
	o, err := fromEnv(t, "LISTEN=:80", "SERVED_BY=n", "DATABASE_URL=postgres://h/d", "REDIS_URL=redis://h", "SEED=5",
		"DB_POOL_SIZE=7", "WORKER_POOL_SIZE=3", "CACHE_TTL=90", "BCRYPT_COST=12", "START_TIMEOUT=1m", "DRAIN=2s", "GRACE=3s",
		"REDIS_PREFIX=p:", "REDIS_POOL_SIZE=11", "REDIS_MIN_IDLE=0", "REDIS_RETRIES=0", "REDIS_DIAL_TIMEOUT=1s",
		"REDIS_READ_TIMEOUT=2s", "REDIS_WRITE_TIMEOUT=4s", "REDIS_DEADLINE=50ms")
	want := Options{Listen: ":80", Name: "n", DatabaseURL: "postgres://h/d", RedisURL: "redis://h", Seed: 5, PoolSize: 7,
		Workers: 3, CacheTTL: 90 * time.Second, BcryptCost: 12, StartTimeout: time.Minute, Drain: 2 * time.Second, Grace: 3 * time.Second,
		Cache: CacheOptions{Prefix: "p:", PoolSize: 11, MinIdle: -1, Retries: -1, DialTimeout: time.Second,
			ReadTimeout: 2 * time.Second, WriteTimeout: 4 * time.Second, Deadline: 50 * time.Millisecond}}
	if err != nil || !reflect.DeepEqual(o, want) {
		t.Errorf("%+v, %v; want %+v", o, err, want)
	}
	if o, err := fromEnv(t); err != nil || o.Drain != time.Second || o.CacheTTL != 0 {
		t.Errorf("empty environment: %+v, %v", o, err)
	}
	for value, want := range map[string]time.Duration{"": 0, "0": -1, "0s": -1, "1": time.Second, "2m": 2 * time.Minute, "86400": 24 * time.Hour} {
		if o, err := fromEnv(t, "CACHE_TTL="+value); err != nil || o.CacheTTL != want {
			t.Errorf("CACHE_TTL=%s: %v, %v; want %v", value, o.CacheTTL, err, want)
		}
	}
}

func TestBadEnvironmentIsToldAtOnce(t *testing.T) {
	bad := []string{"DB_POOL_SIZE=0", "WORKER_POOL_SIZE=many", "CACHE_TTL=-5", "SEED=1000001", "BCRYPT_COST=3", "DRAIN=5",
		"GRACE=0s", "REDIS_POOL_SIZE=1.5", "REDIS_RETRIES=11", "REDIS_DEADLINE=0s"}
	_, err := fromEnv(t, bad...)
	if err == nil {
		t.Fatal("no error")
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != len(bad) {
		t.Errorf("%d errors; want %d:\n%v", len(lines), len(bad), err)
	}
	for _, v := range bad {
		name, value, _ := strings.Cut(v, "=")
		if !strings.Contains(err.Error(), name+`: "`+value+`": want `) {
			t.Errorf("no error names %s and %q:\n%v", name, value, err)
		}
	}
	for _, value := range []string{"500ms", "25h", "1e3", "4294967296", "soon"} {
		if _, err := fromEnv(t, "CACHE_TTL="+value); err == nil {
			t.Errorf("CACHE_TTL=%s is accepted", value)
		}
	}
}

func TestBadOptionsAreRefused(t *testing.T) {
	for name, o := range map[string]Options{
		"Seed": {Seed: -1}, "PoolSize": {PoolSize: 1001}, "CacheTTL": {CacheTTL: time.Millisecond}, "Workers": {Workers: -1},
		"BcryptCost": {BcryptCost: 31}, "Drain": {Drain: -1}, "Grace": {Grace: -1}, "StartTimeout": {StartTimeout: -1},
	} {
		if _, err := New(t.Context(), o); err == nil || !strings.Contains(err.Error(), name+": ") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}
