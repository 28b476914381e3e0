package middleware

import (
	"gateway/exchange"
	"gateway/wire"
)

// Headers edits the fields of requests and responses as a route says.
type Headers struct {
	request, response edits
}

// edits are applied in the order of the fields here.
type edits struct {
	remove []fieldName
	set    []field
	add    []field
}

type fieldName struct {
	id   wire.FieldID // Unknown: by name
	name []byte
}

type field struct{ name, value string }

// NewHeaders builds the stage, nil when the options ask for nothing. The
// options must have passed their Check.
func NewHeaders(o HeaderOptions) *Headers {
	s := Headers{
		request:  newEdits(o.RemoveRequestHeaders, o.SetRequestHeaders, o.AddRequestHeaders),
		response: newEdits(o.RemoveResponseHeaders, o.SetResponseHeaders, o.AddResponseHeaders),
	}
	if s.request.none() && s.response.none() {
		return nil
	}
	return &s
}

func newEdits(remove []string, set, add map[string]string) (e edits) {
	for _, name := range remove {
		e.remove = append(e.remove, fieldName{wire.LookupField([]byte(name)), []byte(name)})
	}
	for _, name := range sorted(set) {
		e.set = append(e.set, field{name, set[name]})
	}
	for _, name := range sorted(add) {
		e.add = append(e.add, field{name, add[name]})
	}
	return e
}

func (e *edits) none() bool { return len(e.remove)+len(e.set)+len(e.add) == 0 }

func (e *edits) apply(h *wire.Header) {
	for i := range e.remove {
		if f := &e.remove[i]; f.id != wire.Unknown {
			h.Del(f.id)
		} else {
			h.DelName(f.name)
		}
	}
	for i := range e.set {
		h.SetString(e.set[i].name, e.set[i].value)
	}
	for i := range e.add {
		h.AddString(e.add[i].name, e.add[i].value)
	}
}

// Request edits the fields that the origin gets. Call it once, after
// Identity.Forward, so that the route has the last word.
func (s *Headers) Request(x *exchange.Exchange) {
	if s != nil {
		s.request.apply(&x.Request.Header)
	}
}

// Response edits the fields that the client gets, of the origin's response or
// of an answer of our own.
func (s *Headers) Response(x *exchange.Exchange) {
	if s != nil && x.Response.Header != nil {
		s.response.apply(x.Response.Header)
	}
}
