package middleware

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"gateway/internal/unit"
)

func TestAddressesAreFoundInTheirRangesAlone(t *testing.T) {
	set := newAddresses(prefixes(t, "10.0.0.0/8", "10.1.0.0/16", "192.0.2.7", "2001:db8::/32", "::1", "::ffff:198.51.100.0/120"))
	f := func(text string, want bool) {
		t.Helper()
		if got := set.contains(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
	f("10.0.0.0", true)
	f("10.255.255.255", true)
	f("11.0.0.0", false)
	f("9.255.255.255", false)
	f("192.0.2.7", true)
	f("192.0.2.8", false)
	f("198.51.100.9", true)
	f("::1", true)
	f("::2", false)
	f("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", true)
	f("2001:db9::", false)
	f("255.255.255.255", false)
	if set.contains(netip.Addr{}) || newAddresses(nil).contains(netip.MustParseAddr("::1")) {
		t.Error("what is no address, or an empty set, matches")
	}
	if everything := newAddresses(prefixes(t, "0.0.0.0/0", "::/0")); !everything.contains(netip.MustParseAddr("255.255.255.255")) ||
		!everything.contains(netip.MustParseAddr("ffff::")) || everything.contains(netip.Addr{}) {
		t.Error("0.0.0.0/0 and ::/0 are not everything")
	}
}

func TestAddressesAgreeWithTheirPrefixes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	random := func() netip.Addr {
		if r.IntN(2) == 0 {
			return netip.AddrFrom4([4]byte{byte(r.IntN(2)), byte(r.IntN(4)), byte(r.Uint32()), byte(r.Uint32())})
		}
		return netip.AddrFrom16([16]byte{0x20, byte(r.IntN(2)), byte(r.IntN(4)), byte(r.Uint32())})
	}
	for range 200 {
		var list []unit.Prefix
		for range r.IntN(20) {
			a := random()
			list = append(list, unit.Prefix{Prefix: netip.PrefixFrom(a, r.IntN(a.BitLen()+1)/2*2).Masked()})
		}
		set := newAddresses(list)
		for range 200 {
			a, want := random(), false
			for _, p := range list {
				want = want || p.Contains(a)
			}
			if got := set.contains(a); got != want {
				t.Fatalf("%v in %v: %v, want %v", a, list, got, want)
			}
		}
	}
}

func TestNodesAreReadInEverySpellingOfProxies(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		got := ""
		if a, ok := parseNode([]byte(text)); ok {
			got = a.String()
		}
		if got != want {
			t.Errorf("%q reads as %q, want %q", text, got, want)
		}
	}
	f("192.0.2.1", "192.0.2.1")
	f("192.0.2.1:8080", "192.0.2.1")
	f("2001:db8::1", "2001:db8::1")
	f("[2001:db8::1]", "2001:db8::1")
	f("[2001:db8::1]:443", "2001:db8::1")
	f(`"[2001:db8::1]:443"`, "2001:db8::1")
	f(`"192.0.2.1"`, "192.0.2.1")
	f("fe80::1%eth0", "fe80::1")
	f("[fe80::1%eth0]:1", "fe80::1")
	f("::ffff:192.0.2.1", "192.0.2.1")
	f("[::FFFF:C000:201]", "192.0.2.1")
	f("::", "::")
	for _, garbage := range []string{
		"", "unknown", "_hidden", "192.0.2", "192.0.2.1.2", "192.0.2.256", "192.0.02.1", "192.0.2.1:", "192.0.2.1:123456",
		"192.0.2.1:8o", "[::1", "[::1]x", "[::1]:", "[192.0.2.1]", "1::2::3", ":::", ":", "1:", ":1:2", "1:2:3:4:5:6:7",
		"1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7::8", "12345::", "::1%", "::g", `"192.0.2.1`, "192.0.2.1 192.0.2.2", "::1.2.3",
		"1:2:3:4:5:6:7:1.2.3.4", "1.2.3.4::",
	} {
		f(garbage, "")
	}
}

func FuzzParseNode(f *testing.F) {
	for _, s := range []string{"192.0.2.1", "::1", "1:2:3:4:5:6:7:8", "::ffff:1.2.3.4", "1::2%z", "[::1]:80", `"1.2.3.4:5"`, "1::", "a:b::1.2.3.4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, ok := parseNode([]byte(text))
		if want, err := netip.ParseAddr(text); err == nil {
			if !ok || got != plain(want) {
				t.Fatalf("%q reads as %v, %v, want %v", text, got, ok, plain(want))
			}
		} else if ok && !strings.ContainsAny(text, `":[%`) {
			t.Fatalf("%q reads as %v although it is no address", text, got)
		}
		if ok && (got.Is4In6() || got.Zone() != "" || !got.IsValid()) {
			t.Fatalf("%q reads as %v, which is not plain", text, got)
		}
	})
}

func BenchmarkAddresses(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		var list []unit.Prefix
		for i := range n {
			list = append(list, prefixes(b, fmt.Sprintf("10.%d.%d.0/25", i>>8, i&255))...)
		}
		set, a := newAddresses(list), netip.MustParseAddr("10.0.9.200")
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				set.contains(a)
			}
		})
	}
}
