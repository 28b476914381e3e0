package upstream

import (
	"fmt"
	"strings"

	"gateway/internal/ascii"
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
		if named && (name == "" || !visible(name) || KeySource(i) != KeyQuery && !ascii.IsToken(name)) {
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
