// Package redisclient makes the clients of the one Redis that gateways share,
// in the way that a request path wants them: no second tries, deadlines that
// mean something, and a breaker that keeps callers away from a Redis that fails.
// What is kept there belongs to the packages that use it; each has a client, and
// so a pool of connections, of its own.
package redisclient

import "time"

// Options say where the Redis is that several gateways share.
type Options struct {
	// The address: redis://user:password@host:6379/0, or rediss:// for TLS.
	// Several addresses, separated by commas, are a Redis Cluster; with
	// ?master_name=NAME they are Sentinels.
	URL string `toml:"url" secret:"true"`

	// Longest time that Redis may take for an answer, connecting included. With
	// store = "redis-strict" a request waits that long at most.
	Timeout time.Duration `toml:"timeout" default:"50ms" min:"1ms" max:"5s"`

	// Connections to each server of Redis, at most: for limits, and as many
	// again for the cache.
	PoolSize int `toml:"pool_size" default:"16" min:"1" max:"1000"`

	// What the names of all keys in Redis begin with. Gateways that share
	// limits and cached responses have the same.
	Prefix string `toml:"prefix" default:"gateway:"`
}

// Check reports a URL that is none.
func (o *Options) Check(report func(key, problem string)) {
	if o.URL == "" {
		return
	}
	if _, err := clientOptions(*o, o.Timeout); err != nil {
		report("url", err.Error())
	}
}
