package users

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/crypto/bcrypt"
)

// Options configures a Service. The zero value is a service on the in-memory
// store, without users, on a port that the kernel chooses.
type Options struct {
	// Listen is the host:port to listen on. Default: 127.0.0.1:0.
	Listen string

	// Name is what X-Served-By says. Default: hostname:port.
	Name string

	// Version is what /health says. Default: dev.
	Version string

	// DatabaseURL chooses PostgreSQL; without it users are kept in memory.
	DatabaseURL string

	// Seed is the number of users to begin with, 0 to 1,000,000. In memory, all
	// replicas with the same number begin with the same users. On PostgreSQL
	// only an empty table is filled, once, however many replicas start.
	Seed int

	// PoolSize is the largest number of database connections, 1 to 1,000.
	// Default: four times the CPUs.
	PoolSize int

	// StartTimeout bounds the wait for a database that does not answer yet.
	// Default: 30 s.
	StartTimeout time.Duration

	// RedisURL turns the cache on.
	RedisURL string

	// CacheTTL is the longest time that Redis keeps an entry; Cache-Control's
	// max-age derives from it. 1 s to 24 h; default: 60 s. A negative value
	// turns caching off: no Redis, and max-age=0.
	CacheTTL time.Duration

	// Cache are the finer settings of the cache; its URL and TTL are those
	// above.
	Cache CacheOptions

	// Workers is how many passwords are hashed at a time, 1 to 1,024. Default:
	// the CPUs.
	Workers int

	// BcryptCost is 4 to 20; each step doubles the work. Default: 10.
	BcryptCost int

	// Drain is how long a stopping service goes on accepting connections,
	// while /health is 503 and each answer says Connection: close. Default: none.
	Drain time.Duration

	// Grace is how long requests may take to end after that. Default: 10 s.
	Grace time.Duration

	// Ready, when not nil, is called once by Run with the bound host:port.
	Ready func(address string)

	// Log takes what happens rarely: start, stop, failures. Default: nothing.
	Log *slog.Logger

	// Tracer, when not nil, is told of each query to PostgreSQL.
	Tracer pgx.QueryTracer
}

// withDefaults returns o with its defaults, or what is wrong with it.
func (o Options) withDefaults() (Options, error) {
	o.Listen = or(o.Listen, "127.0.0.1:0")
	o.Version = or(o.Version, "dev")
	o.PoolSize = or(o.PoolSize, 4*runtime.GOMAXPROCS(0))
	o.StartTimeout = or(o.StartTimeout, 30*time.Second)
	o.CacheTTL = or(o.CacheTTL, time.Minute)
	o.Workers = or(o.Workers, runtime.GOMAXPROCS(0))
	o.BcryptCost = or(o.BcryptCost, bcrypt.DefaultCost)
	o.Grace = or(o.Grace, 10*time.Second)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	var errs []error
	check := func(ok bool, name string, value any, wanted string) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s: %v: want %s", name, value, wanted))
		}
	}
	check(0 <= o.Seed && o.Seed <= maxSeed, "Seed", o.Seed, "0 to 1000000")
	check(1 <= o.PoolSize && o.PoolSize <= 1000, "PoolSize", o.PoolSize, "1 to 1000")
	check(o.StartTimeout > 0, "StartTimeout", o.StartTimeout, "more than 0")
	check(o.CacheTTL < 0 || time.Second <= o.CacheTTL && o.CacheTTL <= 24*time.Hour,
		"CacheTTL", o.CacheTTL, "1s to 24h, or a negative value")
	check(1 <= o.Workers && o.Workers <= 1024, "Workers", o.Workers, "1 to 1024")
	check(bcrypt.MinCost <= o.BcryptCost && o.BcryptCost <= 20, "BcryptCost", o.BcryptCost, "4 to 20")
	check(o.Drain >= 0, "Drain", o.Drain, "0 or more")
	check(o.Grace > 0, "Grace", o.Grace, "more than 0")
	return o, errors.Join(errs...)
}

