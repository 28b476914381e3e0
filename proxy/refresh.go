package proxy

import (
	"runtime/debug"

	"gateway/exchange"
	"gateway/internal/clock"
	"gateway/middleware/cache"
)

// refreshing is a request that renews what is stored while the client has the
// stale response already (RFC 5861 section 3).
type refreshing struct {
	target *target
	flight *cache.Flight
	x      *exchange.Exchange
}

// refresh renews the entry of the lookup in the background, unless somebody
// does so already.
func (t *target) refresh(x *exchange.Exchange) {
	if t.needs.Down() {
		return
	}
	f, begun := t.cache.Store.Refresh(&x.Lookup, &x.Request)
	if !begun {
		return
	}
	task := &refreshing{t, f, x.Detach()}
	if !t.gateway.workers.submit(task) {
		task.drop()
	}
}

func (r *refreshing) run() {
	x, t := r.x, r.target
	defer func() {
		if p := recover(); p != nil {
			t.gateway.counters.panics.Inc()
			t.gateway.log.Error("panic while a stored response was renewed; please report it",
				"panic", p, "route", t.info.Name, "stack", string(debug.Stack()))
			r.flight.Fail(errPanicked)
		}
		t.gateway.part(x)
		exchange.Release(x)
	}()
	body, _ := t.question(x)
	switch verdict := t.cache.Look(x, body); {
	case verdict == cache.Hit || verdict == cache.Bypass: // renewed already
		r.flight.Pass()
	case r.flight.Recall(&x.Lookup, &x.Request, clock.Nanos()): // by another gateway
	default:
		result, report := t.ask(x, cache.Lead, r.flight)
		switch {
		case result == cache.ResultRevalidated:
			t.gateway.counters.refreshes[refreshRevalidated].Inc()
		case report.Stored:
			t.gateway.counters.refreshes[refreshStored].Inc()
		default:
			t.gateway.counters.refreshes[refreshFailed].Inc()
		}
	}
}

func (r *refreshing) cancel() { r.x.Abandon() }

func (r *refreshing) drop() {
	r.target.gateway.counters.refreshes[refreshDropped].Inc()
	r.flight.Pass()
	exchange.Release(r.x)
}

// What becomes of refreshes.
const (
	refreshStored      = iota // the origin gave another response
	refreshRevalidated        // what is stored is still right
	refreshFailed             // the origin failed, or its response may not be stored
	refreshDropped            // too many were waiting
	refreshResults
)

var refreshNames = [refreshResults]string{"stored", "revalidated", "failed", "dropped"}
