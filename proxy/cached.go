package proxy

import (
	"bytes"

	"gateway/exchange"
	"gateway/internal/clock"
	"gateway/middleware"
	"gateway/middleware/cache"
	"gateway/wire"
)

// maxLooks bounds how often a request looks again because another one has just
// stored something, or given up; after that it asks the origin by itself.
const maxLooks = 8

// throughCache answers a request of a route that caches: with what is stored,
// which allocates nothing, or with what the origin says, which is stored for
// others. Where the request may have changed something, what is stored about it
// is removed.
func (t *target) throughCache(x *exchange.Exchange, snapshot *Snapshot) {
	s := t.cache
	body, ok := t.question(x)
	if !ok {
		return
	}
	collapse := true
	for looks := 1; ; looks++ {
		x.Trace.Begin("cache", "")
		verdict := s.Look(x, body)
		x.Trace.Done(verdict.String(), 0, false)
		switch verdict {
		case cache.Hit, cache.HitStale, cache.HitRefresh:
			t.hit(x, verdict)
			return
		case cache.Unavailable: // RFC 9111 section 5.2.1.7
			x.Fail(exchange.NotCached)
			s.Report(x, cache.ResultUnavailable, &cache.Report{Forward: x.Lookup.Forward})
			return
		case cache.Bypass:
			report := cache.Report{Forward: x.Lookup.Forward}
			if t.mayAsk(x) {
				t.forward(x)
				report.Status = originStatus(x)
				posted := t.posted(x)
				snapshot.invalidate(x, posted)
				if posted != nil {
					t.storePosted(x, posted, &report)
				}
			}
			s.Report(x, cache.ResultBypass, &report)
			return
		}
		if !t.needs.Before(x) {
			t.disconnected(x)
			return
		}
		role, flight, reader := s.Store.Begin(&x.Lookup, &x.Request, clock.Nanos(), collapse)
		switch role {
		case cache.Lead, cache.Alone:
			if flight != nil && t.recall(x, flight) { // another gateway has stored it
				t.hit(x, x.Lookup.Verdict)
				return
			}
			result, report := cache.ResultMiss, cache.Report{Forward: x.Lookup.Forward}
			if t.limit.ByMiss(x, &x.Limit) { // counts what the origin is asked
				result, report = t.ask(x, role, flight)
			} else {
				x.Reason = exchange.RateLimited
				if flight != nil {
					flight.Pass()
				}
			}
			if x.Sticky != nil && x.Response.Header != nil {
				x.Response.Header.AddID(wire.SetCookie, x.Sticky)
			}
			s.Report(x, result, &report)
			return
		case cache.Wait:
			var over bool
			if over, collapse = t.share(x, reader); over {
				return
			}
		}
		collapse = collapse && looks < maxLooks
	}
}

// recall asks the Redis tier. True when that has ended the flight and the lookup
// has something to serve.
func (t *target) recall(x *exchange.Exchange, f *cache.Flight) bool {
	over := false
	defer func() {
		if !over {
			f.Fail(errPanicked)
		}
	}()
	served := f.Recall(&x.Lookup, &x.Request, clock.Nanos())
	over = true
	return served
}

// question is the body of a request whose answer depends on it: nil for one
// that has none, or too much of it. After false the request has been answered.
func (t *target) question(x *exchange.Exchange) (body []byte, ok bool) {
	if x.Request.Method != wire.MethodQuery {
		return nil, true
	}
	if body, ok = t.takeBody(x); body == nil && x.Request.Length == 0 {
		body = []byte{}
	}
	return body, ok
}

// mayAsk reports whether the request may go to the origin; else it has been
// answered.
func (t *target) mayAsk(x *exchange.Exchange) bool {
	if !t.needs.Before(x) { // no request piles up in front of servers that must fail
		return false
	}
	if !t.limit.ByMiss(x, &x.Limit) { // counts what the origin is asked
		x.Reason = exchange.RateLimited
		return false
	}
	return true
}

// hit answers with the entry that was found.
func (t *target) hit(x *exchange.Exchange, verdict cache.Verdict) {
	result := cache.ResultHit
	switch verdict {
	case cache.HitStale:
		result = cache.ResultStale
	case cache.HitRefresh:
		result = cache.ResultRefresh
		t.refresh(x)
	}
	t.serveEntry(x, result, cache.Report{})
}

// serveEntry answers with the entry of the lookup.
func (t *target) serveEntry(x *exchange.Exchange, result cache.Result, report cache.Report) {
	report.TTL, report.HasTTL = x.Lookup.Terms.Left(clock.Nanos()), true
	t.cache.Serve(x)
	t.cache.Report(x, result, &report)
}

