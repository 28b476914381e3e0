package wire

import (
	"bytes"
	"net/netip"
	"unsafe"

	"gateway/internal/ascii"
)

// maxHostname bounds a host name (RFC 1035 section 2.3.4 and a trailing dot).
const maxHostname = 254

// authority validates host [":" port] and returns its normal form, a part of
// text unless something had to be changed: lower case, no trailing dot. (With
// the dot a name is the same site; keeping it would let a client step around
// the routes of the name without.) A reg-name of RFC 3986 may have sub-delims
// and escapes too; no name in use has them, and they serve only to confuse the
// next parser: here it has unreserved characters alone.
func (r *Request) authority(text []byte) ([]byte, Fault) {
	end := 0     // of the host
	var all byte // what it has
	if len(text) > 0 && text[0] == '[' {
		end = bytes.IndexByte(text, ']') + 1
		if end < 4 || !isIPv6(text[1:end-1]) {
			return nil, badHost(text)
		}
		for _, c := range text[:end] {
			all |= hostClass[c]
		}
	} else {
		// An empty label has no dot but at its end: behind another dot, or at
		// the beginning.
		last, empty := byte(hostDot), byte(0)
		for end < len(text) && hostClass[text[end]] != 0 {
			class := hostClass[text[end]]
			empty |= class & last & hostDot
			all |= class
			last = class
			end++
		}
		if empty != 0 {
			return nil, badHost(text)
		}
	}
	if end == 0 || end > maxHostname {
		return nil, badHost(text)
	}
	host, port := text[:end:end], text[end:]
	if !isPort(port) {
		return nil, badHost(text)
	}
	if host[end-1] == '.' {
		host = host[:end-1]
	}
	if all&hostUpper == 0 && len(host) == end {
		return text, NoFault
	}
	at := len(r.norm)
	for _, c := range host {
		r.norm = append(r.norm, ascii.Lower[c])
	}
	r.norm = append(r.norm, port...)
	return r.norm[at:len(r.norm):len(r.norm)], NoFault
}

// badHost says what is wrong with an authority.
func badHost(text []byte) Fault {
	if bytes.IndexByte(text, '@') >= 0 {
		return Userinfo
	}
	return BadHost
}

// What a byte of a host name is: hostClass has 0 for those that none contains.
const (
	hostPlain = 1 << iota
	hostDot
	hostUpper
)

var hostClass = func() (class [256]byte) {
	for c := range 256 {
		switch {
		case ascii.Lower[c] != byte(c):
			class[c] = hostUpper
		case c == '.':
			class[c] = hostDot
		case unreserved[c]:
			class[c] = hostPlain
		}
	}
	return class
}()

func isIPv6(text []byte) bool {
	for _, c := range text {
		if unhex(c) == 0xff && c != ':' && c != '.' {
			return false // a zone, which concerns nobody but the client
		}
	}
	a, err := netip.ParseAddr(unsafe.String(unsafe.SliceData(text), len(text)))
	return err == nil && a.Is6()
}

// isPort reports whether s is empty or a colon with a port from 1 to 65535,
// written without leading zeros.
func isPort(s []byte) bool {
	if len(s) == 0 {
		return true
	}
	if s[0] != ':' || len(s) < 2 || len(s) > 6 || s[1] == '0' {
		return false
	}
	n := 0
	for _, c := range s[1:] {
		if c < '0' || c > '9' {
			return false
		}
		n = n*10 + int(c-'0')
	}
	return n <= 65535
}

// Hostname is Host without its port, IPv6 brackets kept.
func (r *Request) Hostname() []byte {
	if len(r.Host) > 0 && r.Host[0] == '[' {
		return r.Host[:bytes.IndexByte(r.Host, ']')+1]
	}
	if i := bytes.IndexByte(r.Host, ':'); i >= 0 {
		return r.Host[:i]
	}
	return r.Host
}
