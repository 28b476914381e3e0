package compress

import (
	"fmt"
	"strings"

	"gateway/internal/ascii"
)

// Types is a set of media types.
type Types struct {
	exact    []string // "application/json"
	prefixes []string // "text/", also of "text/*"
	suffixes []string // "+json"
}

// longestType is the longest media type that can be in a set.
const longestType = 96

// NewTypes makes a set of patterns that CheckType accepts.
func NewTypes(patterns []string) (t Types) {
	for _, p := range patterns {
		p = strings.ToLower(p)
		switch {
		case strings.HasPrefix(p, "+"):
			t.suffixes = append(t.suffixes, p)
		case strings.HasSuffix(p, "/*"):
			t.prefixes = append(t.prefixes, p[:len(p)-1])
		default:
			t.exact = append(t.exact, p)
		}
	}
	return t
}

// CheckType says what is wrong with a pattern: it is a type such as
// "application/json", all below one as in "text/*", or a structured suffix
// such as "+json".
func CheckType(pattern string) error {
	name := pattern
	if rest, ok := strings.CutPrefix(name, "+"); ok {
		name = "a/" + rest
	} else if rest, ok := strings.CutSuffix(name, "/*"); ok {
		name = rest + "/a"
	}
	kind, sub, found := strings.Cut(name, "/")
	if !found || !typeName(kind) || !typeName(sub) || len(pattern) > longestType {
		return fmt.Errorf(`unexpected media type %q; want one such as "application/json", "text/*" or "+json"`, pattern)
	}
	return nil
}

func typeName(s string) bool {
	for i := range len(s) {
		c := ascii.Lower[s[i]]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && (i == 0 || !strings.Contains("!#$&-^_.+", string(c))) {
			return false
		}
	}
	return s != ""
}

// Match reports whether the type of a Content-Type field is in the set; its
// parameters don't count. Allocates nothing.
func (t *Types) Match(contentType []byte) bool {
	name, _ := cut(contentType, ';')
	name = ascii.TrimSpace(name)
	if len(name) > longestType {
		return false
	}
	var lower [longestType]byte
	for i, c := range name {
		lower[i] = ascii.Lower[c]
	}
	name = lower[:len(name)]
	for _, s := range t.exact {
		if string(name) == s {
			return true
		}
	}
	for _, s := range t.prefixes {
		if len(name) > len(s) && string(name[:len(s)]) == s {
			return true
		}
	}
	for _, s := range t.suffixes {
		if len(name) > len(s) && string(name[len(name)-len(s):]) == s {
			return true
		}
	}
	return false
}
