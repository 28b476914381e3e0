package cache

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"gateway/internal/ascii"
	"gateway/internal/unit"
)

// Options are the cache that all routes share.
type Options struct {
	// Memory for stored responses: bodies, headers, keys, the index and
	// everything else that an entry costs, and responses that are just being
	// received. It is a hard limit and outside the Go heap. A change takes effect
	// when the gateway is restarted.
	Memory unit.Size `toml:"memory" default:"256MiB" min:"1MiB" max:"1024GiB"`

	// Freshness of responses whose origin gives none, on routes whose own ttl is
	// "0s".
	TTL time.Duration `toml:"ttl" default:"0s" min:"0s" max:"365d"`

	// Largest response that is stored. Larger ones stream past. A quarter of
	// the memory of a shard (16 MiB in a cache that is larger than that) is the
	// most that is possible.
	MaxObject unit.Size `toml:"max_object" default:"4MiB" min:"1KiB" max:"4MiB"`

	// How long it is remembered that a response could not be shared. While it
	// is, requests for it go to the origin side by side instead of waiting for
	// each other. "0s" forgets at once: every wave of requests then waits for
	// one answer before it goes on.
	UncacheableTTL time.Duration `toml:"uncacheable_ttl" default:"10s" min:"0s" max:"1h"`

	// Longest time that a request waits for the response to another one before
	// it goes to the origin by itself.
	CollapseTimeout time.Duration `toml:"collapse_timeout" default:"5s" min:"1ms" max:"10m"`

	// Share stored responses, and purges, with the gateways that have the same
	// Redis: a response that one of them has stored is none that the others ask
	// the origin for. Memory comes first; Redis is asked for what is not there,
	// before the origin, and gets a compressed copy of what the origin gives.
	// Needs [redis]. Give that Redis a maxmemory, and volatile-lru or
	// volatile-lfu as its policy.
	Redis bool `toml:"redis" default:"false"`

	// Longest time that a request which has to go to the origin waits for Redis
	// first. Redis that is late a few times in a row is left alone until it
	// answers again.
	RedisTimeout time.Duration `toml:"redis_timeout" default:"10ms" min:"1ms" max:"1s"`

	// Responses that wait to be written to Redis, at most; further ones are not
	// written. Each takes the length of its key.
	RedisQueue int `toml:"redis_queue" default:"4096" min:"1" max:"1000000"`

	// With redis: while purges of other gateways may not arrive because Redis is
	// away, what was stored or validated longer ago than this counts as stale.
	// So it is at most this late that a purge takes effect. A long time spares
	// the origin while Redis is away.
	PurgeLag time.Duration `toml:"purge_lag" default:"5s" min:"1s" max:"365d"`

	// A file in which stored responses are kept while the gateway restarts: it
	// is written when the gateway stops and read when it starts, each for 10 s
	// at most. It is readable by the gateway's user alone. Off when empty.
	Save string `toml:"save"`

	// Tell clients and other caches in Cache-Status what happened here.
	Status bool `toml:"status" default:"true"`

	// The name of this cache in Cache-Status: a token.
	Identifier string `toml:"identifier" default:"gateway"`
}

// Check reports options that make no sense.
func (o *Options) Check(report func(key, problem string)) {
	if tokenLen([]byte(o.Identifier)) != len(o.Identifier) || o.Identifier == "" || ascii.Lower[o.Identifier[0]] < 'a' || ascii.Lower[o.Identifier[0]] > 'z' {
		report("identifier", fmt.Sprintf("unexpected %q; want a token that begins with a letter", o.Identifier))
	}
}

