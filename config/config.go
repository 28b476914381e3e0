// Package config reads the gateway's configuration: one TOML file, variables
// in its strings, and a few environment variables that override it.
//
// Reading is strict. Every mistake is found in one pass and reported with its
// line, the key, what was found and what is wanted. The options themselves
// live beside the code that obeys them, as plain structs with tags; this
// package arranges them, and derives from the same structs the defaults, the
// JSON Schema, the reference and the view of what is in effect.
//
// Key paths in messages are those of the file, with elements counted from 0:
// route[2].path, upstream.users.servers[0].weight.
package config

import (
	"slices"

	"gateway/accesslog"
	"gateway/internal/redisclient"
	"gateway/listener"
	"gateway/middleware"
	"gateway/middleware/cache"
	"gateway/middleware/compress"
	"gateway/middleware/ratelimit"
	"gateway/tracing"
	"gateway/upstream"
	"gateway/upstream/dependency"
)

// Config is a whole configuration, defaults filled in. It is immutable once
// Parse has returned it.
type Config struct {
	// Where clients connect: one address or a list. ":8080" is port 8080 of
	// all interfaces, "127.0.0.1:8080" and "[::1]:8080" that of one, a leading
	// "https://" speaks TLS, "unix:/run/gateway.sock" is a Unix socket.
	Listen []listener.Address `toml:"listen"`

	// An address for Prometheus and orchestrators that may be reachable from
	// other machines: it answers /metrics, /livez and /readyz and nothing
	// else. "off" for none.
	Probes OptionalAddress `toml:"probes" default:"off"`

	// Client connections that are open at the same time, all listeners
	// together. Further ones are answered with 503 and closed.
	MaxConnections int `toml:"max_connections" default:"100000" min:"1" max:"10000000"`

	// Pools of servers, by name. Names consist of letters, digits, _ and -.
	Upstreams map[string]upstream.Options `toml:"upstream"`

	// Backends that the servers need, by name: their probes say when routes
	// that need them cannot be served.
	Dependencies map[string]dependency.Options `toml:"dependency"`

	// What happens to which request. Routes are tried in the order of the
	// file, and the first one that matches decides; a request that none
	// matches is answered 404. A request must meet all conditions of a route;
	// a route without conditions takes every request. Each route needs exactly
	// one action: upstream, redirect or respond. With exactly one upstream and
	// no route, all requests go to that upstream.
	Routes []Route `toml:"route"`

	// Policies, by name, that tell browsers which other sites may read the
	// answers of a route. The gateway answers preflight requests itself, and
	// its policy replaces whatever CORS fields the origin sends.
	CORS map[string]middleware.CORSOptions `toml:"cors"`

	// JSON Web Tokens, by name, that let clients in, for routes to name.
	JWT map[string]middleware.TokenOptions `toml:"jwt"`

	// Policies, by name, that limit the requests of clients, for routes to
	// name. The names are seen by clients in RateLimit fields, and in metrics.
	// Routes without limit have the policy default if there is one.
	Limits map[string]ratelimit.Options `toml:"limit"`

	// The Redis in which gateways share the buckets of limits whose store is
	// redis or redis-strict, and with redis of [cache] stored responses.
	Redis redisclient.Options `toml:"redis"`

	// Ways to compress responses, by name, for routes to name.
	Compression map[string]compress.Options `toml:"compress"`

	// What the routes that cache have in common: the memory for stored
	// responses, and more.
	Cache cache.Options `toml:"cache"`

	// Ways to cache responses, by name, for routes to name.
	Caching map[string]cache.RouteOptions `toml:"caching"`

	// Work in the background that no client waits for, such as the renewal of
	// stored responses, is done by so many workers at a time.
	Workers int `toml:"workers" default:"16" min:"1" max:"1024"`

	// Limits and deadlines on the side of the clients.
	Client listener.Options `toml:"client"`

	// Certificates of the https:// addresses.
	TLS listener.TLS `toml:"tls"`

	// What is written about each request, and where to: "stdout", "stderr", a
	// file, or "off". A table [access_log] sets more than the output.
	AccessLog accesslog.Options `toml:"access_log" default:"stdout"`

	// Where operators connect, with a browser too: metrics, health, status,
	// reload, profiles. "127.0.0.1:9180", "unix:/path", or "off"; a table
	// [admin] sets more than the address.
	Admin Admin `toml:"admin" default:"127.0.0.1:9180"`

	// Spans of requests for a collector of OpenTelemetry.
	Tracing tracing.Options `toml:"tracing"`

	// How the gateway stops.
	Shutdown Shutdown `toml:"shutdown"`

	// How a changed configuration takes effect.
	Reload Reload `toml:"reload"`

	// The gateway's own log, on standard error.
	Log Log `toml:"log"`

	// Questions about single requests, asked with them.
	Explain middleware.ExplainOptions `toml:"explain"`

	source source
}

// Caches reports whether any route caches.
func (c *Config) Caches() bool {
	return slices.ContainsFunc(c.Routes, func(r Route) bool { return r.Cache.Value != nil })
}
