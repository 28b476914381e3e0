package middleware

import (
	"io"
	"sync"

	"gateway/exchange"
	"gateway/internal/clock"
	"gateway/middleware/compress"
	"gateway/wire"
)

// findDictionary notes the dictionary that the client has, if it is known here,
// and takes the fields that tell of it from what the origin gets.
func (s *Compress) findDictionary(x *exchange.Exchange, a *Asked) {
	if s.dictionaries == nil {
		return
	}
	h := &x.Request.Header
	field := h.Find("Available-Dictionary")
	if field == nil {
		return
	}
	if !fromElsewhere(h) {
		a.dictionary = s.dictionaries.Find(field)
	}
	if s.identity {
		h.DelName([]byte("Available-Dictionary"))
		h.DelName([]byte("Dictionary-ID"))
	}
}

// choose is the coding that the client gets.
func (s *Compress) choose(a *Asked) compress.Coding {
	if a.dictionary != nil {
		return a.accept.Choose(s.dczOffers)
	}
	return a.accept.Choose(s.offers)
}

// fromElsewhere reports whether a browser asks on behalf of another site, or
// cannot show the answer to its page. The length of what is coded with a
// dictionary would tell about that (RFC 9842 section 9).
func fromElsewhere(h *wire.Header) bool {
	switch site := h.Find("Sec-Fetch-Site"); string(site) {
	case "", "same-origin", "none":
		return false
	}
	return true
}

// learn makes the body a dictionary if the origin says so, or if it is the one
// that was chosen, and tells the client that.
func (s *Compress) learn(x *exchange.Exchange) {
	res := &x.Response
	h := res.Header
	if s.dictionaries == nil || res.Status != 200 || x.Request.Method != wire.MethodGet || res.Length > int64(s.maxDictionary) ||
		fieldHas(h, wire.CacheControl, "no-store") {
		return
	}
	field := h.Find("Use-As-Dictionary")
	_, collected := res.Stream.(*compress.Buffer)
	whole := res.Stream == nil || collected
	switch {
	case field != nil:
		if !compress.IsDictionary(field) {
			return
		}
		if whole {
			s.dictionaries.Learn(res.Body)
			return
		}
		f := learningStreams.Get().(*learningStream)
		f.from, f.to, f.max = res.Stream, s.dictionaries, s.maxDictionary
		f.body = append(f.body[:0], res.Body...)
		res.Stream = f
	case s.announcement == "" || !whole || h.Has(wire.SetCookie) || h.Has(wire.ContentEncoding) || !keptByAll(h):
	default:
		var scratch [512]byte
		target := append(append(scratch[:0], x.Request.Path...), '?')
		if s.dictionaries.Elect(append(target, x.Request.Query...), res.Body, clock.Coarse()) {
			h.AddString("Use-As-Dictionary", s.announcement)
		}
	}
}

// keptByAll reports whether clients keep the response for some time, and shared
// caches may too.
func keptByAll(h *wire.Header) bool {
	for _, token := range [...]string{"private", "no-cache", "max-age=0"} {
		if fieldHas(h, wire.CacheControl, token) {
			return false
		}
	}
	for i := h.Next(wire.CacheControl, 0); i >= 0; i = h.Next(wire.CacheControl, i+1) {
		_, list, _, _ := h.Field(i)
		if compress.HasDirective(list, "max-age") {
			return true
		}
	}
	return false
}

// learningStream is a body that becomes a dictionary once it is complete.
type learningStream struct {
	from exchange.Stream
	to   *compress.Dictionaries // nil once the body is too large, or over
	body []byte
	max  int // bytes
}

var learningStreams = sync.Pool{New: func() any { return new(learningStream) }}

// Next implements exchange.Stream.
func (f *learningStream) Next() ([]byte, error) {
	piece, err := f.from.Next()
	if f.to != nil {
		if f.body = append(f.body, piece...); len(f.body) > f.max {
			f.to, f.body = nil, nil
		} else if err == io.EOF {
			f.to.Learn(f.body)
			f.to = nil
		}
	}
	return piece, err
}

// Trailer implements exchange.Stream.
func (f *learningStream) Trailer() []byte { return f.from.Trailer() }

// Release forgets a body that has not become complete.
func (f *learningStream) Release() {
	release(f.from)
	*f = learningStream{body: f.body[:0]}
	learningStreams.Put(f)
}
