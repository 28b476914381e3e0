package config

import "gateway/internal/unit"

// Mirror sends copies of requests to another upstream.
type Mirror struct {
	// The upstream that gets the copies.
	Upstream string `toml:"upstream"`

	// The share of the requests that is copied, drawn at random.
	Share unit.Percent `toml:"share" default:"100%"`
}

// Check reports a mirror without an upstream.
func (m *Mirror) Check(report func(key, problem string)) {
	if m.Upstream == "" {
		report("upstream", "missing; want the name of the upstream that gets the copies")
	}
}

// targets are the upstreams that the route sends something to, by the key
// that names each.
func (r *Route) targets(each func(key, name string)) {
	if r.Upstream != "" {
		each("upstream", r.Upstream)
	}
	for _, name := range names(r.Split) {
		each(join("split", name), name)
	}
	if r.Mirror != nil && r.Mirror.Upstream != "" {
		each("mirror.upstream", r.Mirror.Upstream)
	}
}

// checkShares reports a split, or a mirror, that is none.
func (r *Route) checkShares(report func(key, problem string)) {
	if r.Upstream == "" {
		if len(r.Split) > 0 {
			report("split", "only routes with an upstream can be split")
		}
		if r.Mirror != nil {
			report("mirror", "only routes with an upstream can be mirrored")
		}
		return
	}
	sum := unit.Percent(0)
	for _, name := range names(r.Split) {
		sum += r.Split[name]
		if name == r.Upstream {
			report(join("split", name), "is the route's upstream, which gets what the others do not")
		}
	}
	if sum > 100 {
		report("split", sum.String()+" in all; want 100% at most")
	}
}
