package cache

import (
	"strconv"

	"gateway/wire"
)

// incomplete reports whether the entry is the beginning of what is asked for, and
// can be completed by the rest: that takes a strong validator (RFC 9111 sections
// 3.3 and 3.4).
func (l *Lookup) incomplete() bool {
	e := &l.Entry
	if l.Asked.Method != wire.MethodGet || l.Asked.Ranged || l.Asked.Control.Has(NoCache) {
		return false
	}
	first, total, _ := e.Partial()
	return first == 0 && total > e.BodyLen() && e.rangeValidator() != nil
}

// rangeValidator is what If-Range says of the stored response, nil when it has no
// strong validator (RFC 9110 section 13.1.5).
func (e *Entry) rangeValidator() []byte {
	if tag := e.ETag(); tag != nil {
		if isWeak(tag) {
			return nil
		}
		return tag
	}
	if modified, ok := e.strongModified(); ok {
		return AppendDate(nil, modified)
	}
	return nil
}

// AskRest makes a request without a range one for what a Part lacks, as long as
// the origin still has the same response; otherwise it gives a whole one.
func (e *Entry) AskRest(h *wire.Header) {
	var scratch [32]byte
	rest := strconv.AppendInt(append(scratch[:0], "bytes="...), e.BodyLen(), 10)
	h.AddID(wire.Range, append(rest, '-'))
	h.AddID(wire.IfRange, e.rangeValidator())
}

// Complete reports whether a response is the rest that AskRest asks for, and sets
// h to the fields of the whole response (RFC 9111 section 3.4), which then borrows
// from e. length is that of the body of the rest, -1 when it is not known.
func (e *Entry) Complete(h *wire.Header, o *Origin, length int64) bool {
	_, total, _ := e.Partial()
	r, ok := contentRange(o.Header)
	if o.Status != 206 || !ok || r.First != e.BodyLen() || r.Total != total || r.Last != total-1 || length != total-r.First ||
		!e.strongSame(o) {
		return false
	}
	e.merge(h, o.Header)
	return true
}

// strongSame reports whether a response has the strong validator of the stored one.
func (e *Entry) strongSame(o *Origin) bool {
	if tag := o.Header.Get(wire.ETag); tag != nil || e.ETag() != nil {
		return strongEqual(tag, e.ETag())
	}
	modified, ok := e.strongModified()
	now := o.Received / second
	sent := dateField(o.Header, wire.Date, now)
	if sent == noDate {
		sent = now
	}
	return ok && dateField(o.Header, wire.LastModified, now) == modified && modified < sent
}
