package match

import (
	"fmt"
	"slices"
	"strings"

	"gateway/wire"
)

// Miss is the first condition of a rule that a request does not meet.
type Miss struct {
	// Option is the key of the condition in a route: host, path, methods,
	// scheme, headers or query.
	Option string
	// Name is that of the field or the parameter, "" for other conditions.
	Name string
	// Text says what was found and what is wanted. Values of fields and
	// parameters are not shown: they may be secrets.
	Text string
}

// Why is the first condition that the request does not meet, in the order of
// host, path, scheme, methods, fields, query; false when it meets all of them,
// as Matches says. It allocates: it is for people who ask, not for requests.
func (rule Rule) Why(q *wire.Request, scheme string) (m Miss, missed bool) {
	if host := string(q.Hostname()); len(rule.Hosts) > 0 && !slices.ContainsFunc(rule.Hosts, func(h Host) bool { return h.Matches(host) }) {
		return Miss{Option: "host", Text: fmt.Sprintf("the host is %q; want %s", host, list(rule.Hosts))}, true
	}
	if path := string(q.Path); len(rule.Paths) > 0 && !slices.ContainsFunc(rule.Paths, func(p Path) bool { return p.Matches(path) }) {
		return Miss{Option: "path", Text: fmt.Sprintf("the path is %q; want %s", path, list(rule.Paths))}, true
	}
	c := compile(rule)
	if c.scheme != "" && c.scheme != scheme {
		return Miss{Option: "scheme", Text: fmt.Sprintf("the scheme is %s; want %s", scheme, c.scheme)}, true
	}
	if s := (&subject{q, scheme}); !c.takes(q.Method, q.MethodText) && !(c.preflight && c.takesPreflight(s)) {
		return Miss{Option: "methods", Text: fmt.Sprintf("the method is %s; want %s", q.MethodText, strings.Join(rule.Methods, ", "))}, true
	}
	for i := range c.headers {
		if h := &c.headers[i]; !h.inHeader(&q.Header) {
			text := "the request has no such field"
			if (&Condition{name: h.name, id: h.id, any: true}).inHeader(&q.Header) {
				text = "the field has another value"
			}
			return Miss{Option: "headers", Name: h.name, Text: text}, true
		}
	}
	for i := range c.query {
		if p := &c.query[i]; !p.inQuery(q.Query) {
			text := "the query has no such parameter"
			if (&Condition{name: p.name, any: true}).inQuery(q.Query) {
				text = "the parameter has another value"
			}
			return Miss{Option: "query", Name: p.name, Text: text}, true
		}
	}
	return Miss{}, false
}

// list are patterns for a sentence.
func list[P fmt.Stringer](patterns []P) string {
	const most = 4
	var parts []string
	for i, p := range patterns {
		if i == most {
			parts = append(parts, fmt.Sprintf("or one of %d more", len(patterns)-most))
			break
		}
		parts = append(parts, p.String())
	}
	return strings.Join(parts, ", ")
}
