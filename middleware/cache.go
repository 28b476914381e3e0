package middleware

import (
	"crypto/sha256"
	"strconv"

	"gateway/exchange"
	"gateway/internal/clock"
	"gateway/metrics"
	"gateway/middleware/cache"
	"gateway/wire"
)

// Cache answers requests with what is stored, and says how an answer came
// about. Whoever asks the origin tells the cache's flights what it says: that is
// not the business of a stage.
type Cache struct {
	Store  *cache.Cache
	Policy *cache.Policy

	identifier string // in Cache-Status, "" for no such field
	results    [tiers][cache.ResultCount]*metrics.Counter
	saved      *metrics.Seconds
	collapse   bool
}

// NewCache builds the stage of a route of that name. The options must have passed
// their Check.
func NewCache(o cache.RouteOptions, shared *cache.Options, store *cache.Cache, route string, r *metrics.Registry) *Cache {
	s := &Cache{Store: store, Policy: cache.NewPolicy(o, route), collapse: o.Collapse}
	if shared.Status {
		s.identifier = shared.Identifier
	}
	s.saved = r.Seconds("gateway_cache_saved_seconds_total", "Time that the origin took for responses, until the first byte, counted for each request that one was served to without asking the origin again.",
		"route", route)
	for tier, name := range tierNames {
		for result := cache.ResultHit; result < cache.ResultCount; result++ {
			s.results[tier][result] = r.Counter("gateway_cache_requests_total", "Requests of routes that cache, by what the cache did, and where what it answered with was found.",
				"route", route, "result", result.String(), "tier", name)
		}
	}
	return s
}

// Where a response was found.
const (
	inMemory = iota
	inRedis
	nowhere
	tiers
)

var tierNames = [tiers]string{"memory", "redis", "none"}

// Look asks the cache; x.Lookup has the answer. A QUERY must have its body in
// body, or it passes by. It allocates nothing.
func (s *Cache) Look(x *exchange.Exchange, body []byte) cache.Verdict {
	u := ClientURL(x)
	return s.Store.Lookup(&x.Lookup, s.Policy, &x.Request, &u, digestFor(x, body), clock.Nanos())
}

// Examine is Look without a trace; see cache.Cache.Examine.
func (s *Cache) Examine(x *exchange.Exchange, body []byte) cache.Verdict {
	u := ClientURL(x)
	return s.Store.Examine(&x.Lookup, s.Policy, &x.Request, &u, digestFor(x, body), clock.Nanos())
}

// digestFor is that of a QUERY's body, nil for other requests.
func digestFor(x *exchange.Exchange, body []byte) *[cache.DigestSize]byte {
	if x.Request.Method != wire.MethodQuery || body == nil {
		return nil
	}
	return digestOf(&x.Request.Header, body)
}

// ClientURL is what the client asks for, whatever is forwarded.
func ClientURL(x *exchange.Exchange) cache.URL {
	return cache.URL{Secure: x.Scheme == "https", Host: x.Request.Host, Path: x.Request.Path, Query: x.Request.Query}
}

// digestOf is that of a QUERY's body and of what says how to read it (RFC
// 10008 section 2.7).
func digestOf(h *wire.Header, body []byte) *[cache.DigestSize]byte {
	d := sha256.New()
	var length [8]byte
	part := func(b []byte) {
		n := uint64(len(b))
		for i := range length {
			length[i] = byte(n >> (8 * i))
		}
		d.Write(length[:])
		d.Write(b)
	}
	for _, id := range [...]wire.FieldID{wire.ContentType, wire.ContentEncoding} {
		for i := h.Next(id, 0); i >= 0; i = h.Next(id, i+1) {
			_, value, _, _ := h.Field(i)
			part(value)
		}
		part(nil)
	}
	part(body)
	var sum [cache.DigestSize]byte
	d.Sum(sum[:0])
	return &sum
}

// Collapses reports whether misses wait for each other.
func (s *Cache) Collapses() bool { return s.collapse }

// Serve answers with the entry that the lookup holds, as the lookup says. It
// copies no body and allocates nothing, but for several ranges.
func (s *Cache) Serve(x *exchange.Exchange) {
	l := &x.Lookup
	s.answer(x, &l.Entry, l.Entry.Body())
	if l.Answer == cache.AnswerWhole {
		x.Stored = &l.Entry
	}
}

// Stored is what the compression stage needs to know of the stored response
// that the exchange is answered with.
func (s *Cache) Stored(x *exchange.Exchange) Stored {
	e := x.Stored
	if e == nil || !e.Valid() {
		return Stored{}
	}
	if _, _, partial := e.Partial(); partial {
		return Stored{}
	}
	return Stored{Cache: s.Store, Lookup: &x.Lookup, Entry: e}
}

