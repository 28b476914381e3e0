package cache

import (
	"encoding/binary"
	"math"
	"time"

	"gateway/internal/ascii"
	"gateway/wire"
)

var le = binary.LittleEndian

// Entry is a stored response, or the head of one that is being received: a
// block of bytes that never changes. Slices of it are valid until Release.
//
//	meta | key | tags | names of Vary | field lines | body
type Entry struct {
	blob []byte
	at   *segment // pinned until Release; nil for a block of its own
	soft bool
}

// Offsets into the meta data. All numbers are little endian.
const (
	atVersion    = 0  // u16
	atStatus     = 2  // u16
	atFlags      = 4  // u32
	atReceived   = 8  // i64 ns
	atInitialAge = 16 // i64 ns
	atLifetime   = 24 // i64 ns
	atSWR        = 32 // i64 ns
	atSIE        = 40 // i64 ns
	atKeep       = 48 // i64 ns
	atDate       = 56 // i64 s
	atModified   = 64 // i64 s, noDate without one
	atBody       = 72 // i64 bytes stored
	atFrom       = 80 // i64 first position of a partial response
	atTotal      = 88 // i64 length of the whole, -1 unknown
	atSequence   = 96 // u64 purges before it was asked for
	atID         = 104
	atKeyLen     = 112 // u32
	atPrimaryLen = 116 // u32, of the key without the variant
	atTags       = 120 // u32 number
	atVaryLen    = 124 // u32
	atHeadLen    = 128 // u32
	atETag       = 132 // u32 in the field lines
	atETagLen    = 136 // u32, 0 without one
	atTook       = 140 // u32 µs
	atGeneration = 144 // u64 shared purges that were known then
	metaSize     = 152

	entryVersion = 2
)

const (
	flagExplicit uint32 = 1 << 16 // above the directives
	flagVary     uint32 = 1 << 17 // not a response, but the ways in which responses differ
	flagPartial  uint32 = 1 << 18
)

// Valid reports whether e holds a response.
func (e *Entry) Valid() bool { return e.blob != nil }

// Release gives up the bytes, which may be overwritten then. It may be called
// once for each entry that a lookup gave, and on the zero Entry.
func (e *Entry) Release() {
	if e.at != nil {
		e.at.unpin()
	}
	*e = Entry{}
}

func (e *Entry) u32(at int) int   { return int(le.Uint32(e.blob[at:])) }
func (e *Entry) i64(at int) int64 { return int64(le.Uint64(e.blob[at:])) }
func (e *Entry) flags() uint32    { return le.Uint32(e.blob[atFlags:]) }
func (e *Entry) id() uint64       { return le.Uint64(e.blob[atID:]) }
func (e *Entry) sequence() uint64 { return le.Uint64(e.blob[atSequence:]) }

// generation is the last shared purge that was known when the response was asked
// for.
func (e *Entry) generation() uint64 { return le.Uint64(e.blob[atGeneration:]) }

// Status is the response's status; 206 for a partial response.
func (e *Entry) Status() int { return int(le.Uint16(e.blob[atStatus:])) }

// Soft reports whether the response was purged softly: it counts as stale.
func (e *Entry) Soft() bool { return e.soft }

// Terms are the conditions under which the response may be used.
func (e *Entry) Terms() Terms {
	f := e.flags()
	return Terms{
		Received: e.i64(atReceived), InitialAge: e.i64(atInitialAge), Lifetime: e.i64(atLifetime),
		StaleWhileRevalidate: e.i64(atSWR), StaleIfError: e.i64(atSIE), Keep: e.i64(atKeep),
		Date: e.i64(atDate), Control: Directive(f), Explicit: f&flagExplicit != 0,
	}
}

// Partial reports whether only a part of the representation is there: the bytes
// from first on, of total bytes (-1 when that is not known).
func (e *Entry) Partial() (first, total int64, partial bool) {
	return e.i64(atFrom), e.i64(atTotal), e.flags()&flagPartial != 0
}

// BodyLen is the number of bytes of the body; -1 in a head whose body has no
// known length yet.
func (e *Entry) BodyLen() int64 { return e.i64(atBody) }

