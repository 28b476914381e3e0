package config

import (
	"strings"
	"testing"

	"gateway/listener"
)

func TestRedirectsLeadWhereTheConfigurationSays(t *testing.T) {
	f := func(to, want string) {
		t.Helper()
		got := ""
		(&Redirect{To: to, Status: 308}).Check(func(_, problem string) { got += problem })
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q; want %q", to, got, want)
		}
	}
	f("https://{host}{path}{query}", "")
	f("http://example.com", "")
	f("https://example.com{path}", "")
	f("https://example.com{query}", "")
	f("/new{path}{query}", "")
	f("/", "")
	f("/login?next=https://example.com", "")
	f("", "missing")
	f("example.com", "want a URL")
	f("ftp://example.com", "want a URL")
	f("https://http://example.com", "want a URL")
	f("{path}", "want a URL")
	f("//example.com", "would lead to the host")
	f(`/\\example.com`, "would lead to the host")
	f("/{path}", "would lead to the host")
	f("https://", "no host")
	f("https:///x", "no host")
	f("https://{path}", "no host")
	f("https://{query}", "no host")
	f("/{id}", "unknown placeholder {id}")
	f("/{host", "unknown placeholder {host}")
	f("/a b", "unexpected")
	f("/a\r\nSet-Cookie: x", "unexpected")
	f("/ä", "unexpected")
}

func TestAddressesThatCannotBeListenedOnTogether(t *testing.T) {
	f := func(a, b string, want bool) {
		t.Helper()
		x, err := listener.ParseAddress(a)
		if err != nil {
			t.Fatal(err)
		}
		y, err := listener.ParseAddress(b)
		if err != nil {
			t.Fatal(err)
		}
		if overlap(x, y) != want || overlap(y, x) != want {
			t.Errorf("%s and %s: %v; want %v", a, b, !want, want)
		}
	}
	f(":80", ":80", true)
	f(":80", ":81", false)
	f(":80", "127.0.0.1:80", true)
	f(":80", "[::1]:80", true)
	f(":80", "https://:80", true)
	f("[::]:80", "0.0.0.0:80", true)
	f("[::]:80", "127.0.0.1:80", true)
	f("0.0.0.0:80", "127.0.0.1:80", true)
	f("0.0.0.0:80", "localhost:80", true)
	f("0.0.0.0:80", "[::1]:80", false)
	f("127.0.0.1:80", "[::1]:80", false)
	f("127.0.0.1:80", "127.0.0.2:80", false)
	f("127.0.0.1:0", "127.0.0.1:0", false)
	f("unix:/a", "unix:/a", true)
	f("unix:/a", "unix:/b", false)
	f("unix:/a", ":80", false)
}

func TestLoopbackAddresses(t *testing.T) {
	for text, want := range map[string]bool{
		"127.0.0.1:1": true, "127.1.2.3:1": true, "[::1]:1": true, "localhost:1": true, "unix:/run/admin.sock": true,
		":1": false, "0.0.0.0:1": false, "[::]:1": false, "10.0.0.1:1": false, "example.com:1": false,
	} {
		a, err := listener.ParseAddress(text)
		if err != nil {
			t.Fatal(err)
		}
		if loopback(a) != want {
			t.Errorf("%s: %v; want %v", text, !want, want)
		}
	}
}

func TestRoutesAreDescribedWithoutValues(t *testing.T) {
	r := Route{Methods: []string{"GET", "HEAD"}, Host: []string{"*.example.com"}, Path: []string{"/users", "/users/*"}, Headers: map[string]string{"X-Key": "secret"}}
	if got := r.Describe(); got != "GET,HEAD *.example.com /users,/users/* field X-Key" {
		t.Errorf("%q", got)
	}
	if got := (&Route{}).Describe(); got != "every request" {
		t.Errorf("%q", got)
	}
}
