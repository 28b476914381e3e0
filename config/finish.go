package config

import (
	"reflect"
	"strconv"
	"strings"
)

// finish fills in what follows from the rest of a valid configuration.
func (c *Config) finish() {
	if len(c.Routes) == 0 {
		name := names(c.Upstreams)[0]
		route := Route{Name: name, Upstream: name}
		fill(reflect.ValueOf(&route).Elem())
		c.Routes = []Route{route}
	}
	taken := map[string]bool{}
	for _, route := range c.Routes {
		taken[route.Name] = true
	}
	for i := range c.Routes {
		if route := &c.Routes[i]; route.Name == "" {
			route.Name = unique(route.ownName(), taken)
			taken[route.Name] = true
		}
	}
	c.nameLimits()
}

// ownName makes a name of the route's first host, first path and methods: it
// stays the same when other routes come and go, because it is the label under
// which the route is counted.
func (r *Route) ownName() string {
	var parts []string
	if len(r.Host) > 0 {
		parts = append(parts, r.Host[0])
	}
	if len(r.Path) > 0 {
		parts = append(parts, r.Path[0])
	}
	parts = append(parts, r.Methods...)
	var b strings.Builder
	for _, c := range []byte(strings.ToLower(strings.Join(parts, "-"))) {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_' {
			b.WriteByte(c)
		} else if s := b.String(); s != "" && s[len(s)-1] != '-' {
			b.WriteByte('-')
		}
	}
	name := b.String()
	if len(name) > maxName-8 {
		name = name[:maxName-8] // room for a number
	}
	if name = strings.Trim(name, "-"); name != "" {
		return name
	}
	if len(r.Path) > 0 && r.Path[0] == "/" {
		return "root"
	}
	return "all"
}

// unique is the name, with a number if it is taken.
func unique(name string, taken map[string]bool) string {
	for n, candidate := 2, name; ; n++ {
		if !taken[candidate] {
			return candidate
		}
		candidate = name + "-" + strconv.Itoa(n)
	}
}
