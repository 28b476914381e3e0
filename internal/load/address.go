package load

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// FreeAddress is an address of loopback on which nobody listens, for servers
// that must be told where to listen. Its port is below those that kernels give
// to clients: there, a client that dials again and again while nobody listens
// would one day connect to itself.
func FreeAddress(tb testing.TB) string {
	tb.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10000+rand.N(20000)))
		if err == nil {
			l.Close()
			return l.Addr().String()
		}
	}
	tb.Fatal("no free port")
	return ""
}
