package upstream

import (
	"net"
	"net/netip"
	"strings"
	"testing"
)

func TestParseTarget(t *testing.T) {
	ip := netip.MustParseAddr
	f := func(in string, want target, authority string) {
		t.Helper()
		got, err := parseTarget(in)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", in, got, err, want)
		} else if got.authority() != authority {
			t.Errorf("%q: authority %q, want %q", in, got.authority(), authority)
		}
	}
	f("10.0.0.1:8080", target{addr: ip("10.0.0.1"), port: 8080}, "10.0.0.1:8080")
	f("http://10.0.0.1:8080", target{addr: ip("10.0.0.1"), port: 8080}, "10.0.0.1:8080")
	f("https://10.0.0.1:8443", target{addr: ip("10.0.0.1"), port: 8443, secure: true}, "10.0.0.1:8443")
	f("[::1]:80", target{addr: ip("::1"), port: 80}, "[::1]:80")
	f("[::ffff:10.0.0.1]:80", target{addr: ip("10.0.0.1"), port: 80}, "10.0.0.1:80")
	f("[fe80::1%eth0]:80", target{addr: ip("fe80::1%eth0"), port: 80}, "[fe80::1]:80")
	f("Users.internal:65535", target{name: "users.internal", port: 65535}, "users.internal:65535")
	f("app_1:80", target{name: "app_1", port: 80}, "app_1:80")
	f("HTTPS://a.example.:443", target{name: "a.example.", port: 443, secure: true}, "a.example.:443")
	f("srv:_http._tcp.app.Internal", target{name: "_http._tcp.app.internal", service: true}, "app.internal")
	f("srv:_https._tcp.app.", target{name: "_https._tcp.app.", service: true, secure: true}, "app")
	f("unix:/run/app.sock", target{path: "/run/app.sock"}, "localhost")
}

func TestParseTargetSaysWhatIsWrong(t *testing.T) {
	f := func(in, want string) {
		t.Helper()
		if got, err := parseTarget(in); err == nil {
			t.Errorf("%q: %+v, want an error", in, got)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q in it", in, err, want)
		}
	}
	f("srv:app.internal", "unexpected service")
	f("srv:_http._udp.app", "unexpected service")
	f("srv:_http._tcp.app:80", "unexpected service")
	f("srv:_http._tcp.", "unexpected service")
	f("", `unexpected address ""`)
	f("10.0.0.1", "missing port")
	f("app", "missing port")
	f("https://app", "missing port")
	f("::1", "brackets around an IPv6 address")
	f("::1:8080", "brackets around an IPv6 address")
	f("[::1]", "missing port")
	f("[10.0.0.1]:80", "unexpected address")
	f("[app]:80", "unexpected address")
	f("a:b:80", "unexpected address")
	f("app:", "unexpected port")
	f("app:0", "unexpected port")
	f("app:65536", "unexpected port")
	f("app:+80", "unexpected port")
	f("app:http", "unexpected port")
	f("256.0.0.1:80", "unexpected address")
	f("1.2.3:80", "unexpected address")
	f(":80", "unexpected address")
	f("a..b:80", "unexpected host")
	f("a b:80", "unexpected host")
	f("bücher:80", "unexpected host")
	f(strings.Repeat("a", 64)+":80", "unexpected host")
	f("app:80/", `unexpected path "/"`)
	f("http://app:80/api?x", `unexpected path "/api?x"`)
	f("ftp://app:21", `unknown scheme "ftp"`)
	f("tcp://app:21", `unknown scheme "tcp"`)
	f("unix:run/app.sock", "absolute path")
	f("unix:", "absolute path")
	f("unix:/"+strings.Repeat("x", 107), "too long")

	_, err := parseTarget("http://user:secret@app:80")
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("user in address: %v; want an error without the password", err)
	}
}

// FuzzParseTarget checks that what is accepted can be dialled and named.
func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{"10.0.0.1:80", "[::1]:80", "https://a.example:443", "unix:/x", "a:1", "::1:80", "http://[fe80::1%25x]:1", "a@b:1", "0x7f.1:80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseTarget(s)
		if err != nil || got.path != "" {
			return
		}
		host, port, err := net.SplitHostPort(got.authority())
		if err != nil || port == "0" || host == "" || !visible(got.authority()) {
			t.Errorf("%q: authority %q, %v", s, got.authority(), err)
		}
		if again, err := parseTarget(got.authority()); err != nil || got.addr.Zone() == "" && (again.addr != got.addr || again.name != got.name || again.port != got.port) {
			t.Errorf("%q: %+v reads back as %+v, %v", s, got, again, err)
		}
	})
}
