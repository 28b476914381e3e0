package middleware

import (
	"bytes"
	"io"

	"gateway/exchange"
	"gateway/internal/clock"
	"gateway/middleware/cache"
	"gateway/middleware/compress"
	"gateway/wire"
)

// Compress codes the bodies of responses as their clients like it, and takes
// off codings that they can't read. Entity tags of coded responses are its
// own; it takes them off conditional requests.
type Compress struct {
	engine    *compress.Engine
	shedder   *compress.Shedder
	offers    []compress.Coding
	levels    [compress.CodingCount]int
	types     compress.Types
	minSize   int64
	streams   int
	identity  bool // origins are asked for bodies without coding
	decode    bool
	limits    compress.Limits
	memo      compress.Space // of bodies that may be coded once for several responses
	crossSite bool
	coders    [compress.CodingCount]cache.Coder // of stored bodies that are coded in the background

	dictionaries  *compress.Dictionaries // nil when none are used
	announcement  string                 // what Use-As-Dictionary says where we choose it, "" where the origin does
	maxDictionary int
	dczOffers     []compress.Coding
}

// NewCompress builds the stage for a route with this name and these path
// patterns; nil without options, which must have passed their Check.
func NewCompress(o *compress.Options, e *compress.Engine, route string, paths []string) *Compress {
	if o == nil {
		return nil
	}
	s := &Compress{
		engine:    e,
		shedder:   e.Shedder(o.Busy.Fraction()),
		types:     compress.NewTypes(o.Types),
		minSize:   int64(o.MinSize),
		streams:   o.MaxStreams,
		identity:  o.OriginEncoding == "identity",
		decode:    o.Decompress,
		limits:    compress.Limits{Bytes: int64(o.MaxDecompressed), Ratio: int64(o.MaxRatio)},
		crossSite: o.CrossSite,
	}
	if o.Memo {
		s.memo = e.Space(route)
	}
	for _, name := range o.Codings {
		c, _ := compress.LookupCoding([]byte(name))
		s.offers = append(s.offers, c)
		s.levels[c] = o.Level(c)
		s.coders[c] = func(body []byte) []byte { return e.Best(c, body) }
	}
	if o.Dictionary == "origin" || o.Dictionary == "auto" {
		s.dictionaries = e.Dictionaries(route)
		s.maxDictionary = int(o.MaxDictionary)
		s.dczOffers = append([]compress.Coding{compress.Dcz}, s.offers...)
		s.levels[compress.Dcz] = o.ZstdLevel
		if o.Dictionary == "auto" {
			s.announcement = compress.Announcement(paths)
		}
	}
	return s
}

// Asked is what a request has said about codings before Before changed it.
type Asked struct {
	// Stored is the stored response whose whole body is answered with; none for
	// others. Who found it sets it.
	Stored Stored

	accept     compress.Accept
	dictionary *compress.Dictionary // that the client has and we know
	tags       []byte               // If-None-Match as it came, when tags of coded forms were in it
}

// Before notes what the client wants and makes the request one for the plain
// representation: call it before cache and origin see the request, and hand
// the result to After.
func (s *Compress) Before(x *exchange.Exchange) (a Asked) {
	if s == nil {
		return a
	}
	h := &x.Request.Header
	a.accept = compress.ParseAccept(h)
	s.findDictionary(x, &a)
	if s.identity {
		h.SetString("Accept-Encoding", "identity")
	}
	// If-Range stays: the client has a part of the coded form, to which no
	// range of the plain one may be added.
	a.tags = s.plain(x, wire.IfNoneMatch)
	s.plain(x, wire.IfMatch)
	return a
}

// plain takes the codings' suffixes off a list of entity tags. It returns the
// list as it was, nil when nothing was changed.
func (s *Compress) plain(x *exchange.Exchange, id wire.FieldID) (was []byte) {
	h := &x.Request.Header
	i := h.Next(id, 0)
	if i < 0 {
		return nil
	}
	_, list, _, _ := h.Field(i)
	var scratch [512]byte
	if h.Next(id, i+1) >= 0 { // the lines are one list
		joined := scratch[:0]
		for ; i >= 0; i = h.Next(id, i+1) {
			_, list, _, _ = h.Field(i)
			joined = append(append(joined, list...), ", "...)
		}
		list = joined
	}
	var out [512]byte
	// An origin that chooses codings itself may make such tags too.
	tags, changed := compress.AppendPlainETags(out[:0], list, !s.identity)
	if !changed {
		return nil
	}
	was = x.Keep(list)
	h.Set(id.String(), tags)
	return was
}

