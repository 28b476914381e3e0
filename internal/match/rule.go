package match

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"gateway/wire"
)

// Rule is what a request must be to belong to a route. Each list that is not
// empty must be satisfied: hosts, paths and methods by one of their elements,
// fields and query by all of them. The zero Rule matches every request.
type Rule struct {
	Hosts   []Host
	Paths   []Path
	Methods []string // exact; "GET" does not include "HEAD"
	Scheme  string   // "http" or "https", "" for both
	Headers []Condition
	Query   []Condition
	// Preflight lets the rule take CORS preflight requests, whose method is
	// OPTIONS, for the methods that it takes. Routes with a CORS policy want
	// it; the conditions must hold all the same.
	Preflight bool
}

// Condition asks for a field or a query parameter.
type Condition struct {
	name  string       // field names in lower case
	id    wire.FieldID // of a field
	value string
	any   bool // present is enough
}

// ParseMethod checks a method.
func ParseMethod(text string) (string, error) {
	if !token(text) {
		return "", fmt.Errorf("%q is no method", text)
	}
	if upper := strings.ToUpper(text); upper != text && wire.ParseMethod([]byte(upper)) != wire.MethodOther {
		return "", fmt.Errorf("methods are compared with regard to case; want %q", upper)
	}
	if text == "CONNECT" || text == "TRACE" {
		return "", errors.New("the gateway refuses this method before routes are looked at")
	}
	return text, nil
}

// ParseHeader makes a condition that a request field has this value, or, with
// "*", any value. Names are compared without regard to case, values exactly;
// of several fields with the name one must have the value.
func ParseHeader(name, value string) (Condition, error) {
	if !token(name) {
		return Condition{}, fmt.Errorf("%q is no field name", name)
	}
	c := Condition{name: strings.ToLower(name), id: wire.LookupField([]byte(name)), value: value, any: value == "*"}
	if c.id == wire.Host {
		return Condition{}, errors.New("conditions on the host are given by host")
	}
	if strings.Trim(value, " \t") != value {
		return Condition{}, errors.New("a value with space at its ends can never match: it is not part of a field's value")
	}
	for i := range len(value) {
		if v := value[i]; v < ' ' && v != '\t' || v == 0x7f {
			return Condition{}, errors.New("control characters are never part of a field's value")
		}
	}
	return c, nil
}

// ParseQuery makes a condition that a parameter of the query has this value,
// or, with "*", any value, also none. Names and values are given decoded and
// compared after the request's escapes, and "+" for a space, were decoded; of
// several parameters with the name one must have the value.
func ParseQuery(name, value string) (Condition, error) {
	if name == "" {
		return Condition{}, errors.New("a query parameter needs a name")
	}
	return Condition{name: name, value: value, any: value == "*"}, nil
}

// Covers reports whether a matches every request that b could match, so that
// b can never be reached behind a. It may report false where that needs more
// than a comparison of the two lists by list.
func Covers(a, b Rule) bool {
	return coversAny(a.Hosts, b.Hosts, Host.covers, Host{}) &&
		coversAny(a.Paths, b.Paths, Path.covers, Path{rest: true}) &&
		coversMethods(a, b) && (a.Scheme == "" || a.Scheme == b.Scheme) &&
		implied(a.Headers, b.Headers) && implied(a.Query, b.Query)
}

// coversAny reports whether each pattern of b is covered by one of a; an empty
// list stands for the pattern all.
func coversAny[P any](a, b []P, covers func(P, P) bool, all P) bool {
	if len(a) == 0 {
		return true
	}
	if len(b) == 0 {
		b = []P{all}
	}
	for _, q := range b {
		if !slices.ContainsFunc(a, func(p P) bool { return covers(p, q) }) {
			return false
		}
	}
	return true
}

func coversMethods(a, b Rule) bool {
	if len(a.Methods) == 0 {
		return true
	}
	if len(b.Methods) == 0 || b.Preflight && !a.Preflight && !slices.Contains(a.Methods, "OPTIONS") {
		return false
	}
	return !slices.ContainsFunc(b.Methods, func(m string) bool { return !slices.Contains(a.Methods, m) })
}

// implied reports whether the conditions a hold wherever the conditions b do.
func implied(a, b []Condition) bool {
	for _, c := range a {
		if !slices.ContainsFunc(b, func(d Condition) bool {
			return c.name == d.name && (c.any || !d.any && c.value == d.value)
		}) {
			return false
		}
	}
	return true
}

// token: RFC 9110 section 5.6.2.
func token(s string) bool {
	for i := range len(s) {
		if c := s[i]; !letter(c) && !digit(c) && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}
