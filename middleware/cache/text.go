package cache

import (
	"unsafe"

	"gateway/internal/ascii"
)

// view is s as bytes that nobody may write to.
func view(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// cutElement splits the first element off a comma-separated list; commas in
// quoted strings do not separate. A quote that is never closed is an ordinary
// byte: what follows it must not be hidden. Empty elements are skipped; an
// empty one is returned at the end only.
func cutElement(list []byte) (element, rest []byte) {
	for len(list) > 0 {
		end := elementEnd(list)
		element = ascii.TrimSpace(list[:end])
		list = list[min(end+1, len(list)):]
		if len(element) > 0 {
			return element, list
		}
	}
	return nil, nil
}

// elementEnd is where the first element of a list ends: at a comma or the end.
func elementEnd(list []byte) int {
	for i := 0; i < len(list); i++ {
		switch list[i] {
		case ',':
			return i
		case '"':
			if n := quotedLen(list[i:]); n > 0 {
				i += n - 1
			}
		}
	}
	return len(list)
}

// quotedLen is the length of the quoted string that s begins with, quotes
// included; 0 when it is not closed.
func quotedLen(s []byte) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return 0
}

// tokenLen is the number of bytes of the token that s begins with.
func tokenLen(s []byte) int {
	n := 0
	for n < len(s) && ascii.Token[s[n]] {
		n++
	}
	return n
}

// maxDelta is what larger numbers of seconds become: RFC 9111 section 1.2.2.
const maxDelta = 1 << 31

// parseDelta reads delta-seconds: digits only, at most maxDelta.
func parseDelta(s []byte) (seconds int64, ok bool) {
	if len(s) == 0 {
		return 0, false
	}
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0, false
		}
		if seconds = seconds*10 + int64(c-'0'); seconds > maxDelta {
			seconds = maxDelta
		}
	}
	return seconds, true
}
