package middleware

import (
	"strings"
	"testing"
)

// sent are the fields that the origin gets, by name.
type sent map[string]string

func TestForwardTellsTheOriginWhoAsks(t *testing.T) {
	d := NewIdentity(prefixes(t, "10.0.0.0/8", "fd00::/8"), nil)
	f := func(peer string, secure bool, line string, fields []string, want sent) {
		t.Helper()
		x := ask(t, peer, line, fields...)
		x.Secure = secure
		d.Before(x)
		d.Forward(x)
		for name, value := range want {
			if got := values(&x.Request.Header, name); got != value {
				t.Errorf("%s %q %q:\n%s is %q,\nwant %q", peer, line, fields, name, got, value)
			}
		}
		if got := values(&x.Request.Header, "X-Request-Id"); got != string(x.ID) {
			t.Errorf("X-Request-Id is %q, want %q", got, x.ID)
		}
	}
	spoofed := []string{
		"X-Forwarded-For: 1.1.1.1", "x-forwarded-for: 2.2.2.2", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil",
		"X-Forwarded-Port: 1", "Forwarded: for=1.1.1.1", "X-Request-Id: evil", "Via: 1.1 before",
	}
	f("192.0.2.1", false, "GET app.example:8080 /", spoofed, sent{
		"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "app.example:8080",
		"X-Forwarded-Port": "8080", "Forwarded": `for=192.0.2.1;host="app.example:8080";proto=http`, "Via": "1.1 before|1.1 gateway",
	})
	f("2001:db8::1", true, "GET app.example /", nil, sent{
		"X-Forwarded-For": "2001:db8::1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "app.example",
		"X-Forwarded-Port": "443", "Forwarded": `for="[2001:db8::1]";host=app.example;proto=https`, "Via": "1.1 gateway",
	})
	f("::ffff:192.0.2.1", false, "GET [::1]:81 /", nil, sent{
		"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Host": "[::1]:81", "X-Forwarded-Port": "81",
		"Forwarded": `for=192.0.2.1;host="[::1]:81";proto=http`,
	})
	f("192.0.2.1", false, "GET [::1] /", nil, sent{"X-Forwarded-Host": "[::1]", "X-Forwarded-Port": "80"})
	f("10.0.0.1", false, "GET inner /", []string{
		"X-Forwarded-For: 198.51.100.1", "X-Forwarded-For: 10.0.0.2", "X-Forwarded-Proto: https",
		"X-Forwarded-Host: app.example", "X-Forwarded-Port: 8443", "Forwarded: for=198.51.100.1", "Forwarded: for=10.0.0.2", "X-Request-Id: kept",
	}, sent{
		"X-Forwarded-For": "198.51.100.1, 10.0.0.2, 10.0.0.1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "app.example",
		"X-Forwarded-Port": "8443", "Forwarded": "for=198.51.100.1, for=10.0.0.2, for=10.0.0.1;host=inner;proto=http", "X-Request-Id": "kept",
	})
	f("10.0.0.1", false, "GET app.example /", []string{"X-Forwarded-For: 198.51.100.1", "X-Forwarded-Proto: https"}, sent{
		"X-Forwarded-For": "198.51.100.1, 10.0.0.1", "X-Forwarded-Port": "443", "X-Forwarded-Host": "app.example",
		"Forwarded": "for=198.51.100.1;proto=https, for=10.0.0.1;host=app.example;proto=http",
	})
	f("10.0.0.1", false, "GET app.example /", []string{"X-Forwarded-Host: a:99"}, sent{"X-Forwarded-Host": "a:99", "X-Forwarded-Port": "99"})
	f("10.0.0.1", false, "GET app.example /", []string{"X-Forwarded-Host: a", "X-Forwarded-Host: b"}, sent{"X-Forwarded-Host": "app.example"})
	f("10.0.0.1", false, "GET app.example /", nil, sent{
		"X-Forwarded-For": "10.0.0.1", "Forwarded": "for=10.0.0.1;host=app.example;proto=http",
	})
	f("", false, "GET app.example /", nil, sent{
		"X-Forwarded-For": "", "X-Forwarded-Proto": "http", "Forwarded": "for=unknown;host=app.example;proto=http",
	})
	f("", false, "GET app.example /", []string{"X-Forwarded-For: 2001:db8::1"}, sent{
		"X-Forwarded-For": "2001:db8::1", "Forwarded": `for="[2001:db8::1]";proto=http, for=unknown;host=app.example;proto=http`,
	})
	long := strings.Repeat("198.51.100.1, ", 100) + "198.51.100.1"
	f("10.0.0.1", false, "GET app.example /", []string{"X-Forwarded-For: " + long}, sent{"X-Forwarded-For": long + ", 10.0.0.1"})
}

func TestViaSaysWhichVersionWasReceived(t *testing.T) {
	x := ask(t, "192.0.2.1", "GET a /")
	x.Request.Minor = 0
	d := NewIdentity(nil, nil)
	d.Before(x)
	if d.Forward(x); values(&x.Request.Header, "Via") != "1.0 gateway" {
		t.Errorf("Via: %s", values(&x.Request.Header, "Via"))
	}
}

func TestRequestIDsThatWereKeptAreNotWrittenAnew(t *testing.T) {
	x := ask(t, "", "GET a /", "x-request-ID: abc")
	d := NewIdentity(nil, nil)
	d.Before(x)
	d.Forward(x)
	for i := range x.Request.Len() {
		if name, value, _, ok := x.Request.Field(i); ok && string(value) == "abc" && string(name) != "x-request-ID" {
			t.Errorf("spelling became %q", name)
		}
	}
}