// After codes the response, or says why not. It stands behind everything that
// makes responses, and before the stages that edit their fields. The response
// may hold borrowed memory and encoders then: whoever ends the exchange calls
// Release on its Stream, if that has such a method. Allocates nothing once the
// pools are filled, as long as bodies are not larger than before.
func (s *Compress) After(x *exchange.Exchange, a Asked) {
	res := &x.Response
	if s == nil || res.Header == nil || res.Status < 200 || res.Status == 204 || res.Status == 205 {
		return
	}
	h := res.Header
	if res.Status == 304 {
		s.notModified(h, &a)
		return
	}
	switch c, known := compress.Applied(h); {
	case !known || c != compress.Identity && !s.decode:
		s.engine.Skipped(compress.AlreadyCoded)
		return
	case c != compress.Identity:
		if !s.decoded(x, c, &a) {
			s.engine.Skipped(compress.AlreadyCoded)
			return
		}
	}
	if why, unfit := s.unfit(x); unfit {
		s.engine.Skipped(why)
		return
	}
	// From here on the client's wishes decide.
	s.vary(h)
	coding := s.choose(&a)
	why, unwanted := s.unwanted(x)
	if coding == compress.Identity {
		why, unwanted = compress.NotAccepted, true
	}
	if !unwanted && res.Stream != nil && res.Length >= 0 && res.Length <= compress.MaxWhole && !collect(res) {
		return // it is over: the client gets to know by the stream's error
	}
	s.learn(x)
	if unwanted {
		s.engine.Skipped(why)
		return
	}
	if x.Request.Method == wire.MethodHead {
		res.Length = wire.LengthUntilClose // nobody knows what GET would say
	} else if coding = s.encode(x, coding, &a); coding == compress.Identity {
		return
	}
	h.SetString("Content-Encoding", coding.String())
	var scratch [128]byte
	if tag, ok := compress.AppendETag(scratch[:0], h.Get(wire.ETag), coding); ok {
		h.Set("ETag", tag)
	}
	delFields(h)
}

// notModified gives a response without body the fields of the one that it
// stands for (RFC 9110 section 15.4.5).
func (s *Compress) notModified(h *wire.Header, a *Asked) {
	if t := h.Get(wire.ContentType); t == nil || s.types.Match(t) {
		s.vary(h)
	}
	if a.tags != nil {
		var scratch [128]byte
		if tag, ok := compress.AppendAskedETag(scratch[:0], a.tags, h.Get(wire.ETag), s.choose(a)); ok {
			h.Set("ETag", tag)
		}
	}
}

// unfit reports whether a response is not one to be coded for anybody.
func (s *Compress) unfit(x *exchange.Exchange) (compress.Skip, bool) {
	res := &x.Response
	h := res.Header
	switch {
	case !s.types.Match(h.Get(wire.ContentType)):
		return compress.OtherType, true
	case res.Length >= 0 && res.Length < s.minSize:
		return compress.TooSmall, true
	case fieldHas(h, wire.CacheControl, "no-transform"):
		return compress.NoTransform, true
	}
	return 0, false
}

// unwanted reports whether a response is not to be coded for this request.
func (s *Compress) unwanted(x *exchange.Exchange) (compress.Skip, bool) {
	h := &x.Request.Header
	switch {
	case x.Response.Status == 206 || x.Response.Header.Has(wire.ContentRange) || h.Has(wire.Range):
		return compress.PartOfBody, true
	case fieldHas(h, wire.CacheControl, "no-transform"):
		return compress.NoTransform, true
	case !s.crossSite && fromOtherSite(x):
		return compress.FromOtherSite, true
	}
	return 0, false
}

// encode replaces the body by its coded form and returns the coding that it has
// then: this one, another one where its dictionary is too large, or Identity,
// after which the body is as it was and has been counted.
func (s *Compress) encode(x *exchange.Exchange, c compress.Coding, a *Asked) compress.Coding {
	res := &x.Response
	if a.Stored.Cache != nil {
		if c, over := s.stored(x, c, a); over {
			return c
		}
	}
	given, collected := res.Stream.(*compress.Buffer)
	if (res.Stream == nil || collected) && len(res.Body) <= compress.MaxWhole {
		b := s.whole(c, a, res)
		if b == nil {
			s.engine.Skipped(compress.NotSmaller)
			return compress.Identity
		}
		if collected {
			given.Release()
		}
		res.Body, res.Length, res.Stream = b.Bytes(), int64(len(b.Bytes())), b
		return c
	}
	length := res.Length
	if res.Stream == nil {
		length = int64(len(res.Body))
	}
	steps := s.shedder.Step(clock.Coarse())
	var enc *compress.Encoder
	if c == compress.Dcz {
		if length >= 0 {
			enc = s.engine.StreamWith(a.dictionary, s.levels[c], steps, length, s.streams)
		}
		if enc == nil {
			if c = a.accept.Choose(s.offers); c == compress.Identity {
				s.engine.Skipped(compress.NotAccepted)
				return c
			}
		}
	}
	if enc == nil {
		enc = s.engine.Stream(c, s.levels[c], steps, length, s.streams)
	}
	if enc == nil {
		s.engine.Skipped(compress.TooManyStreams)
		return compress.Identity
	}
	f := codedStreams.Get().(*codedStream)
	f.encoder, f.head, f.from = enc, res.Body, res.Stream
	f.after = compress.Flush
	if length >= 0 {
		f.after = compress.More // a body of known length is no stream of events
	}
	res.Body, res.Length, res.Stream = nil, wire.LengthUntilClose, f
	return c
}