func (e *Entry) keyEnd() int     { return metaSize + e.u32(atKeyLen) }
func (e *Entry) key() []byte     { return e.blob[metaSize:e.keyEnd()] }
func (e *Entry) primary() []byte { return e.blob[metaSize : metaSize+e.u32(atPrimaryLen)] }
func (e *Entry) tagsEnd() int    { return e.keyEnd() + 8*e.u32(atTags) }
func (e *Entry) tag(i int) uint64 {
	return le.Uint64(e.blob[e.keyEnd()+8*i:])
}
func (e *Entry) headAt() int { return e.tagsEnd() + e.u32(atVaryLen) }

// vary are the names of the fields that the response differs by.
func (e *Entry) vary() []byte { return e.blob[e.tagsEnd():e.headAt()] }

// Head are the response's fields as lines with CRLF, without Age and
// Content-Length, and without the Content-Range of a partial response; that of
// others is a field like any (RFC 9111 section 3.1).
func (e *Entry) Head() []byte {
	at := e.headAt()
	return e.blob[at : at+e.u32(atHeadLen) : at+e.u32(atHeadLen)]
}

// Body is what is stored of the body.
func (e *Entry) Body() []byte {
	at := e.headAt() + e.u32(atHeadLen)
	return e.blob[at:len(e.blob):len(e.blob)]
}

// ETag is the response's entity tag as it was received, nil without one.
func (e *Entry) ETag() []byte {
	n := e.u32(atETagLen)
	if n == 0 {
		return nil
	}
	at := e.u32(atETag)
	return e.Head()[at : at+n]
}

// LastModified is in seconds since 1970; false without a valid one.
func (e *Entry) LastModified() (unix int64, ok bool) {
	unix = e.i64(atModified)
	return unix, unix != noDate
}

// Took is how long the origin took for the response, until its head was there:
// what a hit saves. An hour at most.
func (e *Entry) Took() time.Duration {
	return min(time.Duration(e.u32(atTook))*time.Microsecond, maxTook)
}

const maxTook = time.Hour

// take sets what Took returns.
func (e *Entry) take(d time.Duration) {
	le.PutUint32(e.blob[atTook:], uint32(min(max(d, 0), maxTook)/time.Microsecond))
}

// draft makes the head of an entry in b, or elsewhere when that is too small.
// key includes the variant, primary is the length of the key without it. It fails
// when the response cannot be found again by all of its tags.
func (p *Policy) draft(b, key []byte, primary int, vary []byte, o *Origin, t *Terms, id, sequence, generation uint64) (Entry, NoStoreReason) {
	h := o.Header
	size := metaSize + len(key) + len(vary) + 64
	for i := range h.Len() {
		name, value, _, _ := h.Field(i)
		size += len(name) + len(value) + 4
	}
	if cap(b) < size {
		b = make([]byte, 0, size)
	}
	b = b[:metaSize]
	clear(b)
	b = append(b, key...)
	b, tags := appendTags(b, h, key)
	if tags > maxTags {
		return Entry{}, TooManyTags
	}
	b = append(b, vary...)
	head := len(b)
	b, etag, tagLen := p.appendHead(b, o, t)
	flags := uint32(t.Control)
	if t.Explicit {
		flags |= flagExplicit
	}
	body, from, total := int64(-1), int64(0), int64(-1)
	if r, ok := contentRange(h); o.Status == 206 && ok {
		flags |= flagPartial
		body, from, total = r.Last-r.First+1, r.First, r.Total
	}
	le.PutUint16(b[atVersion:], entryVersion)
	le.PutUint16(b[atStatus:], uint16(o.Status))
	le.PutUint32(b[atFlags:], flags)
	for i, v := range [...]int64{
		t.Received, t.InitialAge, t.Lifetime, t.StaleWhileRevalidate, t.StaleIfError, t.Keep, t.Date,
		dateField(h, wire.LastModified, t.Received/second), body, from, total, int64(sequence), int64(id),
	} {
		le.PutUint64(b[atReceived+8*i:], uint64(v))
	}
	for i, v := range [...]int{len(key), primary, tags, len(vary), len(b) - head} {
		le.PutUint32(b[atKeyLen+4*i:], uint32(v))
	}
	le.PutUint64(b[atGeneration:], generation)
	if tagLen > 0 {
		le.PutUint32(b[atETag:], uint32(etag-head))
		le.PutUint32(b[atETagLen:], uint32(tagLen))
	}
	e := Entry{blob: b}
	if o.Requested > 0 {
		e.take(time.Duration(o.Received - o.Requested))
	}
	return e, Storable
}

