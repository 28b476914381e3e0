package unit

import (
	"fmt"
	"net/netip"
	"strings"
)

// Prefix is a range of addresses. Its text is CIDR notation or one address.
// Addresses and prefixes of IPv4 written as IPv6 (::ffff:10.0.0.0/104) become
// IPv4, so that Contains wants unmapped addresses.
type Prefix struct{ netip.Prefix }

// ParsePrefix reads a prefix. Bits beyond its length must be zero: 10.0.0.1/8
// is a whole network where one address may have been meant.
func ParsePrefix(s string) (Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return Prefix{}, fmt.Errorf(`unexpected address %q; want an address or a range, such as "10.0.0.0/8" or "::1"`, s)
		}
		a = a.Unmap()
		return Prefix{netip.PrefixFrom(a, a.BitLen())}, nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return Prefix{}, fmt.Errorf(`unexpected range %q; want an address or a range, such as "10.0.0.0/8" or "::1"`, s)
	}
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	if p != p.Masked() {
		return Prefix{}, fmt.Errorf("range %q has address bits beyond its length; want %q for the range or %q for the address",
			s, p.Masked(), p.Addr())
	}
	return Prefix{p}, nil
}

// UnmarshalText reads a prefix.
func (p *Prefix) UnmarshalText(text []byte) (err error) {
	*p, err = ParsePrefix(string(text))
	return err
}

// String is the address when the prefix holds only one, else CIDR notation; ""
// for the zero value.
func (p Prefix) String() string {
	switch {
	case !p.IsValid():
		return ""
	case p.IsSingleIP():
		return p.Addr().String()
	}
	return p.Prefix.String()
}

// MarshalText is String.
func (p Prefix) MarshalText() ([]byte, error) { return []byte(p.String()), nil }
