package cache

import "gateway/wire"

const second = int64(1_000_000_000)

// Terms are the conditions under which a stored response may be used. All
// times are nanoseconds; moments count from 1970.
type Terms struct {
	Received             int64 // when the head came: response_time
	InitialAge           int64 // corrected_initial_age at that time
	Lifetime             int64 // freshness_lifetime
	StaleWhileRevalidate int64 // after the lifetime
	StaleIfError         int64 // after the lifetime
	Keep                 int64 // after the lifetime
	Date                 int64 // seconds since 1970, never missing
	Control              Directive
	Explicit             bool // the origin gave a lifetime
}

// Age is current_age (RFC 9111 section 4.2.3).
func (t *Terms) Age(now int64) int64 { return t.InitialAge + max(now-t.Received, 0) }

// Left is the freshness left, negative when stale.
func (t *Terms) Left(now int64) int64 { return t.Lifetime - t.Age(now) }

// Dead is the moment from which on nobody has a use for the response.
func (t *Terms) Dead() int64 {
	return t.Received + max(t.Lifetime-t.InitialAge, 0) + max(t.StaleWhileRevalidate, t.StaleIfError, t.Keep)
}

// noStale are the directives that forbid to serve a stale response, whatever
// else allows it (RFC 9111 section 4.2.4); an s-maxage that applies has set
// ProxyRevalidate (section 5.2.2.10).
const noStale = MustRevalidate | ProxyRevalidate | NoCache

// MayBeStale reports whether the origin leaves it to others to allow that the
// response is served stale.
func (t *Terms) MayBeStale() bool { return !t.Control.Has(noStale) }

// Origin is a response as it came from an origin.
type Origin struct {
	Status    int
	Header    *wire.Header
	Requested int64 // when the request was sent, ns since 1970
	Received  int64 // when the response's head was there, ns since 1970
}

// maxHeuristic bounds a guessed lifetime.
const maxHeuristic = 24 * 3600 * second

// terms works out freshness and age of a response (RFC 9111 section 4.2). It
// allocates nothing.
func (p *Policy) terms(o *Origin, c *ResponseControl) (t Terms) {
	seconds := o.Received / second
	t.Received = o.Received
	t.Date = dateField(o.Header, wire.Date, seconds)
	if t.Date == noDate {
		t.Date = seconds // RFC 9110 section 6.6.1
	}
	apparent := clampAge(seconds-t.Date) * second
	corrected := ParseAge(o.Header)*second + max(o.Received-o.Requested, 0)
	t.InitialAge = max(apparent, corrected)
	t.Control = c.Directive

	switch {
	case c.SMaxAge != unset:
		t.Lifetime, t.Explicit = c.SMaxAge*second, true
		t.Control |= ProxyRevalidate
	case c.MaxAge != unset:
		t.Lifetime, t.Explicit = c.MaxAge*second, true
	case !c.Targeted && p.ignore&ignoreExpires == 0 && o.Header.Has(wire.Expires):
		// What is no date is in the past (section 5.3).
		if expires := dateField(o.Header, wire.Expires, seconds); expires != noDate {
			t.Lifetime = clampAge(expires-t.Date) * second
		}
		t.Explicit = true
	default:
		t.Lifetime = p.implied(o, &t)
	}
	if p.minTTL > 0 && t.Control&NoCache == 0 {
		t.Lifetime = max(t.Lifetime, t.InitialAge+p.minTTL)
	}
	if p.maxTTL > 0 {
		t.Lifetime = min(t.Lifetime, t.InitialAge+p.maxTTL)
	}
	t.StaleWhileRevalidate = window(c.StaleWhileRevalidate, p.staleWhileRevalidate)
	t.StaleIfError = window(c.StaleIfError, p.staleIfError)
	if c.StaleIfError != unset {
		t.Control |= ErrorWindow
	}
	t.Keep = p.keep
	return t
}

func clampAge(seconds int64) int64 { return min(max(seconds, 0), maxDelta) }

func window(seconds, otherwise int64) int64 {
	if seconds != unset {
		return seconds * second
	}
	return otherwise
}

// implied is the lifetime of a response whose origin gave none: configured, or
// a tenth of the time since the last change (RFC 9111 section 4.2.2).
func (p *Policy) implied(o *Origin, t *Terms) int64 {
	// What is configured begins now, whatever clock the origin has.
	if ttl, ok := p.statusTTL[o.Status]; ok {
		if ttl == 0 {
			return 0
		}
		return t.InitialAge + ttl
	}
	if p.ttl > 0 {
		switch o.Status {
		case 200, 203, 204, 206, 300, 301, 308, 410:
			return t.InitialAge + p.ttl
		}
	}
	if !p.heuristic || !heuristicStatus(o.Status) && !t.Control.Has(Public) {
		return 0
	}
	modified := dateField(o.Header, wire.LastModified, t.Received/second)
	if modified == noDate || modified >= t.Date {
		return 0
	}
	return min(min(t.Date-modified, maxDelta)*second/10, maxHeuristic)
}

// heuristicStatus reports whether a response with the status may be stored
// without anybody having said so (RFC 9110 section 15.1, RFC 7725 section 3).
func heuristicStatus(status int) bool {
	switch status {
	case 200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 451, 501:
		return true
	}
	return false
}
