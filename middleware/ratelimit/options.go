package ratelimit

import (
	"fmt"
	"strings"
	"time"

	"gateway/internal/redisclient"
	"gateway/internal/unit"
)

// Options are a policy that limits requests. A policy limits exactly one thing:
// rate, concurrency or bandwidth. Several policies on a route must all agree,
// and a request that one of them refuses takes nothing from the others.
type Options struct {
	// Requests a second, minute, hour or day that each key may send, such as
	// "100/s" or "10/m". At most 100,000,000 a second.
	Rate unit.Rate `toml:"rate"`

	// Requests that a key may send at once after a pause; over any time t at
	// most burst + rate × t pass. 0 is as many as the rate gives in a second,
	// and at least one. What it takes to fill the bucket must not be longer
	// than a year.
	Burst int `toml:"burst" default:"0" min:"0" max:"1000000000"`

	// Requests of a key that may be under way at the same time. 0 is off.
	Concurrency int `toml:"concurrency" default:"0" min:"0" max:"1000000"`

	// Bytes of response bodies a second that each key gets, all of its requests
	// together, after a first quarter of a second's worth. "0" is off.
	Bandwidth unit.Size `toml:"bandwidth" default:"0" max:"1GiB"`

	// What tells clients apart, or a list of which the first that the request
	// has counts: "ip", "header:NAME", "cookie:NAME", "query:NAME", "path",
	// "route", "jwt:CLAIM" when access control found one, or "global" for one
	// bucket in all. Requests that have none of the list share one bucket, so
	// that leaving a header out is no way around a limit. Where clients can
	// invent values, put the limit on something that they can't invent too.
	Key []Source `toml:"key" default:"ip"`

	// Bits of an IPv4 address that make one client.
	IPv4Prefix int `toml:"ipv4_prefix" default:"32" min:"1" max:"32"`

	// Bits of an IPv6 address that make one client. A household or a machine
	// usually owns a /64; more bits let it be billions of clients.
	IPv6Prefix int `toml:"ipv6_prefix" default:"64" min:"1" max:"128"`

	// What a request of a method costs, such as { POST = 5, GET = 1 }. Other
	// methods cost 1, and 0 is free. Nothing costs more than burst.
	Cost map[string]int `toml:"cost"`

	// A request field whose number is what the request costs, if that is more
	// than its method does. Clients may leave it out: it is for what a trusted
	// proxy writes, or what a request asks for and gets, such as a page size.
	CostHeader string `toml:"cost_header"`

	// Addresses and ranges of clients that are not limited, such as
	// "10.0.0.0/8". Off when empty.
	Exempt []unit.Prefix `toml:"exempt"`

	// Which requests count: all, or with miss only those that the cache does
	// not answer.
	On string `toml:"on" default:"request" enum:"request,miss"`

	// Longest time that a request may wait for its turn instead of being
	// refused. "0s" refuses at once. Not with store = "redis", which never
	// waits.
	Delay time.Duration `toml:"delay" default:"0s" min:"0s" max:"30s"`

	// Requests that may wait at the same time because of delay, all keys
	// together; further ones are refused. Each holds a connection and memory.
	DelayQueue int `toml:"delay_queue" default:"100" min:"1" max:"100000"`

	// Count what would be refused, and refuse nothing.
	DryRun bool `toml:"dry_run" default:"false"`

	// Where buckets live. With local each gateway has its own. With redis all
	// gateways of one Redis share them: each takes tokens ahead of time, so
	// that no request waits for Redis; together they may exceed the limit by
	// what 60 ms of the rate give, plus an eighth of the burst or one request
	// for each gateway, whichever is more. With redis-strict Redis decides
	// about each request: exact, at the price of a round trip.
	Store string `toml:"store" default:"local" enum:"local,redis,redis-strict"`

	// What happens while Redis is away or slow. With local each gateway gives
	// its share: the rate divided by the number of gateways that were last seen.
	// With open all requests pass, with closed none. When Redis is back its
	// buckets lack what was given meanwhile, so that there is no burst.
	RedisDown string `toml:"redis_down" default:"local" enum:"local,open,closed"`

	// Keys that are remembered at the same time. Each costs 21 bytes in the
	// store local, about 200 in redis. Keys that are being limited are never
	// forgotten; when there are more than fit, new ones share some buckets.
	MaxKeys int `toml:"max_keys" default:"1000000" min:"64" max:"100000000"`

	// The fields in which clients are told about the limit: draft sends
	// RateLimit and RateLimit-Policy, x-ratelimit sends X-RateLimit-Limit,
	// -Remaining and -Reset. Refusals always have Retry-After.
	Headers string `toml:"headers" default:"draft" enum:"draft,x-ratelimit,none"`

	// Send these fields with every response, not just with refusals.
	Announce bool `toml:"announce" default:"false"`

	// The body of a refusal: problem is a document after RFC 9457 that names
	// the policy, json the same as plain JSON, text a line of text.
	Body string `toml:"body" default:"problem" enum:"problem,json,text"`

	// A file that is the body of refusals instead. It is read when the
	// configuration is loaded, and its ending tells its type. At most 1 MiB.
	Page string `toml:"page"`
}

