package wire

import "bytes"

// What a byte of a request target is to the parser.
const (
	plain    uint8 = iota
	slash          // separator of segments
	percent        // beginning of an escape
	question       // beginning of the query
	hash           // beginning of a fragment, which a target has not
	encode         // no URI contains it, but clients send it: percent-encoded
	refuse         // control bytes, space and backslash
)

// targetClass and unreserved follow RFC 3986, which has more reserved bytes
// than those that need a class here. The backslash is refused because some
// origins take it for a slash.
var targetClass, unreserved = func() (class [256]uint8, unreserved [256]bool) {
	for c := range 256 {
		switch {
		case c <= ' ', c == 0x7f, c == '\\':
			class[c] = refuse
		case c >= 0x80:
			class[c] = encode
		}
		unreserved[c] = '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' ||
			c == '-' || c == '.' || c == '_' || c == '~'
	}
	for _, c := range []byte("\"<>^`{|}") {
		class[c] = encode
	}
	class['/'], class['%'], class['?'], class['#'] = slash, percent, question, hash
	return class, unreserved
}()

// targetFault says what is wrong with a byte that no target may contain.
func targetFault(c byte) Fault {
	switch c {
	case '#':
		return Fragment
	case '\r':
		return BareCR
	case '\n':
		return BareLF
	}
	return BadTarget
}

// splitTarget finds Path and Query of an origin-form target, which begins with
// a slash. They are parts of target where that is normal already.
func (r *Request) splitTarget(target []byte, rule SlashRule) Fault {
	if len(target) > 1 && target[1] == '/' {
		return BadTarget // an authority to some, a path to others
	}
	normal := true
	end := 0
path:
	for ; end < len(target); end++ {
		switch c := target[end]; targetClass[c] {
		case plain:
		case slash:
			if dotSegment(target[end+1:]) {
				normal = false
			}
		case percent:
			if !normalEscape(target[end:], rule) {
				normal = false
			}
		case question:
			break path
		case encode:
			normal = false
		default:
			return targetFault(c)
		}
	}
	r.Path = target[:end:end]
	if !normal {
		at := len(r.norm)
		var f Fault
		if r.norm, f = appendPath(r.norm, r.Path, rule); f != NoFault {
			return f
		}
		r.Path = r.norm[at:len(r.norm):len(r.norm)]
	}
	if end == len(target) {
		return NoFault
	}
	r.Query = target[end+1 : len(target) : len(target)]
	normal = true
	for _, c := range r.Query {
		switch targetClass[c] {
		case encode:
			normal = false
		case hash, refuse:
			return targetFault(c)
		}
	}
	if !normal {
		at := len(r.norm)
		for _, c := range r.Query {
			if targetClass[c] == encode {
				r.norm = appendEscape(r.norm, c)
			} else {
				r.norm = append(r.norm, c)
			}
		}
		r.Query = r.norm[at:len(r.norm):len(r.norm)]
	}
	return NoFault
}

// dotSegment reports whether s begins with a segment "." or "..".
func dotSegment(s []byte) bool {
	n := 0
	for n < len(s) && n < 3 && s[n] == '.' {
		n++
	}
	return (n == 1 || n == 2) && (n == len(s) || s[n] == '/' || s[n] == '?')
}

// unescape is the byte that the escape at the beginning of s stands for.
func unescape(s []byte) (c byte, ok bool) {
	if len(s) < 3 {
		return 0, false
	}
	high, low := unhex(s[1]), unhex(s[2])
	return high<<4 | low, high|low < 16
}

// unhex is the value of a hexadecimal digit, 0xff for another byte.
func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 0xff
}

func appendEscape(dst []byte, c byte) []byte {
	const digits = "0123456789ABCDEF"
	return append(dst, '%', digits[c>>4], digits[c&15])
}

// normalEscape reports whether appendPath would leave the escape at the
// beginning of s as it is.
func normalEscape(s []byte, rule SlashRule) bool {
	c, ok := unescape(s)
	return ok && c != 0 && !unreserved[c] && (c != '/' || rule == SlashKeep) && s[1] <= 'F' && s[2] <= 'F'
}

// appendPath appends the normal form of a path that begins with a slash (RFC
// 3986 section 6.2.2): unreserved characters decoded, other escapes in upper
// case, what no URI contains encoded, dot segments removed. Normalising twice
// is normalising once. What would come to begin with two slashes ("/a/..//b")
// is refused rather than collapsed: nobody needs it, and the next server might
// read an authority.
func appendPath(dst, path []byte, rule SlashRule) ([]byte, Fault) {
	base := len(dst)
	dst = append(dst, '/')
	segment := len(dst) // where the segment begins that is being written
	for i := 1; i < len(path); i++ {
		c := path[i]
		switch targetClass[c] {
		case percent:
			var ok bool
			if c, ok = unescape(path[i:]); !ok || c == 0 {
				return dst, BadPercent
			}
			i += 2
			if unreserved[c] {
				dst = append(dst, c)
				continue
			}
			if c != '/' || rule == SlashKeep {
				dst = appendEscape(dst, c)
				continue
			}
			if rule == SlashReject {
				return dst, EncodedSlash
			}
		case slash:
		case encode:
			dst = appendEscape(dst, c)
			continue
		case hash, refuse:
			return dst, targetFault(c)
		default:
			dst = append(dst, c)
			continue
		}
		end, f := endSegment(dst, base, segment)
		if f != NoFault {
			return dst, f
		}
		if end < len(dst) {
			dst = dst[:end] // a dot segment: what is left ends with a slash
		} else {
			dst = append(dst, '/')
		}
		segment = len(dst)
	}
	end, f := endSegment(dst, base, segment)
	if f != NoFault {
		return dst, f
	}
	if end > base+1 && dst[base+1] == '/' {
		return dst, BadTarget
	}
	return dst[:end], NoFault
}

// endSegment is the length that dst has after its last segment was taken for
// what it is: "." vanishes and ".." takes the segment before it along.
func endSegment(dst []byte, base, segment int) (int, Fault) {
	switch string(dst[segment:]) {
	case ".":
		return segment, NoFault
	case "..":
		if segment == base+1 {
			return 0, AboveRoot
		}
		return base + bytes.LastIndexByte(dst[base:segment-1], '/') + 1, NoFault
	}
	return len(dst), NoFault
}
