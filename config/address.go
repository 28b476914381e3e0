package config

import (
	"net"
	"net/netip"

	"gateway/listener"
)

// OptionalAddress is where a socket listens, or "off": the zero value.
type OptionalAddress struct{ listener.Address }

// On reports whether there is an address.
func (a OptionalAddress) On() bool { return a.Address != listener.Address{} }

// UnmarshalText reads "off" or what listener.ParseAddress reads.
func (a *OptionalAddress) UnmarshalText(text []byte) (err error) {
	a.Address = listener.Address{}
	if string(text) != "off" {
		a.Address, err = listener.ParseAddress(string(text))
	}
	return err
}

// String is the address as the configuration spells it.
func (a OptionalAddress) String() string {
	if !a.On() {
		return "off"
	}
	return a.Address.String()
}

// loopback reports whether only this machine can connect.
func loopback(a listener.Address) bool {
	if a.Network == "unix" {
		return true
	}
	host, _, _ := net.SplitHostPort(a.Name)
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// overlap reports whether two addresses cannot be listened on together.
func overlap(a, b listener.Address) bool {
	if a.Network != b.Network {
		return false
	}
	if a.Network == "unix" {
		return a.Name == b.Name
	}
	hostA, portA, _ := net.SplitHostPort(a.Name)
	hostB, portB, _ := net.SplitHostPort(b.Name)
	if portA != portB || portA == "0" {
		return false
	}
	return hostA == hostB || includes(hostA, hostB) || includes(hostB, hostA)
}

// includes reports whether listening on all addresses that host stands for
// takes in the other host. The empty host and "::" stand for IPv4 too.
func includes(host, other string) bool {
	if host == "" || host == "::" {
		return true
	}
	ip, err := netip.ParseAddr(other)
	return host == "0.0.0.0" && (err != nil || ip.Unmap().Is4() || ip.IsUnspecified())
}
