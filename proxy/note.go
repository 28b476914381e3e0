package proxy

import (
	"fmt"
	"strings"

	"gateway/exchange"
	"gateway/middleware"
)

// note explains a request on live traffic that carries a signed question,
// before anything is taken or changed; nil for others. Free without a secret.
func (s *Snapshot) note(x *exchange.Exchange) *Explanation {
	if s.explainer == nil || !s.explainer.Asked(x) {
		return nil
	}
	y := exchange.Acquire()
	defer exchange.Release(y)
	y.Request.CopyFrom(&x.Request)
	y.Peer, y.Local, y.Secure, y.Start = x.Peer, x.Local, x.Secure, x.Start
	return s.explain(y)
}

// attach adds the note to the answer, in a line: what was expected, and what
// became of it.
func (e *Explanation) attach(x *exchange.Exchange) {
	if e == nil || x.Response.Header == nil {
		return
	}
	x.Response.Header.AddString(middleware.ExplanationField, e.line(x))
}

// maxNoted bounds the routes and the policies that a note names.
const maxNoted = 8

func (e *Explanation) line(x *exchange.Exchange) string {
	var b strings.Builder
	item := func(name, format string, args ...any) {
		if b.Len() > 0 {
			b.WriteString("; ")
		}
		b.WriteString(name + "=")
		fmt.Fprintf(&b, format, args...)
	}
	item("route", "%s", e.Route)
	if e.Line > 0 {
		item("line", "%d", e.Line)
	}
	var not []string
	for _, r := range e.Routes[max(0, len(e.Routes)-maxNoted-1):] {
		if !r.Matches {
			not = append(not, r.Name+":"+r.Option)
		}
	}
	if not != nil {
		item("not", "%s", visible(strings.Join(not, " ")))
	}
	for _, l := range e.Limits[:min(len(e.Limits), maxNoted)] {
		switch {
		case !l.Known:
			item("limit", "%s:unknown", l.Policy)
		case !l.Allowed:
			item("limit", "%s:refused", l.Policy)
		default:
			item("limit", "%s:%d", l.Policy, l.Left)
		}
	}
	if e.Target != nil {
		item("target", "%s", visible(e.Target.Target))
	}
	if e.Cache != nil {
		item("cache", "%s", e.Cache.Verdict)
	}
	if e.Pool != nil {
		usable := 0
		for _, c := range e.Pool.Servers {
			if c.Eligible {
				usable++
			}
		}
		item("upstream", "%s:%d/%d", e.Pool.Pool, usable, len(e.Pool.Servers))
	}
	if x.Server != "" {
		item("server", "%s", visible(x.Server))
		item("attempts", "%d", x.Attempts)
	}
	if c := e.Compress; c != nil && c.Coding != "" {
		item("coding", "%s", c.Coding)
	} else if c != nil {
		item("coding", "none:%s", c.Why)
	}
	item("expected", "%s:%s", e.Outcome.By, e.Outcome.Reason)
	item("reason", "%s", x.Reason)
	return b.String()
}

// visible is text in quotes, fit for a field; what is not visible ASCII becomes
// a question mark.
func visible(text string) string {
	b := []byte(text)
	for i, c := range b {
		if c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			b[i] = '?'
		}
	}
	const most = 512
	if len(b) > most {
		b = append(b[:most], "..."...)
	}
	return `"` + string(b) + `"`
}
