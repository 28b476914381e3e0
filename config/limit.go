package config

import (
	"fmt"
	"maps"

	"gateway/middleware/ratelimit"
)

// defaultLimit is the policy of routes that say nothing about limits.
var defaultLimit = new(ratelimit.Options).DefaultName()

// NamedLimit is a policy under the name that clients and metrics see. Those
// in line have the name of their route, with a number if it is taken.
type NamedLimit struct {
	Name    string
	Options ratelimit.Options
}

// Limits are the policies in effect on the route, at most
// ratelimit.MaxPolicies, each once; nil when nothing is limited.
func (r *Route) Limits() (list []NamedLimit) {
	for i := range r.Limit {
		if c := &r.Limit[i]; !c.off() {
			list = append(list, NamedLimit{r.limitNames[i], *c.Value})
		}
	}
	return list
}

// AllLimits are all policies by name: the [limit] tables, whether or not a
// route uses them, and those that routes have in line.
func (c *Config) AllLimits() map[string]ratelimit.Options {
	all := maps.Clone(c.Limits)
	if all == nil {
		all = map[string]ratelimit.Options{}
	}
	for i := range c.Routes {
		for _, l := range c.Routes[i].Limits() {
			all[l.Name] = l.Options
		}
	}
	return all
}

// checkLimits finds the policies that a route names, and reports those that it
// cannot have.
func (c *Config) checkLimits(route *Route, key string, r *reporter) {
	key += ".limit"
	n := len(route.Limit)
	if n > ratelimit.MaxPolicies {
		r.problem(key, fmt.Sprintf("%d policies; want at most %d", n, ratelimit.MaxPolicies))
	}
	seen := map[string]bool{}
	for i := range route.Limit {
		choice, at := &route.Limit[i], elementOf(key, i, n)
		switch _, known := c.Limits[choice.Name]; {
		case r.failed(at):
		case choice.off() && n > 1:
			r.problem(at, "unexpected false; want names and tables, or limit = false for no limit at all")
		case choice.off():
		case choice.Name == "":
			c.checkStore(*choice.Value, at, r)
		case choice.Name == defaultLimit && !known:
			if !r.failed("limit") {
				r.problem(at, fmt.Sprintf("there is no [limit.%s], which true stands for", defaultLimit))
			}
		case seen[choice.Name]:
			r.problem(at, fmt.Sprintf("limit %q is given twice", choice.Name))
		default:
			seen[choice.Name] = true
			choice.resolve("limit", c.Limits, func(problem string) { r.problem(at, problem) })
		}
	}
}

// checkStore reports a policy whose buckets are in a Redis that nobody knows.
func (c *Config) checkStore(o ratelimit.Options, key string, r *reporter) {
	if o.Store != "local" && c.Redis.URL == "" && !r.failed("redis") && !r.failed(key+".store") {
		r.problem(key+".store", fmt.Sprintf(`%q needs redis.url; want [redis] with url = "redis://host:6379/0"`, o.Store))
	}
}

// nameLimits gives routes that say nothing about limits the default policy,
// and policies in line a name.
func (c *Config) nameLimits() {
	taken := map[string]bool{}
	for name := range c.Limits {
		taken[name] = true
	}
	for i := range c.Routes {
		route := &c.Routes[i]
		switch options, ok := c.Limits[defaultLimit]; {
		case route.Limit == nil && ok:
			route.Limit = []Choice[ratelimit.Options]{{Name: defaultLimit, Value: &options}}
		case route.Limit != nil && len(route.Limit) == 0:
			route.Limit = []Choice[ratelimit.Options]{{}} // limit = [] is off, like false
		}
		route.limitNames = nil
		for j := range route.Limit {
			name := route.Limit[j].Name
			if name == "" && !route.Limit[j].off() {
				name = unique(route.Name, taken)
				taken[name] = true
			}
			route.limitNames = append(route.limitNames, name)
		}
	}
}

// warnLimits reports policies that limit nothing.
func (c *Config) warnLimits(r *reporter) {
	used := map[string]bool{}
	for i := range c.Routes {
		for _, l := range c.Routes[i].Limits() {
			for _, s := range l.Options.Key {
				if s.Kind == ratelimit.ByClaim && c.Routes[i].JWT.Value == nil {
					r.warning(element("route", i)+".limit", fmt.Sprintf("limit %q counts by %s, and the route has no jwt: no request has that claim", l.Name, s))
				}
			}
		}
		for _, name := range c.Routes[i].limitNames {
			used[name] = true
		}
	}
	for _, name := range names(c.Limits) {
		key := join("limit", name)
		if _, inFile := r.lines[key]; inFile && !used[name] {
			r.warning(key, "no route uses this limit")
		}
	}
}
