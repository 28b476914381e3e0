package cache

import (
	"gateway/internal/ascii"
	"gateway/wire"
)

// Directive is a set of the cache directives that have no number.
type Directive uint16

const (
	NoStore Directive = 1 << iota
	NoCache           // unqualified
	Private           // unqualified
	Public
	MustRevalidate
	ProxyRevalidate
	MustUnderstand
	NoTransform
	Immutable
	OnlyIfCached
	MaxStaleAny   // max-stale without a number
	NoCacheFields // no-cache="field"
	PrivateFields // private="field"
	ErrorWindow   // stale-if-error, whatever its number
)

// Has reports whether the set contains d.
func (s Directive) Has(d Directive) bool { return s&d != 0 }

// unset is the value of a directive with a number that is missing.
const unset int64 = -1

// ResponseControl is what Cache-Control, or a targeted field in its place, says
// in a response. Numbers are seconds, at most 2³¹, and -1 when missing. A
// max-age or s-maxage that is not a number, and two that differ, are 0: such
// responses count as stale (RFC 9111 section 4.2.1).
type ResponseControl struct {
	Directive
	MaxAge               int64
	SMaxAge              int64
	StaleWhileRevalidate int64
	StaleIfError         int64
	Targeted             bool // from a targeted field: Cache-Control and Expires do not count (RFC 9213)
}

// RequestControl is what Cache-Control and Pragma say in a request. Numbers are
// seconds, at most 2³¹, and -1 when missing. Of several the strictest counts,
// and what is not a number is the strictest.
type RequestControl struct {
	Directive
	MaxAge       int64
	MaxStale     int64
	MinFresh     int64
	StaleIfError int64
}

// directive is one element of a Cache-Control value.
type directive struct {
	name, argument []byte // argument without quotes
	given          bool   // there is an argument
	quoted         bool
	malformed      bool // something else follows the name
}

// cutDirective splits the first directive off. At the end its name is empty.
func cutDirective(list []byte) (d directive, rest []byte) {
	for {
		var element []byte
		if element, list = cutElement(list); len(element) == 0 {
			return directive{}, nil
		}
		n := tokenLen(element)
		if n == 0 {
			continue // no directive begins like this
		}
		d.name = element[:n]
		switch tail := element[n:]; {
		case len(tail) == 0:
		case tail[0] != '=':
			d.malformed = true
		default:
			d.given = true
			d.argument = tail[1:]
			if len(tail) > 1 && tail[1] == '"' {
				if quotedLen(tail[1:]) == len(tail)-1 {
					d.argument, d.quoted = tail[2:len(tail)-1], true
				} else {
					d.malformed = true
				}
			} else if tokenLen(d.argument) != len(d.argument) {
				d.malformed = true
			}
		}
		return d, list
	}
}

// seconds is the directive's number.
func (d *directive) seconds() (n int64, ok bool) {
	if d.malformed || !d.given {
		return 0, false
	}
	return parseDelta(d.argument)
}

// agree is the value of a freshness directive that may have occurred before:
// two that differ make the response stale.
func (d *directive) agree(before int64) int64 {
	n, _ := d.seconds()
	if before != unset && before != n {
		return 0
	}
	return n
}

// least is the smaller of the directive's number, 0 when it has none, and what
// was there before.
func (d *directive) least(before int64) int64 {
	n, _ := d.seconds()
	if before != unset && before < n {
		return before
	}
	return n
}

// qualified reports whether the directive names fields that can be understood.
func (d *directive) qualified() bool {
	if !d.given || d.malformed {
		return false
	}
	for list := d.argument; ; {
		var name []byte
		if name, list = cutElement(list); len(name) == 0 {
			return len(ascii.TrimSpace(d.argument)) > 0
		}
		if tokenLen(name) != len(name) {
			return false
		}
	}
}

