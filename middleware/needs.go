package middleware

import (
	"slices"

	"gateway/exchange"
	"gateway/upstream/dependency"
)

// NeedsOptions say which backends the servers of a route cannot do without.
type NeedsOptions struct {
	// Names of [dependency] tables without which the servers cannot answer
	// this route's requests. While one of them is disconnected,
	// on_dependency_down decides, and a server that can be reached stays in
	// use although its health checks fail: one dead database does not take the
	// servers away from the routes that do not need it. Off when empty.
	Needs []string `toml:"needs"`

	// What happens while a needed dependency is disconnected. With fail,
	// requests are answered 503 at once instead of piling up in front of
	// servers that must fail. With serve_stale the cache answers with what it
	// still has, however stale, unless the origin has forbidden that, and what
	// it does not have is answered 503. With shed_writes only
	// requests that change something are answered 503; GET, HEAD, OPTIONS and
	// QUERY pass. With ignore all pass.
	OnDependencyDown string `toml:"on_dependency_down" default:"fail" enum:"fail,serve_stale,shed_writes,ignore"`
}

// Needs keeps requests from servers that must fail. Nil lets all pass.
type Needs struct {
	dependencies []*dependency.Dependency
	reads        bool // safe methods pass
	stale        bool // the cache may answer beyond its time
	all          bool // every method passes
}

// NewNeeds builds the stage with the dependencies of a configuration, nil when
// the route needs none.
func NewNeeds(o NeedsOptions, set *dependency.Set) *Needs {
	if len(o.Needs) == 0 {
		return nil
	}
	n := &Needs{reads: o.OnDependencyDown == "shed_writes", all: o.OnDependencyDown == "ignore", stale: o.OnDependencyDown == "serve_stale"}
	for _, name := range o.Needs {
		if d := set.Lookup(name); d != nil { // else it is not probed
			n.dependencies = append(n.dependencies, d)
		}
	}
	if n.dependencies == nil {
		return nil
	}
	return n
}

// Down reports whether a needed dependency is disconnected: an atomic load for
// each, nothing waits for a probe.
func (n *Needs) Down() bool {
	if n == nil {
		return false
	}
	for _, d := range n.dependencies {
		if d.Down() {
			return true
		}
	}
	return false
}

// Stale reports whether stale responses may be served while Before says no.
func (n *Needs) Stale() bool { return n != nil && n.stale }

// Failing reports whether a needed dependency is disconnected or its last probe
// failed: sooner than Down.
func (n *Needs) Failing() bool {
	return n != nil && slices.ContainsFunc(n.dependencies, (*dependency.Dependency).Failing)
}

// Doubtful reports whether it is not known of each needed dependency that it
// was well after that moment, as clock.Mono has it, and has that found out.
func (n *Needs) Doubtful(since int64) bool {
	if n == nil {
		return false
	}
	doubtful := false
	for _, d := range n.dependencies { // each is asked
		doubtful = d.Doubtful(since) || doubtful
	}
	return doubtful
}

// Before reports whether the request may go to a server; after false it has
// been answered 503.
func (n *Needs) Before(x *exchange.Exchange) bool {
	if n == nil || n.all || n.reads && x.Request.Method.Safe() || !n.Down() {
		return true
	}
	x.Fail(exchange.DependencyDown)
	return false
}
