package cache

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"io"
	"slices"
	"strconv"

	"gateway/internal/ascii"
	"gateway/wire"
)

// Span is a range of bytes, both ends included.
type Span struct{ First, Last int64 }

// maxRanges bounds the ranges of a request that are looked at; with more of
// them Range does not count, as RFC 9110 section 14.2 allows.
const maxRanges = 16

// Ranges are what a request wants of a representation.
type Ranges struct {
	spans [maxRanges]Span
	n     int
}

// List are the ranges, satisfiable ones only, in the order of the request.
func (r *Ranges) List() []Span { return r.spans[:r.n] }

// RangeResult is what a Range field means for a stored response.
type RangeResult uint8

const (
	RangeIgnored       RangeResult = iota // answer as if there were none
	RangeSatisfied                        // 206
	RangeUnsatisfiable                    // 416
	RangeAbsent                           // a partial response does not have it: ask the origin
)

// Ranges evaluates Range and If-Range of a GET (RFC 9110 section 14.2) against
// a stored response, whole or partial. It allocates nothing.
func (e *Entry) Ranges(r *Ranges, h *wire.Header) RangeResult {
	r.n = 0
	first, total, partial := e.Partial()
	result := RangeIgnored
	if i := h.Next(wire.Range, 0); i >= 0 && h.Next(wire.Range, i+1) < 0 && (e.Status() == 200 || partial) && e.ifRange(h) {
		_, value, _, _ := h.Field(i)
		result = parseRange(r, value, total)
	}
	if !partial {
		return result
	}
	if result == RangeUnsatisfiable {
		return result
	}
	if result != RangeSatisfied {
		return RangeAbsent
	}
	for _, s := range r.List() {
		if s.First < first || s.Last >= first+e.BodyLen() {
			return RangeAbsent
		}
	}
	return result
}

// Part are the stored bytes of a range that Ranges gave.
func (e *Entry) Part(s Span) []byte {
	first := e.i64(atFrom)
	return e.Body()[s.First-first : s.Last-first+1]
}

// parseRange reads the value of Range for a representation of total bytes, -1
// when that is not known.
func parseRange(r *Ranges, value []byte, total int64) RangeResult {
	const unit = "bytes="
	if len(value) < len(unit) || !ascii.EqualFold(value[:len(unit)], unit) {
		return RangeIgnored
	}
	seen, sum := 0, int64(0)
	for list := value[len(unit):]; len(list) > 0; {
		end := bytes.IndexByte(list, ',')
		if end < 0 {
			end = len(list)
		}
		element := ascii.TrimSpace(list[:end])
		list = list[min(end+1, len(list)):]
		if len(element) == 0 {
			continue
		}
		if seen++; seen > maxRanges {
			return RangeIgnored
		}
		dash := bytes.IndexByte(element, '-')
		if dash < 0 {
			return RangeIgnored
		}
		first, okFirst := parsePosition(element[:dash])
		last, okLast := parsePosition(element[dash+1:])
		var s Span
		switch {
		case dash == 0 && okLast: // the last bytes
			if total < 0 {
				return RangeIgnored
			}
			if last == 0 || total == 0 {
				continue
			}
			s = Span{max(total-last, 0), total - 1}
		case okFirst && dash == len(element)-1: // all from there on
			if total < 0 {
				return RangeIgnored
			}
			s = Span{first, total - 1}
		case okFirst && okLast && first <= last:
			s = Span{first, last}
			if total >= 0 {
				s.Last = min(last, total-1)
			}
		default:
			return RangeIgnored
		}
		if total >= 0 && s.First >= total {
			continue // it cannot be satisfied; others may be
		}
		sum += s.Last - s.First + 1
		r.spans[r.n] = s
		r.n++
	}
	if seen == 0 {
		return RangeIgnored
	}
	if r.n == 0 {
		return RangeUnsatisfiable
	}
	if r.n > 1 && total >= 0 && sum > total {
		r.n = 0
		return RangeIgnored // overlapping ranges cost more than the whole
	}
	return RangeSatisfied
}

const maxPosition = 1 << 59 // ten times that is still a number

func parsePosition(s []byte) (n int64, ok bool) {
	if len(s) == 0 {
		return 0, false
	}
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = min(n*10+int64(c-'0'), maxPosition)
	}
	return n, true
}

// partialRange is the value of a Content-Range: Total is -1 when not known.
type partialRange struct {
	Span
	Total int64
}

