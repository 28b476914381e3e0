package proxy

import (
	"strings"

	"gateway/config"
	"gateway/exchange"
	"gateway/wire"
)

// respond is the action of a route that asks no upstream: a redirect or a
// fixed response. Allocates nothing per request.
type respond struct {
	status      int
	contentType string
	body        []byte
	location    []piece // of a redirect, nil otherwise
}

// piece is a part of a redirect's target: text, or the placeholder that a
// part of the request stands in for.
type piece struct {
	text        string
	placeholder bool
}

func newFixed(o *config.Respond) *respond {
	return &respond{status: o.Status, contentType: o.ContentType, body: []byte(o.Body)}
}

// newRedirect takes a target apart that the configuration has checked.
func newRedirect(o *config.Redirect) *respond {
	r := &respond{status: o.Status}
	for rest := o.To; rest != ""; {
		text, after, found := strings.Cut(rest, "{")
		if text != "" {
			r.location = append(r.location, piece{text: text})
		}
		name, after, closed := strings.Cut(after, "}")
		if found && !closed {
			panic("BUG: redirect was not checked: " + o.To)
		}
		if found {
			r.location = append(r.location, piece{name, true})
		}
		rest = after
	}
	return r
}

// answer makes the response. The request's body, if there is one, is not read.
func (r *respond) answer(x *exchange.Exchange) {
	h := x.Respond(r.status, r.body)
	x.Reason = exchange.Done
	if r.location == nil {
		if len(r.body) > 0 {
			h.AddIDString(wire.ContentType, r.contentType)
		}
		return
	}
	to := x.Head[:0] // no request is composed on this way
	for _, p := range r.location {
		switch {
		case !p.placeholder:
			to = append(to, p.text...)
		case p.text == "host":
			host := x.Request.Hostname()
			if len(host) == 0 { // in HTTP/1.0 alone: where to is not known
				x.FailWith(exchange.BadRequest, 400, "no Host field")
				return
			}
			to = append(to, host...)
		case p.text == "path":
			if x.Path[0] != '/' {
				to = append(to, '/') // OPTIONS * is about the whole server
				break
			}
			to = append(to, x.Path...)
		case p.text == "query":
			if x.Query != nil {
				to = append(to, '?')
				to = append(to, x.Query...)
			}
		default:
			panic("BUG: unknown placeholder " + p.text)
		}
	}
	x.Head = to
	h.AddID(wire.Location, to)
}
