package match

import (
	"strings"
	"testing"
)

func TestHostPatternsMatchWhatTheyDocument(t *testing.T) {
	f := func(pattern, host string, want bool) {
		t.Helper()
		h, err := ParseHost(pattern)
		if err != nil {
			t.Errorf("ParseHost(%q): %v", pattern, err)
			return
		}
		if got := h.Matches(host); got != want {
			t.Errorf("%q matches %q: %v, want %v", pattern, host, got, want)
		}
	}
	f("example.com", "example.com", true)
	f("Example.COM.", "example.com", true)
	f("example.com", "a.example.com", false)
	f("*.example.com", "a.example.com", true)
	f("*.example.com", "a.b.example.com", true)
	f("*.example.com", "example.com", false)
	f("*.example.com", ".example.com", false)
	f("*.example.com", "badexample.com", false)
	f("*", "", true)
	f("*", "anything", true)
	f("127.0.0.1", "127.0.0.1", true)
	f("[::1]", "[::1]", true)
	f("*.example.com", strings.Repeat("a.", 200)+"example.com", false)
}

func TestHostPatternsThatMeanNothingAreRefused(t *testing.T) {
	f := func(pattern, want string) {
		t.Helper()
		if _, err := ParseHost(pattern); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseHost(%q): %v, want %q", pattern, err, want)
		}
	}
	f("", "empty")
	f(".", "empty")
	f("a.com:8080", "port")
	f("https://a.com", "scheme")
	f("a.com/x", "path")
	f("::1", "brackets")
	f("[::1]:80", "without port")
	f("[1.2.3.4]", "IPv6")
	f("[fe80::1%eth0]", "IPv6")
	f("*.*.com", "first label")
	f("a.*.com", "first label")
	f("*a.com", "first label")
	f("a..com", "empty label")
	f("bücher.de", "xn--")
	f("a b.com", "holds")
	f(strings.Repeat("a", 64)+".com", "63")
	f(strings.Repeat("a.", 150)+"com", "253")
}