// appendHead appends the fields that are stored. The entity tag has n bytes and
// begins at etag in the result.
func (p *Policy) appendHead(b []byte, o *Origin, t *Terms) (out []byte, etag, n int) {
	h := o.Header
	var left []string // names that are left out
	if t.Control.Has(NoCacheFields | PrivateFields) {
		eachQualified(h, p.targeted, func(name []byte) { left = append(left, string(name)) })
	}
	for i := h.Next(wire.Connection, 0); i >= 0; i = h.Next(wire.Connection, i+1) {
		_, list, _, _ := h.Field(i)
		var name []byte
		for name, list = cutElement(list); len(name) > 0; name, list = cutElement(list) {
			left = append(left, string(name))
		}
	}
	dated := dateField(h, wire.Date, t.Received/second) != noDate
fields:
	for i := range h.Len() {
		name, value, id, live := h.Field(i)
		if !live || unstored(id) || id == wire.Date && !dated || id == wire.SetCookie && p.ignore&ignoreSetCookie != 0 ||
			id == wire.ContentRange && o.Status == 206 {
			continue
		}
		for _, l := range left {
			if ascii.EqualFold(name, l) {
				continue fields
			}
		}
		b = append(b, name...)
		b = append(b, ": "...)
		if id == wire.ETag && n == 0 {
			etag, n = len(b), len(value)
		}
		b = append(b, value...)
		b = append(b, "\r\n"...)
	}
	if !dated {
		b = append(b, "Date: "...)
		b = AppendDate(b, t.Date)
		b = append(b, "\r\n"...)
	}
	return b, etag, n
}

// joined makes the head that of a combined range; if that is the whole
// representation, then of a complete response.
func (e *Entry) joined(s Span, total int64) {
	le.PutUint64(e.blob[atBody:], uint64(s.Last-s.First+1))
	le.PutUint64(e.blob[atFrom:], uint64(s.First))
	le.PutUint64(e.blob[atTotal:], uint64(total))
	if s.First == 0 && total == s.Last+1 {
		le.PutUint16(e.blob[atStatus:], 200)
		le.PutUint32(e.blob[atFlags:], e.flags()&^flagPartial)
	}
}

// sized sets the length of the body, which is known now.
func (e *Entry) sized(n int64) {
	le.PutUint64(e.blob[atBody:], uint64(n))
	if e.flags()&flagPartial == 0 {
		le.PutUint64(e.blob[atTotal:], uint64(n))
	}
}

// DecodeEntry checks a block that came from outside. The entry refers to b.
func DecodeEntry(b []byte) (Entry, bool) {
	if len(b) < metaSize || len(b) > math.MaxUint32 || le.Uint16(b) != entryVersion {
		return Entry{}, false
	}
	e := Entry{blob: b}
	status := e.Status()
	if e.flags()&flagVary != 0 || status < 200 || status > 599 {
		return Entry{}, false
	}
	head := metaSize + e.u32(atKeyLen) + 8*e.u32(atTags) + e.u32(atVaryLen)
	if head > len(b) || head+e.u32(atHeadLen) > len(b) || e.u32(atPrimaryLen) > e.u32(atKeyLen) {
		return Entry{}, false
	}
	if _, ok := splitKey(e.primary()); !ok || e.u32(atETag)+e.u32(atETagLen) > e.u32(atHeadLen) {
		return Entry{}, false
	}
	var h wire.Header
	if h.ParseFields(e.Head(), 0) != wire.NoFault {
		return Entry{}, false
	}
	for _, at := range []int{atReceived, atInitialAge, atLifetime, atSWR, atSIE, atKeep} {
		// Sums of any few of them do not overflow.
		if v := e.i64(at); v < 0 || v > math.MaxInt64/3 {
			return Entry{}, false
		}
	}
	if v := e.vary(); len(v) > 0 && v[len(v)-1] != ',' {
		return Entry{}, false
	}
	body, from, total := e.BodyLen(), e.i64(atFrom), e.i64(atTotal)
	if body != int64(len(e.Body())) || from < 0 || from > math.MaxInt64/2 || total >= 0 && from+body > total || total < -1 {
		return Entry{}, false
	}
	if partial := e.flags()&flagPartial != 0; partial != (status == 206) || !partial && (from != 0 || total != body) || partial && body == 0 {
		return Entry{}, false
	}
	return e, true
}