// disconnected answers a request whose dependency is down, and which has been
// answered 503: with a stale response if the configuration wants that and the
// origin does not forbid it (RFC 9111 section 4.2.4).
func (t *target) disconnected(x *exchange.Exchange) {
	l := &x.Lookup
	if t.needs.Stale() && l.Verdict == cache.Validate && l.Terms.MayDisconnected(&l.Asked.Control) {
		t.serveEntry(x, cache.ResultStale, cache.Report{})
		return
	}
	t.cache.Report(x, cache.ResultMiss, &cache.Report{Forward: l.Forward})
}

// share waits for the response to the request of another. After false the
// request is on its own again: it looks again and, if collapse says so, may wait
// again.
func (t *target) share(x *exchange.Exchange, r *cache.Reader) (over, collapse bool) {
	l, s := &x.Lookup, t.cache
	shared := cache.ShareNone
	if x.Waiting(r.Leave) {
		shared = r.Wait(l, &x.Request, clock.Nanos())
	}
	x.Waiting(nil)
	report := cache.Report{Forward: l.Forward, Collapsed: true}
	if x.Abandoned() {
		r.Close()
		x.Fail(exchange.ClientLeft)
		s.Report(x, cache.ResultCollapsed, &report)
		return true, false
	}
	switch shared {
	case cache.ShareBody:
		report.TTL, report.HasTTL = s.Share(x, r), true
		s.Report(x, cache.ResultCollapsed, &report)
		return true, false
	case cache.ShareAgain:
		r.Close()
		return false, true
	case cache.ShareFailed:
		reason, known := reasonOfFlight(r.Err())
		r.Close()
		if t.mayServeStale(x, known) {
			t.serveEntry(x, cache.ResultError, report)
			return true, false
		}
		if known {
			x.Fail(reason)
			s.Report(x, cache.ResultCollapsed, &report)
			return true, false
		}
		return false, false
	}
	r.Close()
	return false, false
}

// mayServeStale reports whether the entry that was to be validated may stand in
// for an answer that the origin failed to give. unanswered says that it gave none
// at all.
func (t *target) mayServeStale(x *exchange.Exchange, unanswered bool) bool {
	l := &x.Lookup
	if l.Verdict != cache.Validate && l.Verdict != cache.HitRefresh || !l.Entry.Valid() {
		return false
	}
	now := clock.Nanos()
	return l.Terms.MayOnError(&l.Asked.Control, now) || unanswered && t.cache.Policy.MayUnanswered(&l.Terms, &l.Asked.Control, now, l.Entry.Soft())
}

// originStatus is the status that the origin has given, 0 without an answer.
func originStatus(x *exchange.Exchange) int {
	if x.Reason == exchange.Done && x.Attempts > 0 {
		return x.Response.Status
	}
	return 0
}

// posted is a flight for the response to a POST that may answer a later GET, or
// nil. It is not stored while the rest of the request may still be on its way,
// nor where the origin knows the URL by another name.
func (t *target) posted(x *exchange.Exchange) *cache.Flight {
	if x.Request.Method != wire.MethodPost || originStatus(x) != 200 || x.Call.Upload != nil || x.Request.Length > maxDetached {
		return nil
	}
	if !bytes.Equal(x.Path, x.Request.Path) || !bytes.Equal(x.Query, x.Request.Query) {
		return nil
	}
	u, o := middleware.ClientURL(x), originOf(x)
	return t.cache.Store.Posted(&x.Lookup, &x.Request, &u, &o)
}

// storePosted is store for the flight of a POST.
func (t *target) storePosted(x *exchange.Exchange, f *cache.Flight, report *cache.Report) {
	handedOn := false
	defer func() {
		if !handedOn {
			f.Fail(errPanicked) // else it has ended
		}
	}()
	handedOn = t.store(x, f, false, report)
	x.Stored = nil // the client gets what it would have got without a cache
}

// invalidate follows a response to a request that may have changed something:
// what is stored about it in any route is removed (RFC 9111 section 4.4), but not
// by the flight of the response itself, which may be nil.
func (s *Snapshot) invalidate(x *exchange.Exchange, newer *cache.Flight) {
	if s.cache == nil || x.Request.Method.Safe() || originStatus(x) == 0 {
		return
	}
	u := middleware.ClientURL(x)
	s.cache.Invalidate(s.policies, x.Request.Method, &u, x.Response.Status, x.Response.Header, newer)
}