// RouteOptions say what of a route is cached, and for how long. The origin's
// Cache-Control is followed wherever it says something, as RFC 9111 asks of a
// shared cache.
type RouteOptions struct {
	// Freshness of responses whose origin gives none. It counts for the
	// statuses 200, 203, 204, 206, 300, 301, 308 and 410; status_ttl names others.
	// Responses that are private, no-store or set a cookie are not stored in
	// any case. "0s" takes the ttl of [cache].
	TTL time.Duration `toml:"ttl" default:"0s" min:"0s" max:"365d"`

	// Shortest freshness of what is stored, even if the origin wants less.
	// Clients then get responses that the origin calls stale.
	MinTTL time.Duration `toml:"min_ttl" default:"0s" min:"0s" max:"365d"`

	// Longest freshness, even if the origin allows more. "0s" is no bound.
	MaxTTL time.Duration `toml:"max_ttl" default:"0s" min:"0s" max:"365d"`

	// Freshness by status for responses whose origin gives none, such as
	// { 404 = "10s", 503 = "1s" }. "0s" keeps that status out of the cache.
	StatusTTL map[string]string `toml:"status_ttl"`

	// How long after its freshness a response is served at once while a new
	// one is fetched in the background, where the origin says nothing about
	// it and does not forbid it. "0s" is off.
	StaleWhileRevalidate time.Duration `toml:"stale_while_revalidate" default:"0s" min:"0s" max:"365d"`

	// How long after its freshness a response is served when the origin
	// fails, where the origin says nothing about it and does not forbid it.
	// "0s" is off.
	StaleIfError time.Duration `toml:"stale_if_error" default:"0s" min:"0s" max:"365d"`

	// How long after its freshness a response is served when the origin gives
	// no answer at all: it cannot be reached, closes the connection or takes
	// too long. Not where the origin forbids it, as with must-revalidate or
	// s-maxage, or says with stale-if-error how long; nor what was purged
	// softly; nor to clients that want a fresh response. It is only served
	// while it is kept (keep). "0s" is off: clients then get 502, 503 or 504.
	StaleIfDisconnected time.Duration `toml:"stale_if_disconnected" default:"1m" min:"0s" max:"365d"`

	// How long a response that is no longer fresh is kept so that it can be
	// validated, which saves its body, or served while a dependency is down.
	Keep time.Duration `toml:"keep" default:"1h" min:"0s" max:"365d"`

	// Guess the freshness of responses whose origin gives none: a tenth of the
	// time since Last-Modified, at most a day, for the statuses for which RFC
	// 9110 allows it. Changes can stay unseen for as long.
	Heuristic bool `toml:"heuristic" default:"false"`

	// What is not regarded: "cache-control" and "expires" of responses,
	// "targeted" fields, "set-cookie" (the field is taken out of what is
	// stored), "vary" (every client gets the same response: dangerous), and
	// "request" (clients' Cache-Control and Pragma).
	Ignore []string `toml:"ignore" enum:"cache-control,expires,targeted,set-cookie,vary,request"`

	// Response fields that speak to this cache in place of Cache-Control and
	// Expires, the first that is valid counts (RFC 9213). Their values are
	// dictionaries of structured fields.
	Targeted []string `toml:"targeted" default:"CDN-Cache-Control"`

	// The room of keys that the route stores in. Routes with the same name
	// share what they store, which is only right if they lead to the same
	// content. Empty: the route's name.
	Namespace string `toml:"namespace"`

	// What the query is to the key: "keep" takes it as it is, "sort" orders
	// its parameters by name, "ignore" leaves it out.
	Query string `toml:"query" default:"keep" enum:"keep,sort,ignore"`

	// Names of the only parameters that are part of the key. The others reach
	// the origin and must make no difference there. Off when empty.
	QueryOnly []string `toml:"query_only"`

	// Names of parameters that are not part of the key, such as "utm_source";
	// "utm_*" is every name that begins so. Beside query_only, those of its
	// names that are not. Off when empty.
	QueryExcept []string `toml:"query_except"`

	// One request goes to the origin, and others for the same response wait
	// for it.
	Collapse bool `toml:"collapse" default:"true"`

	// Largest response of the route that is stored. "0" is the cache's limit.
	MaxObject unit.Size `toml:"max_object" default:"0"`
}

