package ratelimit

import (
	"crypto/sha256"
	"fmt"
	"hash/maphash"
	"strings"
)

// SourceKind is what a key is made of.
type SourceKind uint8

// The kinds of sources.
const (
	ByIP SourceKind = iota
	ByHeader
	ByCookie
	ByPath
	ByRoute
	ByQuery
	ByClaim
	ByNothing // one bucket for all: "global"
)

var kindNames = [...]string{"ip", "header", "cookie", "path", "route", "query", "jwt", "global"}

// named reports whether a source of the kind has a name.
func (k SourceKind) named() bool {
	return k == ByHeader || k == ByCookie || k == ByQuery || k == ByClaim
}

// Source is what in a request says whose bucket it is. Its text is ip, path,
// route, global, header:NAME, cookie:NAME, query:NAME or jwt:CLAIM.
type Source struct {
	Kind SourceKind
	Name string // of the field, cookie, parameter or claim
}

// ParseSource reads a source.
func ParseSource(text string) (Source, error) {
	kind, name, found := strings.Cut(text, ":")
	for k, known := range kindNames {
		s := Source{SourceKind(k), name}
		if kind != known || found != s.Kind.named() || found && !sourceName(s) {
			continue
		}
		return s, nil
	}
	return Source{}, fmt.Errorf(`unexpected key %q; want ip, path, route, global, header:NAME, cookie:NAME, query:NAME or jwt:CLAIM`, text)
}

// sourceName reports whether the name can occur: fields and cookies have
// tokens, the others anything visible.
func sourceName(s Source) bool {
	if s.Name == "" || len(s.Name) > 256 {
		return false
	}
	for _, c := range []byte(s.Name) {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9'
		switch s.Kind {
		case ByHeader, ByCookie:
			if !letter && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
				return false
			}
		default:
			if c <= ' ' || c == 0x7f {
				return false
			}
		}
	}
	return true
}

// UnmarshalText reads a source.
func (s *Source) UnmarshalText(text []byte) (err error) {
	*s, err = ParseSource(string(text))
	return err
}

// String is the text of the source.
func (s Source) String() string {
	if s.Kind.named() {
		return kindNames[s.Kind] + ":" + s.Name
	}
	return kindNames[s.Kind]
}

// MarshalText is String.
func (s Source) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Key is a key as stores know it. It holds nothing of the request's memory.
type Key struct {
	hash uint64
	name [16]byte // in Redis; zero for other stores
}

// hasher makes keys of what sources give. Each source has a seed and a label of
// its own, so that an address and a field that spells it are two keys.
type hasher struct {
	seeds  []maphash.Seed
	labels [][sha256.Size]byte // nil unless keys need names
}

// newHasher serves these sources and, one beyond them, requests for which none
// of them exists.
func newHasher(sources []Source, names bool) *hasher {
	h := &hasher{}
	for i := range len(sources) + 1 {
		h.seeds = append(h.seeds, maphash.MakeSeed())
		if names {
			label := "none"
			if i < len(sources) {
				label = sources[i].String()
			}
			h.labels = append(h.labels, sha256.Sum256([]byte(label)))
		}
	}
	return h
}

// key is the key of a value that the i-th source gave.
func (h *hasher) key(i int, value []byte) (k Key) {
	k.hash = max(maphash.Bytes(h.seeds[i], value), 1)
	if h.labels != nil {
		// A digest and not the value: it may be long, and it may be a secret
		// that Redis need not know.
		var both [2 * sha256.Size]byte
		copy(both[:], h.labels[i][:])
		digest := sha256.Sum256(value)
		copy(both[sha256.Size:], digest[:])
		digest = sha256.Sum256(both[:])
		copy(k.name[:], digest[:])
	}
	return k
}
