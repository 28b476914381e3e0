package compress

import (
	"gateway/internal/ascii"
	"gateway/wire"
)

// Coding is a content coding (RFC 9110 section 8.4.1).
type Coding uint8

const (
	Identity    Coding = iota // none at all
	Zstd                      // RFC 8878, with the window limit of RFC 9659
	Brotli                    // RFC 7932
	Gzip                      // RFC 1952
	Deflate                   // RFC 1950: zlib, as the name does not say
	Dcz                       // RFC 9842: zstd with a dictionary that the client has
	CodingCount               // number of values above
)

var codingNames = [CodingCount]string{Identity: "identity", Zstd: "zstd", Brotli: "br", Gzip: "gzip", Deflate: "deflate", Dcz: "dcz"}

// String is the coding's name in fields, options and metrics.
func (c Coding) String() string { return codingNames[c] }

// LookupCoding finds a coding by its name, compared without regard to case;
// x-gzip is gzip (RFC 9110 section 8.4.1.3).
func LookupCoding(name []byte) (c Coding, ok bool) {
	if len(name) > 2 && name[1] == '-' && ascii.EqualFold(name, "x-gzip") {
		return Gzip, true
	}
	for c, known := range codingNames {
		if ascii.EqualFold(name, known) {
			return Coding(c), true
		}
	}
	return Identity, false
}

// Applied finds the coding that a response has: Identity and true without
// one, false when it is none that we can take off, or when several were applied.
func Applied(h *wire.Header) (c Coding, ok bool) {
	for i := h.Next(wire.ContentEncoding, 0); i >= 0; i = h.Next(wire.ContentEncoding, i+1) {
		_, list, _, _ := h.Field(i)
		for len(list) > 0 {
			var element []byte
			element, list = cut(list, ',')
			if element = ascii.TrimSpace(element); len(element) == 0 || ascii.EqualFold(element, "identity") {
				continue
			}
			next, known := LookupCoding(element)
			if !known || next == Dcz || c != Identity {
				return Identity, false
			}
			c = next
		}
	}
	return c, true
}

// cut splits s at the first sep, which belongs to neither part.
func cut(s []byte, sep byte) (before, after []byte) {
	for i, c := range s {
		if c == sep {
			return s[:i], s[i+1:]
		}
	}
	return s, nil
}

// HasDirective reports whether a list has an element name=value, or name alone;
// the name is in lower case.
func HasDirective(list []byte, name string) bool {
	for len(list) > 0 {
		var element []byte
		element, list = cut(list, ',')
		element, _ = cut(element, '=')
		if ascii.EqualFold(ascii.TrimSpace(element), name) {
			return true
		}
	}
	return false
}
