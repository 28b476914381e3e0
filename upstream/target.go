package upstream

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// target is a server's address as configured. It is comparable; equal targets
// are the same server.
type target struct {
	secure  bool       // TLS
	path    string     // of a Unix socket; the rest is empty then
	name    string     // host name, in lower case; "" with addr
	service bool       // the name has SRV records, which know the ports
	addr    netip.Addr // literal address
	port    uint16
}

// maxSocketPath is what sockaddr_un holds, its final NUL excluded.
const maxSocketPath = 107

// parseTarget reads "host:port", "http://host:port", "https://host:port",
// "unix:/path" or "srv:_service._tcp.domain".
func parseTarget(s string) (t target, err error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		switch {
		case !strings.HasPrefix(path, "/") || strings.ContainsRune(path, 0):
			return t, fmt.Errorf(`unexpected path in %q; want an absolute path such as "unix:/run/app.sock"`, s)
		case len(path) > maxSocketPath:
			return t, fmt.Errorf("path of %d bytes in %q is too long for a Unix socket; want at most %d", len(path), s, maxSocketPath)
		}
		return target{path: path}, nil
	}
	if name, ok := strings.CutPrefix(s, "srv:"); ok {
		name = strings.ToLower(name)
		labels := strings.SplitN(name, ".", 3)
		if len(labels) < 3 || len(labels[0]) < 2 || labels[0][0] != '_' || labels[1] != "_tcp" || !validName(name) || labels[2] == "" {
			return t, fmt.Errorf(`unexpected service in %q; want "srv:_http._tcp.example.com", without a port`, s)
		}
		return target{name: name, service: true, secure: labels[0] == "_https"}, nil
	}
	rest := s
	if scheme, after, ok := strings.Cut(s, "://"); ok {
		switch strings.ToLower(scheme) {
		case "http":
		case "https":
			t.secure = true
		default:
			return t, fmt.Errorf(`unknown scheme %q in %q; want "host:port", "https://host:port" or "unix:/path"`, scheme, s)
		}
		rest = after
	}
	if strings.Contains(rest, "@") {
		return t, fmt.Errorf(`unexpected user in address; want "host:port"`) // may be a password: not repeated
	}
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		return t, fmt.Errorf(`unexpected path %q in %q; want "host:port" alone, paths are the business of routes`, rest[i:], s)
	}
	host, port, err := net.SplitHostPort(rest)
	if err != nil {
		return t, splitProblem(s, rest, err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || port[0] == '+' {
		return t, fmt.Errorf("unexpected port %q in %q; want 1 to 65535", port, s)
	}
	t.port = uint16(n)
	if strings.HasPrefix(rest, "[") || strings.Trim(host, "0123456789.") == "" {
		a, err := netip.ParseAddr(host)
		if err != nil || strings.HasPrefix(rest, "[") != a.Is6() {
			return t, fmt.Errorf("unexpected address %q in %q; want an IP address or a host name", host, s)
		}
		t.addr = a.Unmap()
		return t, nil
	}
	if !validName(host) {
		return t, fmt.Errorf("unexpected host %q in %q; want an IP address or a host name", host, s)
	}
	t.name = strings.ToLower(host)
	return t, nil
}

// splitProblem says in words what net.SplitHostPort did not like.
func splitProblem(s, rest string, err error) error {
	_, ipErr := netip.ParseAddr(strings.Trim(rest, "[]"))
	var problem *net.AddrError
	switch {
	case rest == "":
		return fmt.Errorf(`unexpected address %q; want "host:port"`, s)
	case ipErr == nil, errors.As(err, &problem) && problem.Err == "missing port in address":
		return fmt.Errorf(`missing port in %q; want "host:port", and brackets around an IPv6 address`, s)
	}
	return fmt.Errorf(`unexpected address %q; want "host:port", and brackets around an IPv6 address`, s)
}

// validName reports whether host can be looked up: labels of letters, digits,
// hyphens and underscores (which internal names have), 253 bytes at most.
func validName(host string) bool {
	if len(host) > 253 {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(host, "."), ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for i := range len(label) {
			c := label[i]
			if c|0x20 < 'a' || c|0x20 > 'z' {
				if (c < '0' || c > '9') && c != '-' && c != '_' {
					return false
				}
			}
		}
	}
	return true
}

// host is the host of the address for certificates: without brackets, zone
// and final dot.
func (t target) host() string {
	if t.service {
		return strings.TrimSuffix(strings.SplitN(t.name, ".", 3)[2], ".")
	}
	if t.name != "" {
		return strings.TrimSuffix(t.name, ".")
	}
	if t.addr.IsValid() {
		return t.addr.WithZone("").String()
	}
	return "localhost"
}

// authority is the Host field for a request to the target itself.
func (t target) authority() string {
	switch {
	case t.path != "":
		return "localhost"
	case t.service:
		return t.host()
	case t.name != "":
		return t.name + ":" + strconv.Itoa(int(t.port))
	}
	return netip.AddrPortFrom(t.addr.WithZone(""), t.port).String()
}
