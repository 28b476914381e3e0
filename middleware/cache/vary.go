package cache

import (
	"bytes"
	"slices"

	"gateway/internal/ascii"
	"gateway/wire"
)

// maxVary bounds the names in Vary.
const maxVary = 16

// rewritten are request fields that the gateway itself writes: a response that
// depends on them is one for nobody else. Those that repeat the scheme and the
// host are part of the key already.
func rewritten(id wire.FieldID) bool {
	switch id {
	case wire.XForwardedFor, wire.Forwarded, wire.Via, wire.XRequestID, wire.Traceparent, wire.Tracestate:
		return true
	}
	return false
}

func keyed(id wire.FieldID) bool {
	switch id {
	case wire.Host, wire.XForwardedProto, wire.XForwardedHost, wire.XForwardedPort:
		return true
	}
	return false
}

// judgeVary reports whether what a response varies by can be told from a
// request.
func judgeVary(h *wire.Header) NoStoreReason {
	n := 0
	for i := h.Next(wire.Vary, 0); i >= 0; i = h.Next(wire.Vary, i+1) {
		_, list, _, _ := h.Field(i)
		for {
			var name []byte
			if name, list = cutElement(list); len(name) == 0 {
				break
			}
			// What is no name is treated like "*": nobody knows what it means.
			if string(name) == "*" || tokenLen(name) != len(name) || rewritten(wire.LookupField(name)) {
				return VariesByAnything
			}
			if n++; n > maxVary {
				return TooManyVary
			}
		}
	}
	return Storable
}

// appendVary appends the names that a response varies by: lower case, sorted,
// each once, each followed by a comma; nothing when it varies by nothing.
// judgeVary must have agreed.
func appendVary(dst []byte, h *wire.Header) []byte {
	if !h.Has(wire.Vary) {
		return dst
	}
	names := make([]string, 0, maxVary)
	for i := h.Next(wire.Vary, 0); i >= 0; i = h.Next(wire.Vary, i+1) {
		_, list, _, _ := h.Field(i)
		for {
			var name []byte
			if name, list = cutElement(list); len(name) == 0 {
				break
			}
			if !keyed(wire.LookupField(name)) {
				names = append(names, string(bytes.ToLower(name)))
			}
		}
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		dst = append(append(dst, name...), ',')
	}
	return dst
}

// appendVariant appends what a request says about the fields named in vary, a
// result of appendVary, so that different values never look alike. Lines of one
// field are joined, white space around commas does not count (RFC 9111 section
// 4.1), and fields whose syntax is known are normalised further. It allocates
// nothing but room in dst.
func appendVariant(dst, vary []byte, h *wire.Header) []byte {
	for len(vary) > 0 {
		end := bytes.IndexByte(vary, ',')
		name := vary[:end]
		vary = vary[end+1:]
		dst = appendLength(dst, len(name))
		dst = append(dst, name...)
		at := len(dst)
		dst = append(dst, 0, 0, 0, 0) // present, and the length of the value
		present := false
		id := wire.LookupField(name)
		for i := h.Next(id, 0); i >= 0; i = h.Next(id, i+1) {
			field, value, _, _ := h.Field(i)
			if id == wire.Unknown && !ascii.EqualFold(field, name) {
				continue
			}
			dst = appendElements(dst, value, present)
			present = true
		}
		if id == wire.AcceptEncoding || id == wire.Accept || ascii.EqualFold(name, "accept-language") || ascii.EqualFold(name, "accept-charset") {
			dst = dst[:at+4+normalise(dst[at+4:], id == wire.AcceptEncoding)]
		}
		n := len(dst) - at - 4
		if present {
			dst[at] = 1
		}
		dst[at+1], dst[at+2], dst[at+3] = byte(n>>16), byte(n>>8), byte(n)
	}
	return dst
}

// appendElements appends the elements of a list, joined by single commas.
func appendElements(dst, list []byte, more bool) []byte {
	if more {
		dst = append(dst, ',')
	}
	for begun := false; len(list) > 0; {
		end := elementEnd(list)
		if begun {
			dst = append(dst, ',')
		}
		begun = true
		dst = append(dst, ascii.TrimSpace(list[:end])...)
		if end == len(list) {
			break
		}
		list = list[end+1:]
	}
	return dst
}

// normalise writes a list of preferences in lower case and without white space
// around semicolons, and orders it where the order means nothing: by falling
// quality, and elements of the same quality by text if any is true. It returns
// the new length. Longer lists than usual are left in their order.
func normalise(s []byte, any bool) int {
	n := 0
	quoted := false
	for i, c := range s {
		if c == '"' {
			quoted = !quoted
		}
		if ascii.IsSpace(c) && !quoted && (i+1 == len(s) || ascii.IsSpace(s[i+1]) || s[i+1] == ';' || s[i+1] == '=' ||
			n == 0 || s[n-1] == ';' || s[n-1] == '=') {
			continue
		}
		s[n] = ascii.Lower[c]
		n++
	}
	s = s[:n]
	const most = 16
	var elements [most][]byte
	count := 0
	for list := s; len(list) > 0; count++ {
		if count == most {
			return n
		}
		end := elementEnd(list)
		elements[count] = list[:end]
		list = list[min(end+1, len(list)):]
	}
	list := elements[:count]
	// Insertion sort: stable, and nothing escapes.
	for i := 1; i < len(list); i++ {
		for k := i; k > 0 && before(list[k], list[k-1], any); k-- {
			list[k], list[k-1] = list[k-1], list[k]
		}
	}
	var scratch [256]byte
	if n > len(scratch) {
		return n
	}
	out := scratch[:0]
	for i, element := range list {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, element...)
	}
	return copy(s, out)
}

func before(a, b []byte, any bool) bool {
	qa, qb := quality(a), quality(b)
	if qa != qb {
		return qa > qb
	}
	return any && bytes.Compare(a, b) < 0
}

// quality is the weight of an element in thousandths (RFC 9110 section 12.4.2).
func quality(element []byte) int {
	i := bytes.LastIndex(element, []byte(";q="))
	if i < 0 {
		return 1000
	}
	s := element[i+3:]
	if len(s) == 0 || len(s) > 5 || s[0] != '0' && s[0] != '1' {
		return 1000
	}
	q, scale := int(s[0]-'0')*1000, 100
	for i, c := range s[1:] {
		if i == 0 && c == '.' {
			continue
		}
		if c < '0' || c > '9' {
			return 1000
		}
		q += int(c-'0') * scale
		scale /= 10
	}
	return q
}
