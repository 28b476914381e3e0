package cache

import "gateway/wire"

// Asked is what a request says to caches. It holds no slices of the request.
type Asked struct {
	Method     wire.Method
	Control    RequestControl
	Authorized bool // Authorization is there
	Body       bool // there is a body
	Ranged     bool // Range is there
}

// Ask reads a request. It allocates nothing.
func (p *Policy) Ask(q *wire.Request) Asked {
	a := Asked{
		Method:     q.Method,
		Authorized: p.Protected || q.Has(wire.Authorization),
		Body:       q.Length != 0,
		Ranged:     q.Has(wire.Range),
	}
	if p.ignore&ignoreRequest == 0 {
		a.Control = ParseRequestControl(&q.Header)
	} else {
		a.Control = RequestControl{MaxAge: unset, MaxStale: unset, MinFresh: unset, StaleIfError: unset}
	}
	return a
}

// Cacheable reports whether the cache has anything to do with the request at
// all: GET and HEAD without a body, and QUERY.
func (a *Asked) Cacheable() bool {
	switch a.Method {
	case wire.MethodGet, wire.MethodHead:
		return !a.Body
	case wire.MethodQuery:
		return true
	}
	return false
}

// Use is what may be done with a stored response.
type Use uint8

const (
	UseFresh    Use = iota // serve it
	UseStale               // serve it although it is stale: the client agrees
	UseRefresh             // serve it stale, and fetch a new one meanwhile
	UseValidate            // ask the origin first
)

// May decides whether a stored response that is what the request asks for may
// be used for it (RFC 9111 section 4; RFC 5861; RFC 8246). soft says that
// it was purged softly: it counts as stale from now on. It allocates nothing.
func (t *Terms) May(q *RequestControl, now int64, soft bool) Use {
	if q.Has(NoCache) || t.Control.Has(NoCache) {
		return UseValidate
	}
	age, left := t.Age(now), t.Left(now)
	if soft {
		left = min(left, 0)
	}
	fresh := left > 0
	if q.MaxAge != unset && age > q.MaxAge*second || q.MaxAge == 0 {
		// An immutable response does not change while it is fresh, so that a
		// reload has nothing to ask for.
		if !(fresh && t.Control.Has(Immutable)) {
			return UseValidate
		}
	}
	if q.MinFresh != unset && left < q.MinFresh*second {
		return UseValidate
	}
	if fresh {
		return UseFresh
	}
	if !t.MayBeStale() {
		return UseValidate
	}
	if q.Has(MaxStaleAny) || q.MaxStale != unset && -left <= q.MaxStale*second {
		return UseStale
	}
	if q.MaxAge == unset && q.MinFresh == unset && -left < t.StaleWhileRevalidate {
		return UseRefresh
	}
	return UseValidate
}

// MayOnError reports whether a stale response may stand in for an answer that
// the origin failed to give (RFC 5861 section 4).
func (t *Terms) MayOnError(q *RequestControl, now int64) bool {
	if !t.MayBeStale() {
		return false
	}
	left := t.Left(now)
	return left > 0 || -left < t.StaleIfError || q.StaleIfError != unset && -left < q.StaleIfError*second
}

// MayUnanswered reports whether a stale response may be served because the
// origin gave no answer: the cache is disconnected then (RFC 9111 section 4.2.4).
// What client or origin say about how stale it may be goes before the route's
// stale_if_disconnected. soft says that it was, or may have been, purged: then
// nobody knows since when it is outdated.
func (p *Policy) MayUnanswered(t *Terms, q *RequestControl, now int64, soft bool) bool {
	if soft || t.Control.Has(ErrorWindow) || q.StaleIfError != unset || q.MaxAge != unset || q.MaxStale != unset || q.MinFresh != unset {
		return false
	}
	return t.MayDisconnected(q) && -t.Left(now) < p.staleIfDisconnected
}

// MayDisconnected reports whether a stale response may be served because the
// origin cannot be reached, as configured for a dependency that is down (RFC
// 9111 section 4.2.4).
func (t *Terms) MayDisconnected(q *RequestControl) bool {
	return t.MayBeStale() && !q.Has(NoCache)
}

// IsError reports whether a status is a failure that stale-if-error answers.
func IsError(status int) bool {
	return status == 500 || status == 502 || status == 503 || status == 504
}
