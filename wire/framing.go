package wire

import "gateway/internal/ascii"

// maxLengthDigits keeps a Content-Length below 2⁶³ with room to add to it.
const maxLengthDigits = 18

// framing is what the fields say about the body that follows (RFC 9112 section
// 6.3), the same for both directions. length is the number of bytes,
// LengthChunked, or LengthUntilClose when no field says anything; declared is
// the value of Content-Length, -1 without one.
//
// Two fields are refused even when they agree, and so is every coding but
// chunked: what two servers could read differently has no place between them.
func (h *Header) framing(minor int) (length, declared int64, f Fault) {
	const framed = 1<<TransferEncoding | 1<<ContentLength
	if h.known&framed == 0 {
		return LengthUntilClose, -1, NoFault
	}
	if i := h.Next(TransferEncoding, 0); i >= 0 {
		switch {
		case minor == 0:
			return 0, 0, CodingInHTTP10
		case h.known.has(ContentLength):
			return 0, 0, LengthAndCoding
		case h.Next(TransferEncoding, i+1) >= 0 || !ascii.EqualFold(h.value(&h.fields[i]), "chunked"):
			return 0, 0, UnknownCoding
		}
		return LengthChunked, -1, NoFault
	}
	i := h.Next(ContentLength, 0)
	if h.Next(ContentLength, i+1) >= 0 {
		return 0, 0, DuplicateContentLength
	}
	value := h.value(&h.fields[i])
	if len(value) == 0 || len(value) > maxLengthDigits {
		return 0, 0, BadContentLength
	}
	for _, c := range value {
		if c < '0' || c > '9' {
			return 0, 0, BadContentLength
		}
		length = length*10 + int64(c-'0')
	}
	return length, length, NoFault
}

// maxOptions bounds the options in the Connection fields of a message, each of
// which DelHopByHop compares with all fields. Usual are one to three.
const maxOptions = 64

// connection is what the Connection fields say about the life of the
// connection (RFC 9112 section 9.3) and about an upgrade.
func (h *Header) connection(minor int) (closing, upgrade bool, f Fault) {
	keep := minor == 1
	options := 0
	for i := h.Next(Connection, 0); i >= 0; i = h.Next(Connection, i+1) {
		list := h.value(&h.fields[i])
		for {
			var option []byte
			if option, list = cutElement(list); len(option) == 0 {
				break
			}
			if options++; options > maxOptions {
				return true, false, TooManyFields
			}
			switch {
			case ascii.EqualFold(option, "close"):
				closing = true
			case ascii.EqualFold(option, "keep-alive"):
				keep = true
			case ascii.EqualFold(option, "upgrade"):
				upgrade = minor == 1 // RFC 9110 section 7.8
			}
		}
	}
	return closing || !keep, upgrade, NoFault
}

// version finds the minor version in "HTTP/1.1" or "HTTP/1.0". Another version
// is BadVersion, what names none is other.
func version(text []byte, other Fault) (minor int, f Fault) {
	switch string(text) {
	case "HTTP/1.1":
		return 1, NoFault
	case "HTTP/1.0":
		return 0, NoFault
	}
	const name = "HTTP/"
	if len(text) <= len(name) || string(text[:len(name)]) != name {
		return 0, other
	}
	for _, c := range text[len(name):] {
		if (c < '0' || c > '9') && c != '.' {
			return 0, other
		}
	}
	return 0, BadVersion
}
