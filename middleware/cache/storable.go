package cache

import (
	"gateway/internal/ascii"
	"gateway/wire"
)

// NoStoreReason says why a response is not stored. The text is the detail in
// Cache-Status and a label of metrics.
type NoStoreReason uint8

const (
	Storable         NoStoreReason = iota
	NotGet                         // the method's responses are not stored
	RequestNoStore                 // the client asks for it
	RequestBody                    // a GET with a body is not what others ask
	ResponseNoStore                // no-store
	ResponsePrivate                // private
	Authorized                     // Authorization without permission to share
	SetsCookie                     // Set-Cookie
	VariesByAnything               // Vary: *, or by what the gateway itself writes
	TooManyVary                    // more fields in Vary than are looked at
	BadStatus                      // the status is not one that can be stored
	NotUnderstood                  // must-understand with a status that is not
	NotFresh                       // neither a lifetime nor a validator
	BadRange                       // a partial response that is not one range, or not of the length of it
	TooLarge                       // larger than max_object
	NoMemory                       // no room for it
	Truncated                      // it ended early
	TooManyTags                    // more tags than a purge could find it by
	Outdated                       // it was purged or changed while it was received
	noStoreReasons                 // number of values above
)

// String is the reason's name.
func (r NoStoreReason) String() string {
	if r < noStoreReasons {
		return noStoreNames[r]
	}
	return "unknown"
}

var noStoreNames = [noStoreReasons]string{
	"stored", "method", "request-no-store", "request-body", "no-store", "private", "authorization", "set-cookie",
	"vary", "vary-fields", "status", "must-understand", "no-freshness", "range", "too-large", "no-memory", "truncated", "tags",
	"outdated",
}

// personal reports whether the request is the reason, so that the answer to
// another one may well be stored.
func (r NoStoreReason) personal() bool {
	switch r {
	case NotGet, RequestNoStore, RequestBody, Authorized:
		return true
	}
	return false
}

// understood are the statuses whose meaning for caches is implemented here
// (RFC 9111 section 5.2.2.3): the final ones of RFC 9110, and 206 as single
// ranges.
func understood(status int) bool {
	switch {
	case status == 206:
		return true
	case status >= 200 && status <= 205, status >= 300 && status <= 308 && status != 304 && status != 306:
		return true
	case status >= 400 && status <= 417, status == 421, status == 422, status == 426, status == 429, status == 451:
		return true
	case status >= 500 && status <= 505:
		return true
	}
	return false
}

// Judge decides whether the response to a request may be stored by a shared
// cache (RFC 9111 section 3), and on which terms it may be used. It allocates
// nothing.
func (p *Policy) Judge(q *Asked, o *Origin) (t Terms, reason NoStoreReason) {
	var c ResponseControl
	if p.ignore&ignoreCacheControl == 0 {
		c = ParseResponseControl(o.Header, p.targeted)
	} else {
		c.clear()
		for _, name := range p.targeted {
			if targeted, ok := parseTargeted(o.Header, name); ok {
				c = targeted
				break
			}
		}
	}
	t = p.terms(o, &c)
	return t, p.judge(q, o, &c, &t)
}

func (p *Policy) judge(q *Asked, o *Origin, c *ResponseControl, t *Terms) NoStoreReason {
	switch {
	case q.Method != wire.MethodGet && q.Method != wire.MethodQuery:
		return NotGet
	case q.Method == wire.MethodGet && q.Body:
		return RequestBody
	case q.Control.Has(NoStore):
		return RequestNoStore
	case o.Status < 200 || o.Status == 304:
		return BadStatus
	}
	if c.Has(MustUnderstand) {
		if !understood(o.Status) {
			return NotUnderstood
		}
	} else if c.Has(NoStore) {
		return ResponseNoStore // else must-understand stands in its place
	}
	if c.Has(Private) {
		return ResponsePrivate
	}
	if q.Authorized && !c.Has(Public|MustRevalidate) && c.SMaxAge == unset { // section 3.5
		return Authorized
	}
	if o.Header.Has(wire.SetCookie) && p.ignore&ignoreSetCookie == 0 && !namesField(o.Header, p.targeted, c, "Set-Cookie") {
		return SetsCookie
	}
	if o.Status == 206 {
		if _, ok := contentRange(o.Header); !ok || !q.Ranged {
			return BadRange
		}
	}
	if p.ignore&ignoreVary == 0 {
		if reason := judgeVary(o.Header); reason != Storable {
			return reason
		}
	}
	if !t.Explicit && t.Lifetime <= 0 && !c.Has(Public) && !heuristicStatus(o.Status) {
		return BadStatus
	}
	if t.Left(t.Received) <= 0 || c.Has(NoCache) {
		// It can only be used after validation, or stale.
		if !hasValidator(o.Header) && (!t.MayBeStale() || t.StaleWhileRevalidate == 0 && t.StaleIfError == 0) {
			return NotFresh
		}
	}
	return Storable
}

// hasValidator reports whether the response can be validated later.
func hasValidator(h *wire.Header) bool { return h.Has(wire.ETag) || h.Has(wire.LastModified) }

// namesField reports whether no-cache="…" or private="…" keeps a field out of
// what is stored.
func namesField(h *wire.Header, targeted []string, c *ResponseControl, field string) (found bool) {
	if !c.Has(NoCacheFields | PrivateFields) {
		return false
	}
	eachQualified(h, targeted, func(name []byte) { found = found || ascii.EqualFold(name, field) })
	return found
}

// unstored are the fields that are never stored, beside those that concern one
// connection: RFC 9111 section 3.1. Age is computed anew, what concerns proxies
// is not for others.
func unstored(id wire.FieldID) bool {
	switch id {
	case wire.Connection, wire.KeepAlive, wire.ProxyConnection, wire.TE, wire.Trailer, wire.TransferEncoding, wire.Upgrade,
		wire.ProxyAuthenticate, wire.ProxyAuthenticationInfo, wire.ProxyAuthorization, wire.ContentLength, wire.Age,
		wire.Traceparent, wire.Tracestate, wire.XRequestID:
		return true
	}
	return false
}