// whole codes the body of a response in one go; nil when it would not become
// smaller.
func (s *Compress) whole(c compress.Coding, a *Asked, res *exchange.Response) *compress.Buffer {
	steps := s.shedder.Step(clock.Coarse())
	if c == compress.Dcz {
		return s.engine.EncodeWith(a.dictionary, s.levels[c], steps, res.Body)
	}
	space := s.memo
	if fieldHas(res.Header, wire.CacheControl, "no-store") || fieldHas(res.Header, wire.CacheControl, "private") {
		space = compress.NoSpace
	}
	return s.engine.Encode(space, c, s.levels[c], steps, res.Body)
}

// collect makes a response whose body comes in pieces one whose body is there,
// in a buffer that is its stream. After false its stream is the error that has
// ended the body.
func collect(res *exchange.Response) bool {
	b := compress.AcquireBuffer(int(res.Length))
	fits := b.Append(res.Body)
	var err error
	for err == nil && fits {
		var piece []byte
		piece, err = res.Stream.Next()
		fits = b.Append(piece)
	}
	if !fits || err == io.EOF && int64(len(b.Bytes())) != res.Length {
		err = io.ErrUnexpectedEOF // its length is not what was announced
	}
	release(res.Stream)
	if err != io.EOF {
		b.Release()
		res.Body, res.Stream = nil, failedStream{err}
		return false
	}
	res.Body, res.Stream = b.Bytes(), b
	return true
}

// decoded replaces a coded body by the plain one if the client can't read it.
// After false nothing but Vary has changed.
func (s *Compress) decoded(x *exchange.Exchange, c compress.Coding, a *Asked) bool {
	res := &x.Response
	h := res.Header
	if res.Status == 206 || h.Has(wire.ContentRange) || fieldHas(h, wire.CacheControl, "no-transform") {
		return false
	}
	s.vary(h)
	if a.accept.Allows(c) || fieldHas(&x.Request.Header, wire.CacheControl, "no-transform") {
		return false
	}
	if x.Request.Method != wire.MethodHead {
		if res.Stream == nil && len(res.Body) == 0 {
			return false // not even a coding's end
		}
		d := s.engine.Decoder(c, res.Body, res.Stream, s.limits, s.streams)
		if d == nil {
			return false // too many streams
		}
		f := plainStreams.Get().(*plainStream)
		f.decoder, f.from = d, res.Stream
		res.Body, res.Stream = nil, f
	}
	res.Length = wire.LengthUntilClose
	h.Del(wire.ContentEncoding)
	if tag := h.Get(wire.ETag); len(tag) > 0 && tag[0] == '"' {
		var scratch [128]byte // the origin knows the weak form too
		h.Set("ETag", append(append(scratch[:0], "W/"...), tag...))
	}
	delFields(h)
	return true
}

// fromOtherSite reports whether a page that is not of this host has made the
// request, as far as the client tells.
func fromOtherSite(x *exchange.Exchange) bool {
	h := &x.Request.Header
	if site := h.Find("Sec-Fetch-Site"); site != nil {
		return string(site) != "same-origin" && string(site) != "none"
	}
	page := h.Get(wire.Origin)
	if page == nil {
		page = h.Get(wire.Referer)
	}
	if page == nil {
		return false // typed in, or no browser
	}
	scheme, rest, found := bytes.Cut(page, []byte("://"))
	if end := bytes.IndexAny(rest, "/?#"); end >= 0 {
		rest = rest[:end]
	}
	return !found || string(scheme) != x.Scheme || !bytes.EqualFold(rest, x.Request.Host)
}

// vary says which fields of the request the response depends on.
func (s *Compress) vary(h *wire.Header) {
	if fieldHas(h, wire.Vary, "*") {
		return
	}
	if !fieldHas(h, wire.Vary, "accept-encoding") {
		h.AddString("Vary", "Accept-Encoding")
	}
	if s.dictionaries != nil && !fieldHas(h, wire.Vary, "available-dictionary") {
		h.AddString("Vary", "Available-Dictionary")
	}
}

// fieldHas reports whether a token, in lower case, is in a field that is a list.
func fieldHas(h *wire.Header, id wire.FieldID, token string) bool {
	for i := h.Next(id, 0); i >= 0; i = h.Next(id, i+1) {
		if _, list, _, _ := h.Field(i); wire.HasToken(list, token) {
			return true
		}
	}
	return false
}

// bodyFields hold for one form of a body only: digests are of its bytes, and
// ranges count them.
var bodyFields = [...]string{"Accept-Ranges", "Content-MD5", "Digest", "Content-Digest", "Repr-Digest"}

func delFields(h *wire.Header) {
	for i := range h.Len() {
		if name, _, id, ok := h.Field(i); ok && id == wire.Unknown && isBodyField(name) {
			h.DelAt(i)
		}
	}
}

func isBodyField(name []byte) bool {
	for _, s := range bodyFields {
		if len(name) == len(s) && bytes.EqualFold(name, []byte(s)) {
			return true
		}
	}
	return false
}