// Check reports options that make no sense.
func (o *RouteOptions) Check(report func(key, problem string)) {
	if o.MaxTTL > 0 && o.MinTTL > o.MaxTTL {
		report("min_ttl", "is longer than max_ttl")
	}
	for status, ttl := range o.StatusTTL {
		if n, err := strconv.Atoi(status); err != nil || n < 200 || n > 599 || n == 304 {
			report("status_ttl", fmt.Sprintf("unexpected status %q; want 200 to 599, not 304", status))
		}
		if d, err := unit.ParseDuration(ttl); err != nil {
			report("status_ttl", err.Error())
		} else if d > maxTTL {
			report("status_ttl", fmt.Sprintf("%q is longer than a year", ttl))
		}
	}
	for _, name := range o.Targeted {
		if tokenLen([]byte(name)) != len(name) || name == "" {
			report("targeted", fmt.Sprintf("unexpected field name %q", name))
		}
	}
	if o.Query == "ignore" && len(o.QueryOnly)+len(o.QueryExcept) > 0 {
		report("query", `"ignore" makes no sense beside query_only and query_except`)
	}
	for _, list := range [][]string{o.QueryOnly, o.QueryExcept} {
		for _, name := range list {
			if name == "" || strings.ContainsAny(name, "&=#") || strings.Contains(strings.TrimSuffix(name, "*"), "*") {
				report("query_only", fmt.Sprintf("unexpected parameter name %q", name))
			}
		}
	}
}

const maxTTL = 365 * 24 * time.Hour

// ignored is a set of what a route does not regard.
type ignored uint8

const (
	ignoreCacheControl ignored = 1 << iota
	ignoreExpires
	ignoreSetCookie
	ignoreVary
	ignoreRequest
)

// Policy is the caching of a route, ready for use. It does not change and may
// be used by many goroutines.
type Policy struct {
	ttl, minTTL, maxTTL  int64 // ns
	staleWhileRevalidate int64 // ns
	staleIfError         int64 // ns
	staleIfDisconnected  int64 // ns
	keep                 int64 // ns
	statusTTL            map[int]int64
	heuristic            bool
	ignore               ignored
	targeted             []string
	namespace            string
	query                queryRule
	Collapse             bool
	MaxObject            int64 // bytes, 0 for the cache's
	Protected            bool  // requests count as authorised, whatever fields they have
}

// NewPolicy makes a policy of options that have passed their Check. name is the
// namespace where the options give none.
func NewPolicy(o RouteOptions, name string) *Policy {
	p := &Policy{
		ttl:                  int64(o.TTL),
		minTTL:               int64(o.MinTTL),
		maxTTL:               int64(o.MaxTTL),
		staleWhileRevalidate: int64(o.StaleWhileRevalidate),
		staleIfError:         int64(o.StaleIfError),
		staleIfDisconnected:  int64(o.StaleIfDisconnected),
		keep:                 int64(o.Keep),
		heuristic:            o.Heuristic,
		targeted:             slices.Clone(o.Targeted),
		namespace:            o.Namespace,
		query:                newQueryRule(o),
		Collapse:             o.Collapse,
		MaxObject:            int64(o.MaxObject),
	}
	if p.namespace == "" {
		p.namespace = name
	}
	for _, name := range o.Ignore {
		switch name {
		case "cache-control":
			p.ignore |= ignoreCacheControl
		case "expires":
			p.ignore |= ignoreExpires
		case "targeted":
			p.targeted = nil
		case "set-cookie":
			p.ignore |= ignoreSetCookie
		case "vary":
			p.ignore |= ignoreVary
		case "request":
			p.ignore |= ignoreRequest
		default:
			panic("BUG: ignore was not checked: " + name)
		}
	}
	for status, ttl := range o.StatusTTL {
		n, err := strconv.Atoi(status)
		d, err2 := unit.ParseDuration(ttl)
		if err != nil || err2 != nil {
			panic("BUG: status_ttl was not checked: " + status)
		}
		if p.statusTTL == nil {
			p.statusTTL = make(map[int]int64, len(o.StatusTTL))
		}
		p.statusTTL[n] = int64(d)
	}
	return p
}
