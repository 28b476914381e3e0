package listener

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// Address is where a socket listens. It is comparable: equal addresses are the
// same socket across reloads.
type Address struct {
	Network string // "tcp" or "unix"
	Name    string // "host:port", or the path of the socket
	Secure  bool   // clients speak TLS
}

// ParseAddress reads an address as the configuration spells it: ":8080",
// "127.0.0.1:80", "https://:8443" or "unix:/run/gateway.sock". An empty host
// means all addresses of the machine, port 0 a free port.
func ParseAddress(s string) (Address, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		// sun_path of the kernel holds 108 bytes with the final NUL.
		if path == "" || len(path) > 107 || strings.HasPrefix(path, "//") {
			return Address{}, fmt.Errorf(`unexpected address %q; want a path of at most 107 bytes, such as "unix:/run/gateway.sock"`, s)
		}
		return Address{Network: "unix", Name: path}, nil
	}
	a := Address{Network: "tcp"}
	rest, secure := strings.CutPrefix(s, "https://")
	if a.Secure = secure; !secure {
		rest = strings.TrimPrefix(rest, "http://")
	}
	host, port, err := net.SplitHostPort(rest)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil || strings.ContainsAny(host, "/ \t") {
		return Address{}, fmt.Errorf(`unexpected address %q; want ":8080", "127.0.0.1:8080", "https://:8443" or "unix:/run/gateway.sock"`, s)
	}
	a.Name = net.JoinHostPort(host, port)
	return a, nil
}

// String is the address as the configuration spells it.
func (a Address) String() string {
	switch {
	case a.Network == "unix":
		return "unix:" + a.Name
	case a.Secure:
		return "https://" + a.Name
	}
	return a.Name
}
