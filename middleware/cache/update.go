package cache

import (
	"bytes"

	"gateway/internal/ascii"
	"gateway/wire"
)

// Validated reports whether a 304 is about this stored response (RFC 9111
// section 4.3.4). If not, the request has to be repeated without conditions.
func (e *Entry) Validated(h *wire.Header) bool {
	if etag := h.Get(wire.ETag); etag != nil {
		stored := e.ETag()
		if isWeak(etag) {
			return stored != nil && weakEqual(etag, stored)
		}
		// An origin may forget the weakness that it sent once.
		return strongEqual(etag, stored) || isWeak(stored) && weakEqual(etag, stored)
	}
	if !h.Has(wire.LastModified) {
		return true
	}
	modified, ok := e.LastModified()
	return !ok || dateField(h, wire.LastModified, e.i64(atReceived)/second) == modified
}

// SameAsHead reports whether the response to a HEAD describes what is stored
// (RFC 9111 section 4.3.5). declared is its Content-Length, -1 without one. If
// not, the stored response is out of date.
func (e *Entry) SameAsHead(h *wire.Header, declared int64) bool {
	_, total, _ := e.Partial()
	if declared >= 0 && total >= 0 && declared != total {
		return false
	}
	if etag := h.Get(wire.ETag); etag != nil || e.ETag() != nil {
		if !bytes.Equal(etag, e.ETag()) {
			return false
		}
	}
	if h.Has(wire.LastModified) {
		modified, ok := e.LastModified()
		return ok && dateField(h, wire.LastModified, e.i64(atReceived)/second) == modified
	}
	return true
}

// merge sets h to the stored fields, updated by those of a 304 or of the
// response to a HEAD (RFC 9111 section 3.2). What describes the stored bytes
// stays: the coding, the range and the length. h borrows from e.
func (e *Entry) merge(h, fresh *wire.Header) {
	if f := h.ParseFields(e.Head(), 0); f != wire.NoFault {
		panic("BUG: stored fields: " + f.String())
	}
	for i := range fresh.Len() {
		name, value, id, ok := fresh.Field(i)
		if !ok || unstored(id) && id != wire.Age || id == wire.ContentEncoding || id == wire.ContentRange {
			continue
		}
		if first(fresh, i, name, id) {
			h.DelName(name)
		}
		h.Add(string(name), value)
	}
	if !fresh.Has(wire.Date) {
		h.Del(wire.Date) // it came now
	}
}

// first reports whether field i is the first of its name.
func first(h *wire.Header, i int, name []byte, id wire.FieldID) bool {
	for k := range i {
		other, _, otherID, ok := h.Field(k)
		if ok && otherID == id && ascii.EqualFold(other, name) {
			return false
		}
	}
	return true
}

// combine is the union of two partial responses with the same strong validator
// whose ranges overlap or touch (RFC 9111 section 3.4): the part of old that
// comes before and the part that comes behind what fresh has, and the range
// that they make together.
func combine(old *Entry, fresh *Entry, body int64) (before, behind []byte, s Span, total int64, ok bool) {
	oldFirst, oldTotal, oldPartial := old.Partial()
	first, total, partial := fresh.Partial()
	if !oldPartial || !partial || oldTotal >= 0 && total >= 0 && oldTotal != total || !sameStrong(old, fresh) {
		return nil, nil, s, 0, false
	}
	oldEnd, end := oldFirst+old.BodyLen(), first+body
	if oldEnd < first || end < oldFirst {
		return nil, nil, s, 0, false
	}
	if oldFirst < first {
		before = old.Body()[:first-oldFirst]
	}
	if oldEnd > end {
		behind = old.Body()[end-oldFirst:]
	}
	return before, behind, Span{min(first, oldFirst), max(end, oldEnd) - 1}, max(total, oldTotal), true
}

func sameStrong(a, b *Entry) bool {
	if a.ETag() != nil || b.ETag() != nil {
		return strongEqual(a.ETag(), b.ETag())
	}
	ma, okA := a.strongModified()
	mb, okB := b.strongModified()
	return okA && okB && ma == mb
}