// FromEnv reads Options from the environment, which lookup (os.LookupEnv) looks
// into. A variable that is empty counts as absent. The error names each
// variable with a bad value, the value, and what is wanted.
//
//	LISTEN               host:port (127.0.0.1:0)
//	SERVED_BY            the name in X-Served-By (hostname:port)
//	DATABASE_URL         postgres://…; without it users are kept in memory
//	REDIS_URL            redis://…; without it nothing is cached there
//	SEED                 users to begin with, 0 to 1000000 (0)
//	DB_POOL_SIZE         1 to 1000 (4 × CPUs)
//	WORKER_POOL_SIZE     1 to 1024 (CPUs)
//	CACHE_TTL            seconds, or a duration such as 2m; 0 turns caching off (60s)
//	BCRYPT_COST          4 to 20 (10)
//	START_TIMEOUT        wait for the database at the start (30s)
//	DRAIN, GRACE         see Options (1s, 10s)
//	REDIS_PREFIX         of all keys (users:)
//	REDIS_POOL_SIZE      1 to 1000 (10)
//	REDIS_MIN_IDLE       0 to 1000 (5)
//	REDIS_RETRIES        0 to 10 (3)
//	REDIS_DIAL_TIMEOUT   (5s)
//	REDIS_READ_TIMEOUT   (3s)
//	REDIS_WRITE_TIMEOUT  (3s)
//	REDIS_DEADLINE       what Redis may add to a request (100ms)
func FromEnv(lookup func(name string) (string, bool)) (Options, error) {
	e := environment{lookup: lookup}
	o := Options{
		Listen:       e.text("LISTEN"),
		Name:         e.text("SERVED_BY"),
		DatabaseURL:  e.text("DATABASE_URL"),
		RedisURL:     e.text("REDIS_URL"),
		Seed:         e.number("SEED", 0, maxSeed, 0),
		PoolSize:     e.number("DB_POOL_SIZE", 1, 1000, 0),
		Workers:      e.number("WORKER_POOL_SIZE", 1, 1024, 0),
		BcryptCost:   e.number("BCRYPT_COST", bcrypt.MinCost, 20, 0),
		StartTimeout: e.duration("START_TIMEOUT", time.Second, time.Hour, 0),
		Drain:        e.duration("DRAIN", 0, time.Hour, time.Second),
		Grace:        e.duration("GRACE", time.Millisecond, time.Hour, 0),
		CacheTTL:     e.seconds("CACHE_TTL", time.Second, 24*time.Hour),
		Cache: CacheOptions{
			Prefix:       e.text("REDIS_PREFIX"),
			PoolSize:     e.number("REDIS_POOL_SIZE", 1, 1000, 0),
			MinIdle:      zeroIsNone(e.number("REDIS_MIN_IDLE", 0, 1000, 5)),
			Retries:      zeroIsNone(e.number("REDIS_RETRIES", 0, 10, 3)),
			DialTimeout:  e.duration("REDIS_DIAL_TIMEOUT", time.Millisecond, time.Minute, 0),
			ReadTimeout:  e.duration("REDIS_READ_TIMEOUT", time.Millisecond, time.Minute, 0),
			WriteTimeout: e.duration("REDIS_WRITE_TIMEOUT", time.Millisecond, time.Minute, 0),
			Deadline:     e.duration("REDIS_DEADLINE", time.Millisecond, time.Minute, 0),
		},
	}
	return o, errors.Join(e.errs...)
}

func zeroIsNone(n int) int {
	if n == 0 {
		return -1
	}
	return n
}

// environment reads variables and collects what is wrong with them.
type environment struct {
	lookup func(string) (string, bool)
	errs   []error
}

func (e *environment) text(name string) string {
	s, _ := e.lookup(name)
	return s
}

func (e *environment) number(name string, least, most, fallback int) int {
	s := e.text(name)
	if s == "" {
		return fallback
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > most {
		e.errs = append(e.errs, fmt.Errorf("%s: %q: want a whole number from %d to %d", name, s, least, most))
		return fallback
	}
	return n
}

func (e *environment) duration(name string, least, most, fallback time.Duration) time.Duration {
	s := e.text(name)
	if s == "" {
		return fallback
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < least || d > most {
		e.errs = append(e.errs, fmt.Errorf("%s: %q: want a duration with a unit, such as 500ms, from %v to %v", name, s, least, most))
		return fallback
	}
	return d
}

// seconds reads a duration that may be a bare number of seconds. 0 gives -1,
// absent gives 0.
func (e *environment) seconds(name string, least, most time.Duration) time.Duration {
	s := e.text(name)
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if n, err2 := strconv.ParseUint(s, 10, 31); err2 == nil {
		d, err = time.Duration(n)*time.Second, nil
	}
	switch {
	case err == nil && d == 0:
		return -1
	case err != nil || d < least || d > most:
		e.errs = append(e.errs, fmt.Errorf("%s: %q: want seconds, or a duration such as 2m, from %v to %v; 0 turns caching off", name, s, least, most))
		return 0
	}
	return d
}

// defaultName is hostname:port.
func defaultName(port int) string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return host + ":" + strconv.Itoa(port)
}