// Present is Serve for a response that has just come, and whose body is there.
// fields are those of the request as the client sent it. False when it is to be
// answered as it came.
func (s *Cache) Present(x *exchange.Exchange, e *cache.Entry, body []byte, fields *wire.Header) bool {
	if !e.Valid() {
		return false
	}
	x.Lookup.Evaluate(e, fields)
	switch x.Lookup.Answer {
	case cache.AnswerWhole:
		return false
	case cache.AnswerRanges:
		if e.BodyLen() != int64(len(body)) { // behind it are bytes of others
			return false
		}
	}
	s.answer(x, e, body)
	return true
}

func (s *Cache) answer(x *exchange.Exchange, e *cache.Entry, body []byte) {
	l := &x.Lookup
	x.Reason = exchange.Done
	h := s.head(x, e)
	res := &x.Response
	first, total, partial := e.Partial()
	if l.Answer != cache.AnswerWhole {
		h.Del(wire.ContentRange) // of a complete response, where it means nothing
	}
	switch l.Answer {
	case cache.AnswerWhole:
		res.Body, res.Length = body, int64(len(body))
	case cache.AnswerNotModified:
		res.Status, res.Length = 304, wire.LengthUntilClose
		for _, id := range [...]wire.FieldID{wire.ContentEncoding, wire.ContentType} {
			h.Del(id)
		}
	case cache.AnswerUnsatisfied:
		res.Status = 416
		if !partial {
			total = int64(len(body))
		}
		h.Del(wire.ContentType)
		h.Del(wire.ETag)
		h.Del(wire.LastModified)
		var scratch [64]byte
		h.AddID(wire.ContentRange, cache.AppendUnsatisfied(scratch[:0], total))
	case cache.AnswerRanges:
		res.Status = 206
		if !partial {
			total = int64(len(body))
		}
		ranges := l.Ranges.List()
		if len(ranges) > 1 {
			m := cache.NewMultipart(body, first, total, &l.Ranges, h.Get(wire.ContentType))
			h.SetString("Content-Type", cache.MultipartType)
			res.Length, res.Stream = m.Len(), m
			return
		}
		span := ranges[0]
		var scratch [96]byte
		h.AddID(wire.ContentRange, cache.AppendContentRange(scratch[:0], span, total))
		res.Body = body[span.First-first : span.Last-first+1]
		res.Length = int64(len(res.Body))
	}
}

// head begins an answer of our own with the stored fields and the age.
func (s *Cache) head(x *exchange.Exchange, e *cache.Entry) *wire.Header {
	h := x.Own(e.Status())
	if fault := h.ParseFields(e.Head(), 0); fault != wire.NoFault {
		panic("BUG: stored fields: " + fault.String())
	}
	terms := e.Terms()
	var scratch [24]byte
	h.AddID(wire.Age, strconv.AppendInt(scratch[:0], terms.Age(clock.Nanos())/1e9, 10))
	return h
}

// Share answers with the response to the request of another, whose body comes
// as it arrives. The reader is closed with the exchange. It returns the
// freshness left, in ns.
func (s *Cache) Share(x *exchange.Exchange, r *cache.Reader) (left int64) {
	e := r.Head()
	x.Reason = exchange.Done
	x.Lookup.Evaluate(e, &x.Request.Header)
	h := s.head(x, e)
	terms := e.Terms()
	left = terms.Left(clock.Nanos())
	if x.Lookup.Answer == cache.AnswerNotModified {
		x.Response.Status, x.Response.Length = 304, wire.LengthUntilClose
		h.Del(wire.ContentEncoding)
		h.Del(wire.ContentType)
		h.Del(wire.ContentRange)
		r.Close()
		return left
	}
	if first, total, partial := e.Partial(); partial {
		var scratch [96]byte
		h.AddID(wire.ContentRange, cache.AppendContentRange(scratch[:0], cache.Span{First: first, Last: first + e.BodyLen() - 1}, total))
	}
	x.Response.Length = wire.LengthUntilClose
	if n := e.BodyLen(); n >= 0 {
		x.Response.Length = n
	}
	x.Response.Stream = r
	x.Stored = e
	return left
}

// Report ends the cache's part of an exchange: it is counted, and Cache-Status
// says what happened.
func (s *Cache) Report(x *exchange.Exchange, result cache.Result, report *cache.Report) {
	x.Cached = result
	tier := inMemory
	switch {
	case result >= cache.ResultCollapsed:
		tier = nowhere
	case x.Lookup.Recalled:
		tier = inRedis
	}
	s.results[tier][result].Inc()
	if result <= cache.ResultRefresh { // the origin was not asked
		s.saved.Add(x.Lookup.Entry.Took())
	}
	if s.identifier != "" && x.Response.Header != nil {
		report.AddStatus(x.Response.Header, s.identifier)
	}
}
