package cache

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"gateway/internal/ascii"
	"gateway/wire"
)

// maxTags bounds the tags of a response (RFC 9875 asks for 128 groups).
const maxTags = 512

// TagHash is the hash of a tag of Surrogate-Key or Cache-Tag.
func TagHash(tag []byte) uint64 { return hashOf([]byte{'t'}, tag) }

// groupHash is the hash of a cache group of the origin that the key belongs to.
func groupHash(scheme byte, host, group []byte) uint64 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.Write([]byte{'g', scheme, byte(len(host)), byte(len(host) >> 8)})
	_, _ = d.Write(host)
	escaped := false
	for i, c := range group {
		if escaped = c == '\\' && !escaped; escaped {
			continue
		}
		_, _ = d.Write(group[i : i+1])
	}
	return d.Sum64()
}

// appendTags appends the hashes of a response's tags and counts them, at most
// one more than maxTags.
func appendTags(dst []byte, h *wire.Header, key []byte) (out []byte, n int) {
	k, _ := splitKey(key)
	add := func(hash uint64) {
		if n <= maxTags {
			dst = binary.LittleEndian.AppendUint64(dst, hash)
			n++
		}
	}
	for i := range h.Len() {
		name, value, id, live := h.Field(i)
		switch {
		case !live:
		case id == wire.SurrogateKey:
			eachTag(value, func(c byte) bool { return ascii.IsSpace(c) }, add)
		case id == wire.Unknown && ascii.EqualFold(name, "Cache-Tag"):
			eachTag(value, func(c byte) bool { return c == ',' || ascii.IsSpace(c) }, add)
		}
	}
	eachGroup(h, "Cache-Groups", func(group []byte) { add(groupHash(k.scheme, k.host, group)) })
	return dst, n
}

func eachTag(s []byte, separates func(byte) bool, add func(uint64)) {
	for at := 0; at < len(s); at++ {
		begin := at
		for at < len(s) && !separates(s[at]) {
			at++
		}
		if at > begin {
			add(TagHash(s[begin:at]))
		}
	}
}

// eachGroup calls f with the strings in a list of structured fields; members of
// other types are left out, a field that breaks the syntax altogether (RFC 9875
// sections 2 and 3).
func eachGroup(h *wire.Header, field string, f func(group []byte)) {
	for pass := range 2 {
		for i := range h.Len() {
			name, value, _, live := h.Field(i)
			if !live || !ascii.EqualFold(name, field) {
				continue
			}
			d := dictionary{rest: value}
			for v, ok := d.nextItem(); ok; v, ok = d.nextItem() {
				if pass == 1 && v.kind == kindString {
					f(v.text)
				}
			}
			if d.failed {
				return
			}
		}
	}
}
