package middleware

import (
	"net/netip"
	"testing"

	"gateway/exchange"
)

func TestAccessDeniesFirstAndThenWantsToBeAllowed(t *testing.T) {
	f := func(allow, deny []string, addr string, want bool) {
		t.Helper()
		a := NewAccess(AccessOptions{Allow: prefixes(t, allow...), Deny: prefixes(t, deny...)})
		x := ask(t, "192.0.2.1", "GET a /")
		if addr != "" {
			x.Addr = netip.MustParseAddr(addr)
		}
		if got := a.Before(x); got != want || !want && x.Reason != exchange.Denied || want && x.Reason != exchange.Done {
			t.Errorf("allow %q, deny %q, %q: %v with reason %v, want %v", allow, deny, addr, got, x.Reason, want)
		}
	}
	ten, one := []string{"10.0.0.0/8"}, []string{"10.0.0.1"}
	f(nil, nil, "10.0.0.1", true)
	f(ten, nil, "10.0.0.1", true)
	f(ten, nil, "11.0.0.1", false)
	f(ten, one, "10.0.0.1", false)
	f(ten, one, "10.0.0.2", true)
	f(nil, one, "10.0.0.1", false)
	f(nil, one, "::1", true)
	f(ten, nil, "", false)
	f(nil, ten, "", true)
}