// RedisOptions say where the buckets are that several gateways share.
type RedisOptions = redisclient.Options

const (
	maxRate   = 100_000_000                        // a second
	longest   = 365 * 24 * int64(time.Hour)        // that a bucket takes to fill, ns
	paceShare = 4                                  // of a second's bandwidth may go at once
	second    = uint64(time.Second) * unitsPerNano // units
)

// MaxPolicies is how many policies a route may have.
const MaxPolicies = 8

// kind is what a policy limits.
type kind uint8

const (
	limitsRate kind = iota
	limitsConcurrency
	limitsBandwidth
)

func (o *Options) kind() kind {
	switch {
	case o.Concurrency > 0:
		return limitsConcurrency
	case o.Bandwidth > 0:
		return limitsBandwidth
	}
	return limitsRate
}

// burst is the burst in effect.
func (o *Options) burst() int64 {
	if o.Burst > 0 {
		return int64(o.Burst)
	}
	return max(1, o.Rate.Count*int64(time.Second)/int64(o.Rate.Per))
}

// scale is the cost of a token and the largest debt, in units.
func (o *Options) scale() (cost, window uint64) {
	switch o.kind() {
	case limitsConcurrency:
		return 1, uint64(o.Concurrency) // at the moment 0, which never passes: a count
	case limitsBandwidth:
		return max(1, second/uint64(o.Bandwidth)), second / paceShare
	}
	per := uint64(o.Rate.Per) * unitsPerNano
	count := uint64(o.Rate.Count)
	cost = (per + count/2) / count
	return cost, cost * uint64(o.burst())
}

// DefaultName is the name of the policy that true stands for: a limit without
// a number has no meaning.
func (*Options) DefaultName() string { return "default" }

// Check reports what does not fit together.
func (o *Options) Check(report func(key, problem string)) {
	var limits []string
	if o.Rate.Count > 0 {
		limits = append(limits, "rate")
	}
	if o.Concurrency > 0 {
		limits = append(limits, "concurrency")
	}
	if o.Bandwidth > 0 {
		limits = append(limits, "bandwidth")
	}
	switch len(limits) {
	case 0:
		report("", `limits nothing; want rate = "100/s", concurrency or bandwidth`)
		return
	case 1:
	default:
		report("", strings.Join(limits, " and ")+" are policies of their own; want one of them, and several policies on the route")
		return
	}
	only := limits[0]
	if only != "rate" {
		for _, wrong := range []struct {
			key string
			set bool
		}{{"burst", o.Burst > 0}, {"delay", o.Delay > 0}, {"cost", len(o.Cost) > 0}, {"cost_header", o.CostHeader != ""}, {"store", o.Store != "local"}} {
			if wrong.set {
				report(wrong.key, "has no meaning together with "+only)
			}
		}
	} else {
		o.checkRate(report)
	}
	if only == "bandwidth" && o.DryRun {
		report("dry_run", "has no meaning together with bandwidth, which refuses nothing")
	}
	if o.Delay > 0 && o.Store == "redis" {
		report("delay", `has no meaning together with store = "redis"; want store = "local" or "redis-strict"`)
	}
	if len(o.Key) == 0 {
		report("key", `no key; want "ip", or "global" for one bucket in all`)
	}
	if o.CostHeader != "" && !sourceName(Source{ByHeader, o.CostHeader}) {
		report("cost_header", fmt.Sprintf("%q is no field name", o.CostHeader))
	}
}

func (o *Options) checkRate(report func(key, problem string)) {
	if o.Rate.Count*int64(time.Second)/int64(o.Rate.Per) > maxRate {
		report("rate", fmt.Sprintf("%s is out of range; want at most %d/s", o.Rate, maxRate))
		return
	}
	if float64(o.burst())/float64(o.Rate.Count)*float64(o.Rate.Per) > float64(longest) {
		report("burst", fmt.Sprintf("%d takes longer than a year to fill at %s", o.burst(), o.Rate))
	}
	for method, cost := range o.Cost {
		switch {
		case !sourceName(Source{ByHeader, method}):
			report("cost."+method, fmt.Sprintf("%q is no method", method))
		case cost < 0 || int64(cost) > o.burst():
			report("cost."+method, fmt.Sprintf("%d is out of range; want 0 to the burst, which is %d", cost, o.burst()))
		}
	}
}
