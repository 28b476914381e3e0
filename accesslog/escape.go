package accesslog

import (
	"strconv"
	"time"
	"unicode/utf8"
	"unsafe"
)

// Whatever a client sends, lines are printable ASCII: nobody can forge a line,
// nor move the cursor of the terminal on which it is read.

// plain are the bytes that stand for themselves in both formats.
var plain = func() (t [256]bool) {
	for c := ' '; c <= '~'; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// view is b as a string for the time of a call that does not keep it.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// cut is s, or its first bytes up to the limit at the boundary of a character.
func cut(s string, limit int) (head string, wasCut bool) {
	if len(s) <= limit {
		return s, false
	}
	for back := range utf8.UTFMax {
		if utf8.RuneStart(s[limit-back]) {
			return s[:limit-back], true
		}
	}
	return s[:limit], true
}

const hexDigits = "0123456789ABCDEF"

// appendJSON appends s, cut to a limit of at least 4 bytes, as a JSON string of
// ASCII characters. Bytes that are not UTF-8 become U+FFFD, one each.
func appendJSON(b []byte, s string, limit int) []byte {
	s, wasCut := cut(s, limit)
	b = append(b, '"')
	for start, i := 0, 0; ; {
		if i < len(s) && plain[s[i]] {
			i++
			continue
		}
		b = append(b, s[start:i]...)
		if i == len(s) {
			break
		}
		if c := s[i]; c == '"' || c == '\\' {
			b = append(b, '\\', c)
			i++
		} else {
			r, size := utf8.DecodeRuneInString(s[i:])
			i += size
			if r > 0xFFFF {
				r -= 0x10000
				b = appendUnit(b, 0xD800+r>>10)
				r = 0xDC00 + r&0x3FF
			}
			b = appendUnit(b, r)
		}
		start = i
	}
	if wasCut {
		b = append(b, "..."...)
	}
	return append(b, '"')
}

// appendUnit appends a code unit of UTF-16 as \uXXXX.
func appendUnit(b []byte, u rune) []byte {
	return append(b, '\\', 'u', hexDigits[u>>12&15], hexDigits[u>>8&15], hexDigits[u>>4&15], hexDigits[u&15])
}

// appendText appends s, cut to a limit of at least 4 bytes, to a quoted text.
// What does not stand for itself becomes \xXX, byte by byte, as nginx does it.
func appendText(b []byte, s string, limit int) []byte {
	s, wasCut := cut(s, limit)
	for i := 0; i < len(s); i++ {
		if c := s[i]; plain[c] {
			b = append(b, c)
		} else {
			b = append(b, '\\', 'x', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	if wasCut {
		b = append(b, "..."...)
	}
	return b
}

// appendSeconds appends a duration in seconds with six decimals.
func appendSeconds(b []byte, d time.Duration) []byte {
	us := int64(d+500) / 1000
	b = strconv.AppendInt(b, us/1e6, 10)
	b = append(b, '.')
	for scale := int64(1e5); scale > 0; scale /= 10 {
		b = append(b, byte('0'+us/scale%10))
	}
	return b
}