// ParseResponseControl reads the directives of a response: of the first of the
// targeted fields, lower in rank from left to right, that is valid and not
// empty (RFC 9213 section 2.2), else of Cache-Control. It allocates nothing.
func ParseResponseControl(h *wire.Header, targeted []string) (c ResponseControl) {
	for _, name := range targeted {
		if c, ok := parseTargeted(h, name); ok {
			return c
		}
	}
	c.clear()
	for i := h.Next(wire.CacheControl, 0); i >= 0; i = h.Next(wire.CacheControl, i+1) {
		_, list, _, _ := h.Field(i)
		for {
			var d directive
			if d, list = cutDirective(list); len(d.name) == 0 {
				break
			}
			c.take(&d)
		}
	}
	return c
}

func (c *ResponseControl) clear() {
	*c = ResponseControl{MaxAge: unset, SMaxAge: unset, StaleWhileRevalidate: unset, StaleIfError: unset}
}

func (c *ResponseControl) take(d *directive) {
	switch name := d.name; len(name) {
	case 6:
		if ascii.EqualFold(name, "public") && !d.malformed {
			c.Directive |= Public
		}
	case 7:
		switch {
		case ascii.EqualFold(name, "max-age"):
			c.MaxAge = d.agree(c.MaxAge)
		case ascii.EqualFold(name, "private"):
			c.Directive |= qualifiedOr(d, PrivateFields, Private)
		}
	case 8:
		switch {
		case ascii.EqualFold(name, "no-store"):
			c.Directive |= NoStore
		case ascii.EqualFold(name, "no-cache"):
			c.Directive |= qualifiedOr(d, NoCacheFields, NoCache)
		case ascii.EqualFold(name, "s-maxage"):
			c.SMaxAge = d.agree(c.SMaxAge)
		}
	case 9:
		if ascii.EqualFold(name, "immutable") && !d.malformed {
			c.Directive |= Immutable
		}
	case 12:
		if ascii.EqualFold(name, "no-transform") {
			c.Directive |= NoTransform
		}
	case 14:
		if ascii.EqualFold(name, "stale-if-error") {
			c.StaleIfError = d.least(c.StaleIfError)
		}
	case 15:
		switch {
		case ascii.EqualFold(name, "must-revalidate"):
			c.Directive |= MustRevalidate
		case ascii.EqualFold(name, "must-understand"):
			c.Directive |= MustUnderstand
		}
	case 16:
		if ascii.EqualFold(name, "proxy-revalidate") {
			c.Directive |= ProxyRevalidate
		}
	case 22:
		if ascii.EqualFold(name, "stale-while-revalidate") {
			c.StaleWhileRevalidate = d.least(c.StaleWhileRevalidate)
		}
	}
}

func qualifiedOr(d *directive, qualified, whole Directive) Directive {
	if d.qualified() {
		return qualified
	}
	return whole
}

// parseTargeted reads a targeted field (RFC 9213 section 2.1): a dictionary of
// structured fields. A field that is missing, empty or breaks the syntax does
// not count. Directives whose value has another type than they need are
// treated as in Cache-Control: a lifetime that is not an integer is 0.
func parseTargeted(h *wire.Header, name string) (c ResponseControl, ok bool) {
	c.clear()
	c.Targeted = true
	members := 0
	for i := range h.Len() {
		field, value, _, live := h.Field(i)
		if !live || !ascii.EqualFold(field, name) {
			continue
		}
		d := dictionary{rest: value}
		for {
			key, item, more := d.next()
			if !more {
				break
			}
			members++
			c.member(key, item)
		}
		if d.failed {
			return c, false
		}
	}
	return c, members > 0
}

// member takes a member of a targeted field; of several with one key the last
// counts (RFC 9651 section 4.2.2).
func (c *ResponseControl) member(key []byte, v item) {
	seconds := func(invalid int64) int64 {
		if v.kind != kindInteger || v.number < 0 {
			return invalid
		}
		return min(v.number, maxDelta)
	}
	set := func(d Directive) {
		c.Directive &^= d
		if v.kind != kindBoolean || v.number != 0 {
			c.Directive |= d
		}
	}
	switch string(key) {
	case "max-age":
		c.MaxAge = seconds(0)
	case "s-maxage":
		c.SMaxAge = seconds(0)
	case "stale-while-revalidate":
		c.StaleWhileRevalidate = seconds(0)
	case "stale-if-error":
		c.StaleIfError = seconds(0)
	case "no-store":
		set(NoStore)
	case "no-cache", "private":
		whole, qualified := NoCache, NoCacheFields
		if key[0] == 'p' {
			whole, qualified = Private, PrivateFields
		}
		c.Directive &^= whole | qualified
		d := directive{name: key, argument: v.text, given: true}
		if (v.kind == kindString || v.kind == kindToken) && d.qualified() {
			c.Directive |= qualified
		} else {
			set(whole)
		}
	case "public":
		set(Public)
	case "must-revalidate":
		set(MustRevalidate)
	case "proxy-revalidate":
		set(ProxyRevalidate)
	case "must-understand":
		set(MustUnderstand)
	case "no-transform":
		set(NoTransform)
	case "immutable":
		set(Immutable)
	}
}

