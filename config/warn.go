package config

import (
	"fmt"
	"net/textproto"
	"strings"

	"gateway/internal/match"
)

// warn reports what a valid configuration probably does not mean.
func (c *Config) warn(r *reporter) {
	for _, key := range names(c.source.overridden) {
		if o := c.source.overridden[key]; o.inFile {
			r.warnings = append(r.warnings, Problem{Source: r.name, Line: r.lines.of(key), Key: key,
				Text: fmt.Sprintf("has no effect while %s is set in the environment", o.variable)})
		}
	}
	c.warnAdmin(r)
	secure := false
	for _, a := range c.Listen {
		secure = secure || a.Secure
	}
	if len(c.TLS.Certificates) > 0 && !secure {
		r.warning("tls.certificates", `no address speaks TLS; write one as "https://:8443"`)
	}
	for i, p := range c.Client.TrustedProxies {
		if p.Bits() == 0 {
			r.warning(elementOf("client.trusted_proxies", i, len(c.Client.TrustedProxies)), "every client can claim any address")
		}
	}
	used := map[string]bool{}
	policies := map[string]bool{}
	compression := map[string]bool{}
	tokens := map[string]bool{}
	caching := map[string]bool{}
	for i := range c.Routes {
		c.Routes[i].targets(func(_, name string) { used[name] = true })
		policies[c.Routes[i].CORS.Name] = true
		compression[c.Routes[i].Compress.Name] = true
		tokens[c.Routes[i].JWT.Name] = true
		caching[c.Routes[i].Cache.Name] = true
	}
	for _, name := range names(c.Upstreams) {
		if !used[name] {
			r.warning(join("upstream", name), "no route uses this upstream")
		}
		c.warnUpstream(r, name)
	}
	for _, name := range names(c.CORS) {
		if !policies[name] {
			r.warning(join("cors", name), "no route uses this policy")
		}
	}
	for _, name := range names(c.Compression) {
		if !compression[name] {
			r.warning(join("compress", name), "no route uses this")
		}
	}
	for _, name := range names(c.JWT) {
		if !tokens[name] {
			r.warning(join("jwt", name), "no route uses this")
		}
	}
	for _, name := range names(c.Caching) {
		if !caching[name] {
			r.warning(join("caching", name), "no route uses this")
		}
	}
	c.warnLimits(r)
	c.warnShadowed(r)
	for i := range c.Routes {
		c.Routes[i].warn(element("route", i), r)
	}
}

func (c *Config) warnUpstream(r *reporter, name string) {
	u, key := c.Upstreams[name], join("upstream", name)
	_, retry := r.lines[key+".retry.attempts"]
	_, health := r.lines[key+".health"]
	serving, weighted, host := 0, true, false
	for _, s := range u.Servers {
		if !s.Backup {
			serving++
		}
		host = host || namesHost(s.Address)
		weighted = weighted && s.Backup
	}
	switch {
	case weighted:
		r.warning(key+".servers", "every server is a backup; they serve as if none were")
	case len(u.Servers) == 1 && !host && retry && u.Retry.Attempts > 1:
		r.warning(key+".retry", "retries go to another server, and there is only one")
	case len(u.Servers) > 1 && !health:
		r.warning(key, "no health checks: only requests that fail show that a server is down; set health = true, or false to say that this is meant")
	}
	if !u.TLS.Verify {
		r.warning(key+".tls.verify", "certificates are not verified: anybody on the way to the servers can read and change what is sent")
	}
	if u.Health.On && u.Health.Timeout > u.Health.Interval {
		r.warning(key+".health.timeout", "longer than the interval; checks of a slow server are late")
	}
}

// namesHost reports whether a server's address is a host name, which may
// stand for several servers.
func namesHost(address string) bool {
	_, host, ok := strings.Cut(address, "://")
	if !ok {
		host = address
	}
	return !strings.HasPrefix(address, "unix:") && !strings.HasPrefix(host, "[") &&
		!strings.HasPrefix(host, "localhost:") && strings.Trim(host, "0123456789.:") != ""
}

// warnShadowed reports routes that no request reaches. The work is bounded:
// beyond a thousand routes only neighbours that far apart are compared.
func (c *Config) warnShadowed(r *reporter) {
	const window = 1000
	rules := make([]match.Rule, len(c.Routes))
	for i := range c.Routes {
		rules[i] = c.Routes[i].Rule()
		for j := max(0, i-window); j < i; j++ {
			if match.Covers(rules[j], rules[i]) {
				r.warning(element("route", i), fmt.Sprintf("can never match: route[%d] (%s) takes all of its requests; move it up", j, c.Routes[j].Name))
				break
			}
		}
	}
}

// upstreamOnly are options that mean nothing where the gateway answers itself.
var upstreamOnly = []string{
	"strip_prefix", "add_prefix", "set_request_headers", "add_request_headers", "remove_request_headers",
	"connect_timeout", "first_byte_timeout", "between_timeout", "timeout", "priority", "hedge", "buffer_body", "websocket", "tunnel_idle_timeout",
}

func (route *Route) warn(key string, r *reporter) {
	if route.Upstream == "" {
		for _, option := range upstreamOnly {
			if _, set := r.lines[key+"."+option]; set {
				r.warning(key+"."+option, "has no effect without upstream")
			}
		}
	}
	if route.StripPrefix != "" && len(route.Path) > 0 {
		matched := false
		for _, p := range route.Path {
			matched = matched || strings.HasPrefix(p, strings.TrimSuffix(route.StripPrefix, "/")) || strings.Contains(p, "{") || p == "/*" || p == "*"
		}
		if !matched {
			r.warning(key+".strip_prefix", fmt.Sprintf("no path of the route begins with %q", route.StripPrefix))
		}
	}
	if route.FirstByteTimeout > 0 && route.Timeout > 0 && route.FirstByteTimeout > route.Timeout {
		r.warning(key+".first_byte_timeout", "longer than the route's timeout, which ends the exchange before")
	}
	for _, l := range []struct {
		set, remove string
		fields      map[string]string
		removed     []string
	}{
		{"set_request_headers", "remove_request_headers", route.SetRequestHeaders, route.RemoveRequestHeaders},
		{"set_response_headers", "remove_response_headers", route.SetResponseHeaders, route.RemoveResponseHeaders},
	} {
		for i, name := range l.removed {
			for set := range l.fields {
				if textproto.CanonicalMIMEHeaderKey(name) == textproto.CanonicalMIMEHeaderKey(set) {
					r.warning(elementOf(key+"."+l.remove, i, len(l.removed)), fmt.Sprintf("%s sets %s anyway", l.set, set))
				}
			}
		}
	}
}
