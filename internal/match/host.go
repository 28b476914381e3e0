package match

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Host is a pattern for the host that a request names, compared without port
// and without regard to case:
//
//	api.example.com   this name
//	*.example.com     names below it, one or more labels deep, not itself
//	192.0.2.1, [::1]  an address
//	*                 every host, also none
type Host struct {
	name string // lower case, without "*."; "" for every host
	wild bool   // names below
}

// maxHost is the longest name that is looked up (RFC 1035 section 2.3.4);
// longer ones belong to rules for every host.
const maxHost = 253

// ParseHost reads a pattern. The error says what is wrong with it and what is
// wanted instead, without the pattern itself.
func ParseHost(text string) (Host, error) {
	if text == "*" {
		return Host{}, nil
	}
	name := strings.TrimSuffix(strings.ToLower(text), ".")
	h := Host{}
	switch {
	case name == "":
		return h, errors.New(`host is empty; want "example.com", "*.example.com" or "*"`)
	case strings.Contains(name, "://"):
		return h, errors.New("want a host name without a scheme")
	case strings.Contains(name, "/"):
		return h, errors.New("want a host name without a path")
	case name[0] == '[':
		a, err := netip.ParseAddr(strings.TrimSuffix(name[1:], "]"))
		if err != nil || !a.Is6() || a.Zone() != "" || name[len(name)-1] != ']' {
			return h, errors.New("want an IPv6 address in brackets, without port")
		}
		return Host{name: name}, nil
	case strings.Count(name, ":") > 1:
		return h, errors.New("want an IPv6 address in brackets")
	case strings.Contains(name, ":"):
		return h, errors.New("want a host without a port; ports are not compared")
	}
	if below, ok := strings.CutPrefix(name, "*."); ok {
		name, h.wild = below, true
	}
	if len(name) > maxHost {
		return Host{}, fmt.Errorf("host has %d bytes; names have at most %d", len(name), maxHost)
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" {
			return Host{}, errors.New("host has an empty label")
		}
		if len(label) > 63 {
			return Host{}, fmt.Errorf("label %q has more than 63 bytes", label)
		}
		for i := range len(label) {
			switch c := label[i]; {
			case c == '*':
				return Host{}, errors.New(`"*" may only be the whole first label, as in "*.example.com"`)
			case c >= 0x80:
				return Host{}, errors.New(`names outside ASCII are written in their "xn--" form`)
			case !letter(c) && !digit(c) && c != '-' && c != '_':
				return Host{}, fmt.Errorf("host holds %q; want letters, digits, - and _", c)
			}
		}
	}
	h.name = name
	return h, nil
}

// String is the pattern in its normalised form.
func (h Host) String() string {
	switch {
	case h.name == "":
		return "*"
	case h.wild:
		return "*." + h.name
	}
	return h.name
}

// Matches reports whether the pattern covers a host as package wire gives it:
// lower case, without port and trailing dot.
func (h Host) Matches(host string) bool {
	if h.name == "" {
		return true
	}
	if len(host) > maxHost {
		return false
	}
	if !h.wild {
		return host == h.name
	}
	below, ok := strings.CutSuffix(host, h.name)
	return ok && len(below) > 1 && below[len(below)-1] == '.'
}

// covers reports whether h matches every host that g matches.
func (h Host) covers(g Host) bool {
	switch {
	case h.name == "":
		return true
	case g.name == "":
		return false
	case !h.wild:
		return !g.wild && g.name == h.name
	case g.wild && g.name == h.name:
		return true
	}
	return h.Matches(g.name)
}
