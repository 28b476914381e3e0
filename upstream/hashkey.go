package upstream

import (
	"fmt"
	"strings"
)

// KeySource is the part of a request that balance = "hash" goes by.
type KeySource uint8

const (
	KeyIP     KeySource = iota // the client's address
	KeyPath                    // the normalised path
	KeyHeader                  // a field of the request, by name
	KeyCookie                  // a cookie, by name
	KeyQuery                   // a parameter of the query, by name
)

var keySources = [...]string{KeyIP: "ip", KeyPath: "path", KeyHeader: "header", KeyCookie: "cookie", KeyQuery: "query"}

// HashKey names the key of a request. Its text is "ip", "path", "header:NAME",
// "cookie:NAME" or "query:NAME". The zero value is "ip".
type HashKey struct {
	Source KeySource
	Name   string // of the field, cookie or parameter, as configured
}

// UnmarshalText reads a key.
func (k *HashKey) UnmarshalText(text []byte) error {
	source, name, named := strings.Cut(string(text), ":")
	for i, s := range keySources {
		if s != source || named != (KeySource(i) >= KeyHeader) {
			continue
		}
		if named && (name == "" || !visible(name) || KeySource(i) != KeyQuery && !isToken(name)) {
			return fmt.Errorf("unexpected %s name %q in %q", source, name, text)
		}
		*k = HashKey{KeySource(i), name}
		return nil
	}
	return fmt.Errorf(`unknown value %q; want "ip", "path", "header:NAME", "cookie:NAME" or "query:NAME"`, text)
}

// MarshalText is String.
func (k HashKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// String is the key's text.
func (k HashKey) String() string {
	if k.Name == "" {
		return keySources[k.Source]
	}
	return keySources[k.Source] + ":" + k.Name
}

// isToken reports whether s is a token (RFC 9110 section 5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return s != ""
}
