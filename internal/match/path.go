package match

import (
	"errors"
	"fmt"
	"strings"
)

// Path is a pattern for normalised request paths:
//
//	/exact              this path and no other; a trailing slash counts
//	/prefix/*           /prefix itself, /prefix/ and everything below
//	/users/{id}/posts   {id} stands for one segment that is not empty
//	/users/{id}/*       both together
//	/* or *             every path, also the "*" of OPTIONS *
//
// Literal parts are normalised as request paths are: escapes of unreserved
// characters are decoded, other escapes are written in upper case, bytes that
// no URI may contain are escaped. They are compared with regard to case.
type Path struct {
	segments []segment
	rest     bool   // ends in "/*"
	literal  string // the whole path when there is neither {name} nor "*"
	text     string // normalised pattern
}

// segment is what stands between two slashes.
type segment struct {
	literal string
	name    string // of {name}; "" for a literal
}

func (s segment) matches(part string) bool {
	if s.name != "" {
		return part != ""
	}
	return s.literal == part
}

// maxSegments bounds a pattern and with it the depth of the index.
const maxSegments = 64

// ParsePath reads a pattern. The error says what is wrong with it and what is
// wanted instead, without the pattern itself.
func ParsePath(text string) (Path, error) {
	if text == "*" {
		text = "/*"
	}
	if text == "" {
		return Path{}, errors.New(`path is empty; want "/", "/exact", "/prefix/*" or "/users/{id}"`)
	}
	if text[0] != '/' {
		return Path{}, errors.New(`path must start with "/"`)
	}
	if strings.HasPrefix(text, "//") {
		return Path{}, errors.New("path begins with two slashes; the gateway refuses such requests")
	}
	p := Path{}
	parts := strings.Split(text[1:], "/")
	if len(parts) > maxSegments {
		return Path{}, fmt.Errorf("path has %d segments; at most %d are possible", len(parts), maxSegments)
	}
	if parts[len(parts)-1] == "*" {
		p.rest = true
		parts = parts[:len(parts)-1]
	}
	named := map[string]bool{}
	exact := !p.rest
	var b strings.Builder
	for _, part := range parts {
		b.WriteByte('/')
		if strings.ContainsAny(part, "{}") {
			name, err := parseName(part)
			if err != nil {
				return Path{}, err
			}
			if named[name] {
				return Path{}, fmt.Errorf("name {%s} is used twice", name)
			}
			named[name] = true
			exact = false
			p.segments = append(p.segments, segment{name: name})
			b.WriteString(part)
			continue
		}
		literal, err := normalize(part)
		if err != nil {
			return Path{}, err
		}
		p.segments = append(p.segments, segment{literal: literal})
		b.WriteString(literal)
	}
	if p.rest {
		b.WriteString("/*")
	}
	p.text = b.String()
	if exact {
		p.literal = p.text
	}
	return p, nil
}

// ParsePrefix reads a plain path to be taken from, or put before, request
// paths: normalised like a pattern's literal parts, without wildcards; a
// trailing slash is dropped. The root gives "".
func ParsePrefix(text string) (string, error) {
	p, err := ParsePath(text)
	if err != nil {
		return "", err
	}
	if p.literal == "" {
		return "", errors.New("want a plain path without * and {…}")
	}
	prefix := strings.TrimSuffix(p.literal, "/")
	if strings.Contains(prefix, "//") || strings.HasSuffix(prefix, "/") {
		return "", errors.New("want one slash between segments")
	}
	return prefix, nil
}

// parseName reads a whole segment of the form {name}.
func parseName(part string) (string, error) {
	if part[0] != '{' || part[len(part)-1] != '}' || strings.ContainsAny(part[1:len(part)-1], "{}") {
		return "", fmt.Errorf("{…} must fill a whole segment, found %q; a literal brace is written %%7B or %%7D", part)
	}
	name := part[1 : len(part)-1]
	for i := range len(name) {
		c := name[i]
		if !letter(c) && c != '_' && (i == 0 || !digit(c)) {
			return "", fmt.Errorf("{%s} is no name; want letters, digits and _", name)
		}
	}
	if name == "" {
		return "", errors.New("{} needs a name, such as {id}")
	}
	return name, nil
}

// normalize gives a literal segment the form that it has in a normalised
// request path (RFC 3986 section 6.2.2).
func normalize(part string) (string, error) {
	const upper = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(part); i++ {
		switch c := part[i]; {
		case c == '%':
			if i+2 >= len(part) || !hex(part[i+1]) || !hex(part[i+2]) {
				return "", fmt.Errorf("%q holds a %% that two hexadecimal digits do not follow; a literal one is written %%25", part)
			}
			if d := unhex(part[i+1])<<4 | unhex(part[i+2]); unreserved(d) {
				b.WriteByte(d)
			} else if d == 0 {
				return "", errors.New("%00 is never part of a path")
			} else {
				b.WriteByte('%')
				b.WriteByte(upper[d>>4])
				b.WriteByte(upper[d&15])
			}
			i += 2
		case c == '*':
			return "", errors.New(`"*" may only be the whole last segment, as in "/prefix/*"; one segment in the middle is written {name}`)
		case c == '?':
			return "", errors.New(`a path has no query; conditions on the query are given by query = { name = "value" }`)
		case c == '#':
			return "", errors.New("a path has no fragment")
		case c < ' ' || c == 0x7f:
			return "", errors.New("control characters are never part of a path")
		case pathByte(c):
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(upper[c>>4])
			b.WriteByte(upper[c&15])
		}
	}
	s := b.String()
	if s == "." || s == ".." {
		return "", fmt.Errorf("segment %q can never match: dot segments are removed from request paths", s)
	}
	return s, nil
}

// String is the pattern in its normalised form.
func (p Path) String() string { return p.text }

// Matches reports whether the pattern covers a normalised path.
func (p Path) Matches(path string) bool {
	if len(path) == 0 || path[0] != '/' {
		return p.rest && len(p.segments) == 0
	}
	more := true // a slash stood before path[1:]: another segment follows
	path = path[1:]
	for _, s := range p.segments {
		if !more {
			return false
		}
		var part string
		part, path, more = strings.Cut(path, "/")
		if !s.matches(part) {
			return false
		}
	}
	return p.rest || !more
}

// covers reports whether p matches every path that q matches. It may report
// false where a longer look would find that it does.
func (p Path) covers(q Path) bool {
	if p.rest {
		if len(q.segments) < len(p.segments) {
			return false
		}
	} else if q.rest || len(q.segments) != len(p.segments) {
		return false
	}
	for i, s := range p.segments {
		t := q.segments[i]
		if s.name == "" && (t.name != "" || s.literal != t.literal) {
			return false
		}
		if s.name != "" && t.name == "" && t.literal == "" {
			return false
		}
	}
	return true
}

func letter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
func digit(c byte) bool  { return c >= '0' && c <= '9' }
func hex(c byte) bool    { return digit(c) || c|0x20 >= 'a' && c|0x20 <= 'f' }

func unhex(c byte) byte {
	if digit(c) {
		return c - '0'
	}
	return (c | 0x20) - 'a' + 10
}

// unreserved: RFC 3986 section 2.3.
func unreserved(c byte) bool {
	return letter(c) || digit(c) || c == '-' || c == '.' || c == '_' || c == '~'
}

// pathByte reports whether c stands in a path as it is. RFC 3986 section 3.3
// has fewer such bytes, but requests keep these, and so do patterns.
func pathByte(c byte) bool {
	return c > ' ' && c < 0x7f && strings.IndexByte("\"<>\\^`{|}", c) < 0
}