// contentRange reads the range of a partial response (RFC 9110 section 14.4).
func contentRange(h *wire.Header) (r partialRange, ok bool) {
	i := h.Next(wire.ContentRange, 0)
	if i < 0 || h.Next(wire.ContentRange, i+1) >= 0 {
		return r, false // none, several, or in the parts of a multipart
	}
	_, value, _, _ := h.Field(i)
	const unit = "bytes "
	if len(value) < len(unit) || !ascii.EqualFold(value[:len(unit)], unit) {
		return r, false
	}
	span, total, ok := bytes.Cut(value[len(unit):], []byte{'/'})
	if !ok {
		return r, false
	}
	first, last, ok := bytes.Cut(span, []byte{'-'})
	if !ok {
		return r, false
	}
	var okFirst, okLast bool
	r.First, okFirst = parsePosition(first)
	r.Last, okLast = parsePosition(last)
	if !okFirst || !okLast || r.Last < r.First || r.Last >= maxPosition {
		return r, false
	}
	if string(total) == "*" {
		r.Total = -1
		return r, true
	}
	r.Total, ok = parsePosition(total)
	return r, ok && r.Last < r.Total
}

// AppendContentRange appends the value of Content-Range for a range of total
// bytes, -1 when that is not known.
func AppendContentRange(dst []byte, s Span, total int64) []byte {
	dst = append(dst, "bytes "...)
	dst = strconv.AppendInt(dst, s.First, 10)
	dst = append(dst, '-')
	dst = strconv.AppendInt(dst, s.Last, 10)
	return appendTotal(dst, total)
}

// AppendUnsatisfied appends the value of Content-Range for a 416.
func AppendUnsatisfied(dst []byte, total int64) []byte {
	return appendTotal(append(dst, "bytes *"...), total)
}

func appendTotal(dst []byte, total int64) []byte {
	dst = append(dst, '/')
	if total < 0 {
		return append(dst, '*')
	}
	return strconv.AppendInt(dst, total, 10)
}

// boundary separates the parts of multipart answers. It is not known outside
// before it is used, so that no body can contain it on purpose.
var boundary = func() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}()

// MultipartType is the value of Content-Type of a Multipart.
var MultipartType = "multipart/byteranges; boundary=" + boundary

// Multipart is the body of an answer with several ranges, in pieces (RFC 9110
// section 14.6). The stored bytes must stay until it has been read.
type Multipart struct {
	stored      []byte
	first       int64 // position of the first of them
	list        []Span
	total       int64
	contentType []byte
	at          int  // the part
	body        bool // its body is next
	buf         []byte
}

// Multipart prepares the answer for several ranges. contentType is the
// representation's, nil when it has none; it is copied.
func (e *Entry) Multipart(r *Ranges, contentType []byte) *Multipart {
	first, total, _ := e.Partial()
	return NewMultipart(e.Body(), first, total, r, contentType)
}

// NewMultipart is Multipart for a body that begins at position first of total
// bytes, -1 when that is not known.
func NewMultipart(body []byte, first, total int64, r *Ranges, contentType []byte) *Multipart {
	return &Multipart{stored: body, first: first, list: slices.Clone(r.List()), total: total, contentType: bytes.Clone(contentType)}
}

// Len is the number of bytes of the whole body.
func (m *Multipart) Len() int64 {
	n := int64(0)
	for i, s := range m.list {
		n += int64(len(m.head(i))) + s.Last - s.First + 1
	}
	return n + int64(len(m.head(len(m.list))))
}

// head is what stands before part i, or at the end.
func (m *Multipart) head(i int) []byte {
	b := m.buf[:0]
	if i > 0 {
		b = append(b, "\r\n"...)
	}
	b = append(append(b, "--"...), boundary...)
	if i == len(m.list) {
		b = append(b, "--\r\n"...)
	} else {
		b = append(b, "\r\n"...)
		if m.contentType != nil {
			b = append(b, "Content-Type: "...)
			b = append(append(b, m.contentType...), "\r\n"...)
		}
		b = append(b, "Content-Range: "...)
		b = AppendContentRange(b, m.list[i], m.total)
		b = append(b, "\r\n\r\n"...)
	}
	m.buf = b
	return b
}

// Next is the next piece, valid until the next call; io.EOF at the end.
func (m *Multipart) Next() ([]byte, error) {
	if m.body {
		m.body = false
		m.at++
		part := m.list[m.at-1]
		return m.stored[part.First-m.first : part.Last-m.first+1], nil
	}
	if m.at > len(m.list) {
		return nil, io.EOF
	}
	b := m.head(m.at)
	if m.at == len(m.list) {
		m.at++
	} else {
		m.body = true
	}
	return b, nil
}

// Trailer is nil: there is none.
func (m *Multipart) Trailer() []byte { return nil }
