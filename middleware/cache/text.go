package cache

import "unsafe"

// token marks the bytes of a token (RFC 9110 section 5.6.2), lower folds
// ASCII letters.
var token, lower = func() (token [256]bool, lower [256]byte) {
	for c := range 256 {
		lower[c] = byte(c)
		switch {
		case 'A' <= c && c <= 'Z':
			lower[c] = byte(c) | 0x20
			token[c] = true
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			token[c] = true
		}
	}
	for _, c := range []byte("!#$%&'*+-.^_`|~") {
		token[c] = true
	}
	return token, lower
}()

// view is s as bytes that nobody may write to.
func view(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// equalFold compares without regard to the case of ASCII letters.
func equalFold(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i, c := range a {
		if lower[c] != lower[b[i]] {
			return false
		}
	}
	return true
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' }

// trimSpace removes optional white space (RFC 9110 section 5.6.3).
func trimSpace(s []byte) []byte {
	for len(s) > 0 && isSpace(s[0]) {
		s = s[1:]
	}
	for len(s) > 0 && isSpace(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	return s
}

// cutElement splits the first element off a comma-separated list; commas in
// quoted strings do not separate. A quote that is never closed is an ordinary
// byte: what follows it must not be hidden. Empty elements are skipped; an
// empty one is returned at the end only.
func cutElement(list []byte) (element, rest []byte) {
	for len(list) > 0 {
		end := elementEnd(list)
		element = trimSpace(list[:end])
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
	for n < len(s) && token[s[n]] {
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
