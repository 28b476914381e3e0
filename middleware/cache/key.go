package cache

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"

	"gateway/wire"
)

// URL is what a client asks for. The path is normalised, the query is nil when
// there is none.
type URL struct {
	Secure      bool
	Host        []byte
	Path, Query []byte
}

// The key of a response: a class, the scheme, and with their lengths the host,
// the path, the query and the namespace; for QUERY a digest of the body; then,
// for one of several variants, what the request says about the fields that
// they differ by. No two requests that differ in a part have the same key.
//
//	class, scheme | host | path | query or none | namespace | [digest] | [variant]
const (
	classGet   byte = 'G' // also HEAD
	classQuery byte = 'Q'
)

// DigestSize is the length of the digest of a QUERY's body: SHA-256 over the
// content and what says how to read it.
const DigestSize = 32

// appendKey appends the key of a request without its variant. It allocates
// nothing but room in dst.
func (p *Policy) appendKey(dst []byte, u *URL, method wire.Method, digest *[DigestSize]byte) []byte {
	class := classGet
	if method == wire.MethodQuery {
		class = classQuery
	}
	scheme := byte('h')
	if u.Secure {
		scheme = 's'
	}
	dst = append(dst, class, scheme)
	dst = appendPart(dst, u.Host)
	dst = appendPart(dst, u.Path)
	if u.Query == nil || p.query.ignore {
		dst = append(dst, 0)
	} else {
		dst = append(dst, 1)
		at := len(dst)
		dst = append(dst, 0, 0, 0)
		dst = p.query.append(dst, u.Query)
		n := len(dst) - at - 3
		dst[at], dst[at+1], dst[at+2] = byte(n>>16), byte(n>>8), byte(n)
	}
	dst = appendLength(dst, len(p.namespace))
	dst = append(dst, p.namespace...)
	if class == classQuery {
		dst = append(dst, digest[:]...)
	}
	return dst
}

// appendLength appends a length below 2²⁴.
func appendLength(dst []byte, n int) []byte {
	if n >= 1<<24 {
		panic("BUG: part of a key is too long")
	}
	return append(dst, byte(n>>16), byte(n>>8), byte(n))
}

func appendPart(dst, part []byte) []byte {
	return append(appendLength(dst, len(part)), part...)
}

// keyParts are the parts of a key.
type keyParts struct {
	class, scheme     byte
	host, path, query []byte
	namespace         []byte
	rest              []byte // digest and variant
}

// splitKey takes a key apart; false when it is none.
func splitKey(key []byte) (k keyParts, ok bool) {
	if len(key) < 2 {
		return k, false
	}
	k.class, k.scheme = key[0], key[1]
	key = key[2:]
	if k.host, key, ok = cutPart(key); !ok {
		return k, false
	}
	if k.path, key, ok = cutPart(key); !ok || len(key) == 0 {
		return k, false
	}
	has := key[0]
	if key = key[1:]; has == 1 {
		if k.query, key, ok = cutPart(key); !ok {
			return k, false
		}
	} else if has != 0 {
		return k, false
	}
	k.namespace, k.rest, ok = cutPart(key)
	return k, ok
}

func cutPart(s []byte) (part, rest []byte, ok bool) {
	if len(s) < 3 {
		return nil, nil, false
	}
	n := int(s[0])<<16 | int(s[1])<<8 | int(s[2])
	if len(s)-3 < n {
		return nil, nil, false
	}
	return s[3 : 3+n : 3+n], s[3+n:], true
}

// generationSize is the length of what appendGeneration appends.
const generationSize = 9

// appendGeneration marks the beginning of a variant in a key: variants of a
// response that was forgotten are not found again.
func appendGeneration(dst []byte, id uint64) []byte {
	dst = append(dst, 'V')
	return binary.LittleEndian.AppendUint64(dst, id)
}

// queryRule is what of a query is part of the key.
type queryRule struct {
	ignore, sort bool
	only, except []string // a name that ends in "*" is a prefix
}

func newQueryRule(o RouteOptions) queryRule {
	return queryRule{
		ignore: o.Query == "ignore",
		sort:   o.Query == "sort",
		only:   slices.Clone(o.QueryOnly),
		except: slices.Clone(o.QueryExcept),
	}
}

// maxSorted bounds the parameters that are sorted; longer queries keep their
// order.
const maxSorted = 64

// append appends what counts of a query. Parameters of the same name keep their
// order: it may mean something.
func (r *queryRule) append(dst, query []byte) []byte {
	if !r.sort && r.only == nil && r.except == nil {
		return append(dst, query...)
	}
	var list [maxSorted][]byte
	n := 0
	sorted := r.sort && bytes.Count(query, []byte{'&'}) < maxSorted
	begun := false
	for rest, more := query, true; more; {
		var parameter []byte
		parameter, rest, more = bytes.Cut(rest, []byte{'&'})
		if !r.counts(parameterName(parameter)) {
			continue
		}
		if sorted {
			list[n] = parameter
			n++
			continue
		}
		if begun {
			dst = append(dst, '&')
		}
		begun = true
		dst = append(dst, parameter...)
	}
	parameters := list[:n]
	for i := 1; i < n; i++ {
		for k := i; k > 0 && bytes.Compare(parameterName(parameters[k]), parameterName(parameters[k-1])) < 0; k-- {
			parameters[k], parameters[k-1] = parameters[k-1], parameters[k]
		}
	}
	for i, parameter := range parameters {
		if i > 0 {
			dst = append(dst, '&')
		}
		dst = append(dst, parameter...)
	}
	return dst
}

func parameterName(parameter []byte) []byte {
	name, _, _ := bytes.Cut(parameter, []byte{'='})
	return name
}

// counts reports whether a parameter is part of the key.
func (r *queryRule) counts(name []byte) bool {
	return (r.only == nil || listed(r.only, name)) && !listed(r.except, name)
}

func listed(list []string, name []byte) bool {
	for _, s := range list {
		if prefix, found := strings.CutSuffix(s, "*"); found {
			if len(name) >= len(prefix) && string(name[:len(prefix)]) == prefix {
				return true
			}
		} else if s == string(name) {
			return true
		}
	}
	return false
}
