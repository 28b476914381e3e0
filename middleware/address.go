package middleware

import (
	"net/netip"
	"slices"

	"gateway/internal/unit"
)

// addresses is a set of address ranges: sorted, without overlaps, so that a
// look-up is a binary search.
type addresses []span

type span struct{ first, last netip.Addr }

func newAddresses(prefixes []unit.Prefix) addresses {
	spans := make(addresses, 0, len(prefixes))
	for _, p := range prefixes {
		spans = append(spans, span{p.Masked().Addr(), lastOf(p.Prefix)})
	}
	slices.SortFunc(spans, func(a, b span) int { return a.first.Compare(b.first) })
	merged := spans[:0]
	for _, s := range spans {
		// IPv4 sorts before IPv6, so that a span never reaches into the other family.
		if n := len(merged); n > 0 && s.first.Compare(merged[n-1].last) <= 0 {
			if merged[n-1].last.Less(s.last) {
				merged[n-1].last = s.last
			}
			continue
		}
		merged = append(merged, s)
	}
	return slices.Clip(merged)
}

// lastOf is the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().As16()
	from := p.Bits()
	if p.Addr().Is4() {
		from += 96
	}
	for i := from; i < 128; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a := netip.AddrFrom16(b)
	if p.Addr().Is4() {
		return a.Unmap()
	}
	return a
}

// contains reports whether an unmapped address without zone is in the set.
func (s addresses) contains(a netip.Addr) bool {
	low, high := 0, len(s) // s[low-1].first ≤ a < s[high].first
	for low < high {
		if mid := (low + high) / 2; a.Less(s[mid].first) {
			high = mid
		} else {
			low = mid + 1
		}
	}
	return low > 0 && !s[low-1].last.Less(a)
}

// plain is a without what netip adds to an address for sockets: the mapping of
// IPv4 into IPv6, and the zone.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// parseNode reads a node of X-Forwarded-For as proxies write it: an address,
// IPv6 with or without brackets, a zone, a port, quotes around it all. It
// allocates nothing, also for what is no address; netip.ParseAddr would.
func parseNode(b []byte) (netip.Addr, bool) {
	if n := len(b); n >= 2 && b[0] == '"' && b[n-1] == '"' {
		b = b[1 : n-1]
	}
	if len(b) > 0 && b[0] == '[' {
		end := slices.Index(b, ']')
		if end < 0 || !portOrNothing(b[end+1:]) {
			return netip.Addr{}, false
		}
		return parseIPv6(b[1:end])
	}
	colon := slices.Index(b, ':')
	if colon < 0 {
		return parseIPv4(b)
	}
	if slices.Contains(b[colon+1:], ':') {
		return parseIPv6(b)
	}
	if !portOrNothing(b[colon:]) {
		return netip.Addr{}, false
	}
	return parseIPv4(b[:colon])
}

// portOrNothing reports whether b is empty or a colon and a port.
func portOrNothing(b []byte) bool {
	if len(b) == 0 {
		return true
	}
	if b[0] != ':' || len(b) < 2 || len(b) > 6 {
		return false
	}
	for _, c := range b[1:] {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// parseIPv4 reads four decimal numbers without leading zeros.
func parseIPv4(b []byte) (netip.Addr, bool) {
	var a [4]byte
	at, value, length := 0, 0, 0
	for _, c := range b {
		switch {
		case c >= '0' && c <= '9':
			if length > 0 && value == 0 {
				return netip.Addr{}, false // could be read as octal
			}
			value = value*10 + int(c-'0')
			length++
			if value > 255 {
				return netip.Addr{}, false
			}
		case c == '.' && length > 0 && at < 3:
			a[at] = byte(value)
			at++
			value, length = 0, 0
		default:
			return netip.Addr{}, false
		}
	}
	if at != 3 || length == 0 {
		return netip.Addr{}, false
	}
	a[3] = byte(value)
	return netip.AddrFrom4(a), true
}

// parseIPv6 reads the text form of RFC 4291 section 2.2, drops a zone and
// unmaps IPv4.
func parseIPv6(b []byte) (netip.Addr, bool) {
	if zone := slices.Index(b, '%'); zone >= 0 {
		if zone == len(b)-1 {
			return netip.Addr{}, false
		}
		b = b[:zone]
	}
	var a [16]byte
	at, gap := 0, -1 // bytes written; where "::" stands
	if len(b) >= 2 && b[0] == ':' && b[1] == ':' {
		gap, b = 0, b[2:]
	}
	for len(b) > 0 {
		if at == 16 {
			return netip.Addr{}, false
		}
		n, value := 0, 0
		for n < len(b) && n < 5 && isHex(b[n]) {
			value = value<<4 | int(fromHex(b[n]))
			n++
		}
		if n == 0 || n == 5 {
			return netip.Addr{}, false
		}
		if n < len(b) && b[n] == '.' { // the last 32 bits as IPv4
			v4, ok := parseIPv4(b)
			if !ok || at > 12 {
				return netip.Addr{}, false
			}
			quad := v4.As4()
			copy(a[at:], quad[:])
			at += 4
			break
		}
		a[at], a[at+1] = byte(value>>8), byte(value)
		at += 2
		if b = b[n:]; len(b) == 0 {
			break
		}
		if b[0] != ':' || len(b) == 1 {
			return netip.Addr{}, false
		}
		if b = b[1:]; b[0] == ':' {
			if gap >= 0 {
				return netip.Addr{}, false
			}
			gap, b = at, b[1:]
		}
	}
	switch {
	case gap < 0 && at != 16, gap >= 0 && at == 16:
		return netip.Addr{}, false
	case gap >= 0:
		copy(a[16-(at-gap):], a[gap:at])
		clear(a[gap : 16-(at-gap)])
	}
	return netip.AddrFrom16(a).Unmap(), true
}

func isHex(c byte) bool { return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f' }

func fromHex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return (c | 0x20) - 'a' + 10
}
