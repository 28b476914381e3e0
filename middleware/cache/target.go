package cache

import (
	"slices"

	"github.com/cespare/xxhash/v2"
)

// target is what a purge hits: everything, or what has this hash. Of equal
// hashes of different things one purge hits both: an answer more is fetched.
type target struct {
	kind   byte
	length uint16 // of the path, for prefixes
	hash   uint64
}

// The kinds of targets. A group belongs to its origin (RFC 9875 section 2) and
// has hashes that are no tag's.
const (
	kindAll    = 'a'
	kindTag    = 't' // Surrogate-Key, Cache-Tag, groups
	kindURL    = 'u' // with namespace; whatever the method, the body and the variant
	kindHost   = 'h'
	kindPrefix = 'p' // of the paths of a host
)

func hashOf(parts ...[]byte) uint64 {
	var d xxhash.Digest
	d.Reset()
	for _, part := range parts {
		_, _ = d.Write(part)
	}
	return d.Sum64()
}

// urlPart is a key without class and digest.
func urlPart(primary []byte, k *keyParts) []byte { return primary[1 : len(primary)-len(k.rest)] }

func urlTarget(part []byte) target  { return target{kind: kindURL, hash: xxhash.Sum64(part)} }
func hostTarget(host []byte) target { return target{kind: kindHost, hash: xxhash.Sum64(host)} }
func tagTarget(hash uint64) target  { return target{kind: kindTag, hash: hash} }

// maxPrefix bounds the path of a prefix; longer ones are cut, and hit more.
const maxPrefix = 1 << 12

func prefixTarget(host, path []byte) target {
	path = path[:min(len(path), maxPrefix)]
	var d xxhash.Digest
	d.Reset()
	_, _ = d.Write(host)
	_, _ = d.Write([]byte{0}) // is in no host
	_, _ = d.Write(path)
	return target{kind: kindPrefix, length: uint16(len(path)), hash: d.Sum64()}
}

// record hits entries with a smaller number.
type record struct{ hard, soft uint64 }

func (r *record) add(n uint64, soft bool) {
	if soft {
		r.soft = max(r.soft, n)
	} else {
		r.hard = max(r.hard, n)
	}
}

func (r record) fate(n uint64) fate {
	switch {
	case n < r.hard:
		return remove
	case n < r.soft:
		return soften
	}
	return keep
}

// records are purges by what they hit. Not safe for concurrent use.
type records struct {
	all     map[target]record
	kinds   [256]int // how many of each
	lengths []uint16 // of the prefixes, each once
}

// add records a purge.
func (s *records) add(t target, n uint64, soft bool) {
	if s.all == nil {
		s.all = make(map[target]record)
	}
	r, known := s.all[t]
	r.add(n, soft)
	s.all[t] = r
	if known {
		return
	}
	s.kinds[t.kind]++
	if t.kind == kindPrefix && !slices.Contains(s.lengths, t.length) {
		s.lengths = append(s.lengths, t.length)
	}
}

// fate is the worst that any record means for an entry of which n purges are
// known. It allocates nothing.
func (s *records) fate(e Entry, n uint64) (f fate) {
	if s.kinds[kindAll] > 0 {
		f = s.all[target{kind: kindAll}].fate(n)
	}
	if s.kinds[kindTag] > 0 {
		for i := range e.u32(atTags) {
			f = max(f, s.all[tagTarget(e.tag(i))].fate(n))
		}
	}
	if s.kinds[kindURL]+s.kinds[kindHost]+s.kinds[kindPrefix] == 0 {
		return f
	}
	primary := e.primary()
	k, _ := splitKey(primary)
	if s.kinds[kindURL] > 0 {
		f = max(f, s.all[urlTarget(urlPart(primary, &k))].fate(n))
	}
	if s.kinds[kindHost] > 0 {
		f = max(f, s.all[hostTarget(k.host)].fate(n))
	}
	for _, length := range s.lengths {
		if int(length) <= len(k.path) {
			f = max(f, s.all[prefixTarget(k.host, k.path[:length])].fate(n))
		}
	}
	return f
}

// prune forgets what hits nothing from upTo on.
func (s *records) prune(upTo uint64) {
	s.lengths = s.lengths[:0]
	for t, r := range s.all {
		if r.hard <= upTo {
			r.hard = 0
		}
		if r.soft <= upTo {
			r.soft = 0
		}
		if r == (record{}) {
			delete(s.all, t)
			s.kinds[t.kind]--
			continue
		}
		s.all[t] = r
		if t.kind == kindPrefix && !slices.Contains(s.lengths, t.length) {
			s.lengths = append(s.lengths, t.length)
		}
	}
}
