package cache

import (
	"bytes"

	"gateway/internal/ascii"
	"gateway/wire"
)

// NotModified evaluates the conditions of a GET or HEAD against a stored
// response (RFC 9110 section 13.2.2, RFC 9111 section 4.3.2): true means that
// 304 is the answer. It allocates nothing. If-Match and If-Unmodified-Since are
// the origin's to judge; requests with them pass by the cache.
func (e *Entry) NotModified(h *wire.Header) bool {
	if status := e.Status(); status != 200 && status != 206 {
		return false
	}
	if h.Has(wire.IfNoneMatch) {
		etag := e.ETag()
		for i := h.Next(wire.IfNoneMatch, 0); i >= 0; i = h.Next(wire.IfNoneMatch, i+1) {
			_, list, _, _ := h.Field(i)
			if string(list) == "*" {
				return true
			}
			for {
				var tag []byte
				if tag, list = cutTag(list); len(tag) == 0 {
					break
				}
				if etag != nil && weakEqual(tag, etag) {
					return true
				}
			}
		}
		return false // If-Modified-Since does not count then
	}
	if !h.Has(wire.IfModifiedSince) {
		return false
	}
	t := e.Terms()
	since := dateField(h, wire.IfModifiedSince, t.Received/second)
	if since == noDate {
		return false
	}
	modified, ok := e.LastModified()
	if !ok {
		modified = t.Date
	}
	return modified <= since
}

// cutTag splits the first entity tag off a list. What is not in quotes, as some
// send it, ends at a comma.
func cutTag(list []byte) (tag, rest []byte) {
	for len(list) > 0 && (ascii.IsSpace(list[0]) || list[0] == ',') {
		list = list[1:]
	}
	at := 0
	if bytes.HasPrefix(list, []byte("W/")) {
		at = 2
	}
	if at < len(list) && list[at] == '"' {
		if end := bytes.IndexByte(list[at+1:], '"'); end >= 0 {
			end += at + 2
			return list[:end], list[end:]
		}
	}
	end := bytes.IndexByte(list, ',')
	if end < 0 {
		end = len(list)
	}
	return ascii.TrimSpace(list[:end]), list[end:]
}

// weakEqual is the weak comparison (RFC 9110 section 8.8.3.2).
func weakEqual(a, b []byte) bool {
	return bytes.Equal(bytes.TrimPrefix(a, []byte("W/")), bytes.TrimPrefix(b, []byte("W/")))
}

// strongEqual is the strong comparison.
func strongEqual(a, b []byte) bool {
	return len(a) > 0 && !isWeak(a) && bytes.Equal(a, b)
}

func isWeak(tag []byte) bool { return bytes.HasPrefix(tag, []byte("W/")) }

// strongModified is Last-Modified as a strong validator: the response was made
// at least a second after it (RFC 9110 section 8.8.2.2); false when it is not.
func (e *Entry) strongModified() (unix int64, ok bool) {
	unix, ok = e.LastModified()
	return unix, ok && unix < e.i64(atDate)
}

// ifRange reports whether a Range counts: If-Range is missing, or names what is
// stored by a strong validator (RFC 9110 section 13.1.5).
func (e *Entry) ifRange(h *wire.Header) bool {
	i := h.Next(wire.IfRange, 0)
	if i < 0 {
		return true
	}
	_, value, _, _ := h.Field(i)
	if h.Next(wire.IfRange, i+1) >= 0 {
		return false
	}
	if len(value) > 0 && value[0] == '"' || isWeak(value) {
		return strongEqual(value, e.ETag())
	}
	// Exactly the date, not one before or after it.
	unix, ok := ParseDate(value, e.i64(atDate))
	modified, strong := e.strongModified()
	return ok && strong && unix == modified
}

// AppendConditions appends the fields, as lines with CRLF, of a request that
// asks the origin whether the stored response is still the one (RFC 9111
// section 4.3.1). The client's own conditions must be taken out. Nothing when
// the response has no validator.
func (e *Entry) AppendConditions(dst []byte) []byte {
	if etag := e.ETag(); etag != nil {
		dst = append(dst, "If-None-Match: "...)
		dst = append(append(dst, etag...), "\r\n"...)
	}
	if modified, ok := e.LastModified(); ok {
		dst = append(dst, "If-Modified-Since: "...)
		dst = append(AppendDate(dst, modified), "\r\n"...)
	}
	return dst
}