// eachQualified calls f with the names in no-cache="…" and private="…" of the
// field that ParseResponseControl took its directives from. Only what is
// stored needs it, so it need not be fast.
func eachQualified(h *wire.Header, targeted []string, f func(name []byte)) {
	names := func(argument []byte) {
		for {
			var name []byte
			if name, argument = cutElement(argument); len(name) == 0 {
				return
			}
			f(name)
		}
	}
	for _, name := range targeted {
		if _, ok := parseTargeted(h, name); !ok {
			continue
		}
		for i := range h.Len() {
			field, value, _, live := h.Field(i)
			if !live || !ascii.EqualFold(field, name) {
				continue
			}
			d := dictionary{rest: value}
			for key, v, more := d.next(); more; key, v, more = d.next() {
				if (string(key) == "no-cache" || string(key) == "private") && (v.kind == kindString || v.kind == kindToken) {
					names(v.text)
				}
			}
		}
		return
	}
	for i := h.Next(wire.CacheControl, 0); i >= 0; i = h.Next(wire.CacheControl, i+1) {
		_, list, _, _ := h.Field(i)
		for {
			var d directive
			if d, list = cutDirective(list); len(d.name) == 0 {
				break
			}
			if (ascii.EqualFold(d.name, "no-cache") || ascii.EqualFold(d.name, "private")) && d.qualified() {
				names(d.argument)
			}
		}
	}
}

// ParseRequestControl reads the directives of a request. "Pragma: no-cache"
// counts as no-cache when there is no Cache-Control (RFC 9111 section 5.4). It
// allocates nothing.
func ParseRequestControl(h *wire.Header) RequestControl {
	c := RequestControl{MaxAge: unset, MaxStale: unset, MinFresh: unset, StaleIfError: unset}
	i := h.Next(wire.CacheControl, 0)
	if i < 0 {
		for i = h.Next(wire.Pragma, 0); i >= 0; i = h.Next(wire.Pragma, i+1) {
			if _, value, _, _ := h.Field(i); wire.HasToken(value, "no-cache") {
				c.Directive |= NoCache
			}
		}
		return c
	}
	for ; i >= 0; i = h.Next(wire.CacheControl, i+1) {
		_, list, _, _ := h.Field(i)
		for {
			var d directive
			if d, list = cutDirective(list); len(d.name) == 0 {
				break
			}
			c.take(&d)
		}
	}
	return c
}

func (c *RequestControl) take(d *directive) {
	switch name := d.name; {
	case ascii.EqualFold(name, "max-age"):
		c.MaxAge = d.least(c.MaxAge)
	case ascii.EqualFold(name, "max-stale"):
		if !d.given && !d.malformed {
			c.Directive |= MaxStaleAny
		} else {
			c.MaxStale = d.least(c.MaxStale)
		}
	case ascii.EqualFold(name, "min-fresh"):
		n, ok := d.seconds()
		if !ok {
			n = maxDelta
		}
		c.MinFresh = max(c.MinFresh, n)
	case ascii.EqualFold(name, "stale-if-error"):
		c.StaleIfError = d.least(c.StaleIfError)
	case ascii.EqualFold(name, "no-cache"):
		c.Directive |= NoCache
	case ascii.EqualFold(name, "no-store"):
		c.Directive |= NoStore
	case ascii.EqualFold(name, "no-transform"):
		c.Directive |= NoTransform
	case ascii.EqualFold(name, "only-if-cached"):
		c.Directive |= OnlyIfCached
	}
}
