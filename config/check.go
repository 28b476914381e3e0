package config

import (
	"fmt"
	"strings"

	"gateway/listener"
)

// check reports what does not fit together across tables.
func (c *Config) check(r *reporter) {
	c.checkAddresses(r)
	for _, name := range names(c.Limits) {
		c.checkStore(c.Limits[name], join("limit", name), r)
	}
	if c.Cache.Redis && c.Redis.URL == "" && !r.failed("redis") {
		r.problem("cache.redis", `true needs redis.url; want [redis] with url = "redis://host:6379/0"`)
	}
	for i := range c.Routes {
		route := &c.Routes[i]
		key := element("route", i)
		route.targets(func(inner, name string) {
			u, ok := c.Upstreams[name]
			if !ok && !r.failed(key+"."+inner) {
				r.problem(key+"."+inner, fmt.Sprintf("unknown upstream %q%s", name, suggestion(name, names(c.Upstreams))))
			}
			if ok && u.Retry.Attempts == 1 && route.Hedge.On() && !strings.HasPrefix(inner, "mirror") {
				r.problem(key+".hedge", fmt.Sprintf("upstream %q allows one attempt; want upstream.%s.retry.attempts = 2 at least", name, name))
			}
		})
		for j, name := range route.Needs {
			if _, ok := c.Dependencies[name]; !ok {
				r.problem(elementOf(key+".needs", j, len(route.Needs)), fmt.Sprintf("unknown dependency %q%s", name, suggestion(name, names(c.Dependencies))))
			}
		}
		if len(route.Needs) > 0 && route.Upstream == "" {
			r.problem(key+".needs", "only routes with an upstream need something")
		}
		route.CORS.resolve("cors policy", c.CORS, func(problem string) { r.problem(key+".cors", problem) })
		route.JWT.resolve("jwt", c.JWT, func(problem string) { r.problem(key+".jwt", problem) })
		route.Compress.resolve("compression", c.Compression, func(problem string) { r.problem(key+".compress", problem) })
		route.Cache.resolve("caching", c.Caching, func(problem string) { r.problem(key+".cache", problem) })
		if !route.Cache.off() && route.Upstream == "" {
			r.problem(key+".cache", "only responses of an upstream are cached")
		}
		c.checkLimits(route, key, r)
		for j := range i {
			if route.Name != "" && route.Name == c.Routes[j].Name {
				r.problem(key+".name", fmt.Sprintf("name %q is that of route[%d] already", route.Name, j))
				break
			}
		}
	}
	if len(c.Routes) > 0 || r.failed("route") {
		return
	}
	switch {
	case r.failed("upstream"):
	case len(c.Upstreams) == 0:
		r.problem("", "nothing to serve; want [upstream.NAME] with servers, or [[route]]")
	case len(c.Upstreams) > 1:
		r.problem("upstream", fmt.Sprintf("no route, and %d upstreams to choose from; want [[route]] with upstream = %q", len(c.Upstreams), names(c.Upstreams)[0]))
	}
}

// checkAddresses reports sockets that cannot be opened together, or should
// not be open at all.
func (c *Config) checkAddresses(r *reporter) {
	if len(c.Listen) == 0 && !r.failed("listen") {
		r.problem("listen", `missing; want an address such as ":8080"`)
	}
	c.checkAdmin(r)
	if !r.failed("probes") && c.Probes.Secure {
		r.problem("probes", `this listener does not speak TLS; want ":9181", "unix:/path" or "off"`)
	}

	type socket struct {
		key string
		listener.Address
	}
	var open []socket
	secure := ""
	for i, a := range c.Listen {
		s := socket{elementOf("listen", i, len(c.Listen)), a}
		if a.Secure && secure == "" {
			secure = s.key
		}
		open = append(open, s)
	}
	if secure != "" && len(c.TLS.Certificates) == 0 && !r.failed("tls") {
		r.problem(secure, `TLS needs a certificate; want [tls] with certificates = [{ cert = "site.pem", key = "site.key" }]`)
	}
	open = append(open, socket{adminKey(r), c.Admin.Address.Address}, socket{"probes", c.Probes.Address})
	for i, s := range open {
		if s.Address == (listener.Address{}) || r.failed(s.key) {
			continue
		}
		for _, earlier := range open[:i] {
			if overlap(s.Address, earlier.Address) {
				r.problem(s.key, fmt.Sprintf("%q is in use by %s = %q already", s.Address, earlier.key, earlier.Address))
				break
			}
		}
	}
}
