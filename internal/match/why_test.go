package match

import (
	"strings"
	"testing"
)

func TestWhyIsTheFirstConditionThatFails(t *testing.T) {
	full := rule(t, "a.b,*.a.b /x,/y/* GET,PUT")
	full.Scheme = "https"
	header, _ := ParseHeader("X-Beta", "secret")
	query, _ := ParseQuery("q", "hidden")
	full.Headers, full.Query = []Condition{header}, []Condition{query}
	f := func(line, scheme, option, name, text string, fields ...string) {
		t.Helper()
		m, missed := full.Why(request(t, line, fields...), scheme)
		if missed != (option != "") || m.Option != option || m.Name != name || !strings.Contains(m.Text, text) {
			t.Errorf("%s over %s: %v %+v; want %s %s %q", line, scheme, missed, m, option, name, text)
		}
		if strings.Contains(m.Text, "secret") || strings.Contains(m.Text, "hidden") {
			t.Errorf("%s: %q shows a value", line, m.Text)
		}
	}
	f("POST c /z", "http", "host", "", `the host is "c"; want a.b, *.a.b`)
	f("POST a.b /z", "http", "path", "", `the path is "/z"; want /x, /y/*`)
	f("POST a.b /x", "http", "scheme", "", "the scheme is http; want https")
	f("POST a.b /x", "https", "methods", "", "the method is POST; want GET, PUT")
	f("GET a.b /x", "https", "headers", "x-beta", "no such field")
	f("GET a.b /x", "https", "headers", "x-beta", "another value", "X-Beta: 1")
	f("GET a.b /x", "https", "query", "q", "no such parameter", "X-Beta: secret")
	f("GET a.b /x?q=1", "https", "query", "q", "another value", "X-Beta: secret")
	f("GET c.a.b /y/z?q=hidden", "https", "", "", "", "X-Beta: secret")
}
