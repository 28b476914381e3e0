package exchange

import (
	"testing"

	"gateway/wire"
)

func TestCookiesAreFoundByName(t *testing.T) {
	for _, c := range []struct{ fields, want string }{
		{"", ""},
		{"Cookie: a=1\r\n", "1"},
		{"Cookie: b=2; a=1; a=3\r\n", "1"},
		{"Cookie: aa=2;a=\r\nCookie: a=1\r\n", ""},
		{"Cookie: b=2\r\ncookie: xa=3;  a=1\r\n", "1"},
		{"Cookie: a; =a; A=1\r\n", ""},
	} {
		x := Acquire()
		if f := x.Request.Header.ParseFields([]byte(c.fields), 10); f != wire.NoFault {
			t.Fatal(f)
		}
		if got := string(x.Cookie("a")); got != c.want {
			t.Errorf("%q: %q, want %q", c.fields, got, c.want)
		}
		Release(x)
	}
}

func TestParametersAreDecoded(t *testing.T) {
	x := Acquire()
	defer Release(x)
	for query, want := range map[string]string{
		"": "", "a=1": "1", "b=2&a=1&a=3": "1", "%61=x%2By+z": "x+y z", "a": "", "aa=1&a=%4": "%4", "a=%zz%7e": "%zz~", "&&a==": "=",
	} {
		x.Query = []byte(query)
		if got := string(x.Parameter([]byte("."), "a")); got != "."+want {
			t.Errorf("%q: %q, want %q", query, got, "."+want)
		}
	}
}
