// Package ascii has what the syntax of HTTP says about single bytes.
package ascii

// Token marks the bytes of a token (RFC 9110 section 5.6.2), Lower folds
// letters.
var Token, Lower = func() (token [256]bool, lower [256]byte) {
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

// IsToken reports whether s is a token: not empty, and of the bytes of one.
func IsToken[S string | []byte](s S) bool {
	for i := range len(s) {
		if !Token[s[i]] {
			return false
		}
	}
	return len(s) > 0
}

// EqualFold compares without regard to the case of ASCII letters, unlike
// strings.EqualFold, to which a Kelvin sign is a k.
func EqualFold[A, B string | []byte](a A, b B) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if Lower[a[i]] != Lower[b[i]] {
			return false
		}
	}
	return true
}

// IsSpace reports a space or tab, what RFC 9110 section 5.6.3 calls white space.
func IsSpace(c byte) bool { return c == ' ' || c == '\t' }

// TrimSpace removes white space around s.
func TrimSpace(s []byte) []byte {
	for len(s) > 0 && IsSpace(s[0]) {
		s = s[1:]
	}
	for len(s) > 0 && IsSpace(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	return s
}
