package match

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"gateway/internal/mallocs"
	"gateway/wire"
)

func parse[T any](t testing.TB, read func(string) (T, error), texts ...string) (list []T) {
	t.Helper()
	for _, text := range texts {
		v, err := read(text)
		if err != nil {
			t.Fatalf("parse %q: %v", text, err)
		}
		list = append(list, v)
	}
	return list
}

// rule reads "host,host path,path METHOD,METHOD"; "-" is an empty list.
func rule(t testing.TB, text string) (r Rule) {
	t.Helper()
	f := strings.Fields(text + " - - -")
	split := func(s string) []string {
		if s == "-" {
			return nil
		}
		return strings.Split(s, ",")
	}
	r.Hosts = parse(t, ParseHost, split(f[0])...)
	r.Paths = parse(t, ParsePath, split(f[1])...)
	r.Methods = parse(t, ParseMethod, split(f[2])...)
	return r
}

// request reads "METHOD host target", and fields as lines.
func request(t testing.TB, text string, fields ...string) *wire.Request {
	t.Helper()
	f := strings.Fields(text)
	section := "Host: " + f[1] + "\r\n"
	for _, line := range fields {
		section += line + "\r\n"
	}
	q := new(wire.Request)
	if fault := q.ParseParts([]byte(f[0]), []byte(f[2]), []byte("HTTP/1.1"), []byte(section+"\r\n"), &wire.Limits{}); fault != wire.NoFault {
		t.Fatalf("parse %q: %v", text, fault)
	}
	return q
}

func TestFirstMatchWins(t *testing.T) {
	var rules []Rule
	for _, text := range []string{
		0:  "api.example.com /users/* GET,HEAD",
		1:  "api.example.com /users/*",
		2:  "*.example.com /static/logo.png",
		3:  "*.example.com /static/*",
		4:  "- /users/{id}/posts",
		5:  "- /users/me/posts", // behind 4
		6:  "b.example.com,c.example.com /,/index.html",
		7:  "a.b.example.com -",
		8:  "- /prefix",
		9:  "- /prefix/* POST",
		10: "- /x/{a}/{b}/end",
		11: "- /x/y/*",
		12: "- - PURGE",
		13: "[::1] *",
	} {
		rules = append(rules, rule(t, text))
	}
	r := New(rules)
	f := func(text string, want int) {
		t.Helper()
		q := request(t, text)
		if got := r.Match(q, "http"); got != want {
			t.Errorf("%s: rule %d, want %d", text, got, want)
		}
		if got := reference(rules, q, "http"); got != want {
			t.Errorf("%s: rule %d by comparing one by one, want %d", text, got, want)
		}
	}
	f("GET api.example.com /users/7", 0)
	f("GET API.example.com:8080 /users/7?x=y", 0)
	f("GET api.example.com. /users", 0)
	f("POST api.example.com /users/7", 1)
	f("POST api.example.com /users/../users/7", 1)
	f("GET other.example.com /static/logo.png", 2)
	f("GET other.example.com /static/", 3)
	f("GET example.com /static/", -1)
	f("GET example.com /users/7/posts", 4)
	f("GET example.com /users/me/posts", 4)
	f("GET c.example.com /", 6)
	f("GET c.example.com /index.html", 6)
	f("GET c.example.com /index", -1)
	f("GET a.b.example.com /static/x", 3)
	f("GET a.b.example.com /other", 7)
	f("GET q /prefix", 8)
	f("GET q /prefix/", -1)
	f("POST q /prefix/", 9)
	f("POST q /prefix", 8)
	f("GET q /x/y/z/end", 10)
	f("GET q /x/y/z/other", 11)
	f("PURGE q /none", 12)
	f("purge q /none", -1)
	f("GET [::1]:80 /none", 13)
	f("OPTIONS [::1] *", 13)
	f("OPTIONS q *", -1)
	f("GET q /none", -1)

	if got := New(nil).Match(request(t, "GET a /"), "http"); got != -1 {
		t.Errorf("a router without rules gives rule %d", got)
	}
}

func TestConditionsOnFieldsAndQuery(t *testing.T) {
	condition := func(c Condition, err error) []Condition {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return []Condition{c}
	}
	header := func(name, value, line string, want bool) {
		t.Helper()
		q := request(t, "GET a /", "X-Other: 1", line)
		if got := New([]Rule{{Headers: condition(ParseHeader(name, value))}}).Match(q, "http") == 0; got != want {
			t.Errorf("%s=%q with %q: %v, want %v", name, value, line, got, want)
		}
	}
	header("X-Beta", "1", "x-BETA: 1", true)
	header("X-Beta", "1", "X-Beta: 2\r\nX-Beta: 1", true)
	header("X-Beta", "1", "X-Beta: 1, 2", false)
	header("X-Beta", "a", "X-Beta: A", false)
	header("X-Beta", "*", "X-Beta:", true)
	header("X-Beta", "*", "X-Bet: 1", false)
	header("X-Beta", "", "X-Beta:", true)
	header("Accept", "text/html", "accept: text/html", true)
	header("accept", "*", "Accept-Encoding: br", false)

	query := func(name, value, raw string, want bool) {
		t.Helper()
		q := request(t, "GET a /"+raw)
		if got := New([]Rule{{Query: condition(ParseQuery(name, value))}}).Match(q, "http") == 0; got != want {
			t.Errorf("%s=%q with %q: %v, want %v", name, value, raw, got, want)
		}
	}
	query("v", "2", "?v=2", true)
	query("v", "2", "?a&b=c&v=1&v=2&", true)
	query("v", "2", "?v=22", false)
	query("v", "2", "?vv=2", false)
	query("v", "2", "", false)
	query("v", "*", "?v", true)
	query("v", "*", "?v=", true)
	query("v", "*", "?w=v", false)
	query("v", "", "?v", true)
	query("v", "a b&c", "?%76=a+b%26c", true)
	query("v", "a=b", "?v=a=b", true)
	query("v", "%", "?v=%", true)

	for _, bad := range []error{
		second(ParseHeader("a b", "")), second(ParseHeader("Host", "a")), second(ParseHeader("A", " a")),
		second(ParseHeader("A", "\r\n")), second(ParseQuery("", "")), second(ParseMethod("get")),
		second(ParseMethod("")), second(ParseMethod("A B")), second(ParseMethod("CONNECT")),
	} {
		if bad == nil {
			t.Error("a condition that can never hold was accepted")
		}
	}
}

func TestPreflightsBelongToTheRuleOfTheMethodTheyAskFor(t *testing.T) {
	get, put := rule(t, "- /a GET,PATCHY"), rule(t, "- /a PUT")
	get.Preflight, put.Preflight = true, true
	r := New([]Rule{rule(t, "- /a DELETE"), get, put})
	f := func(line, asked string, want int) {
		t.Helper()
		if got := r.Match(request(t, line, "Origin: https://b", "Access-Control-Request-Method: "+asked), "http"); got != want {
			t.Errorf("%s for %s: rule %d, want %d", line, asked, got, want)
		}
	}
	f("OPTIONS a /a", "GET", 1)
	f("OPTIONS a /a", "PATCHY", 1)
	f("OPTIONS a /a", "PUT", 2)
	f("OPTIONS a /a", "POST", -1)
	f("OPTIONS a /a", "DELETE", -1) // without a policy
	f("OPTIONS a /b", "GET", -1)
	f("HEAD a /a", "GET", -1)
	if got := r.Match(request(t, "OPTIONS a /a", "Access-Control-Request-Method: GET"), "http"); got != -1 {
		t.Errorf("what no page of another site asks for gives rule %d", got)
	}
	if Covers(rule(t, "- - GET"), Rule{Methods: []string{"GET"}, Preflight: true}) {
		t.Error("a rule covers preflights that it does not take")
	}
}

func second[T any](_ T, err error) error { return err }

// reference finds the rule by comparing one after the other.
func reference(rules []Rule, q *wire.Request, scheme string) int {
	for i := range rules {
		if rules[i].Matches(q, scheme) {
			return i
		}
	}
	return -1
}

// chooser takes decisions from fuzzed bytes, zeros when they are used up.
type chooser struct{ data []byte }

func (c *chooser) below(n int) int {
	if len(c.data) == 0 {
		return 0
	}
	v := int(c.data[0]) % n
	c.data = c.data[1:]
	return v
}

func (c *chooser) of(list ...string) string { return list[c.below(len(list))] }

func (c *chooser) rule(t testing.TB) (r Rule) {
	for range c.below(3) {
		r.Hosts = append(r.Hosts, parse(t, ParseHost, c.of("*", "a.b", "*.b", "*.a.b", "c", "*.c", "x.a.b"))...)
	}
	for range c.below(3) {
		path := ""
		for i := range c.below(4) {
			if path == "/" {
				path = "/a" // no path begins with two slashes
			}
			path += "/" + c.of("a", "b", "", fmt.Sprintf("{n%d}", i), "%2f")
		}
		if path == "" {
			path = "/"
		}
		if c.below(3) == 0 {
			path = strings.TrimSuffix(path, "/") + "/*"
		}
		r.Paths = append(r.Paths, parse(t, ParsePath, path)...)
	}
	for range c.below(3) {
		r.Methods = append(r.Methods, c.of("GET", "POST", "PURGE", "OPTIONS"))
	}
	r.Preflight = c.below(2) == 1
	r.Scheme = c.of("", "", "http", "https")
	if c.below(4) == 0 {
		h, _ := ParseHeader(c.of("X-A", "Accept"), c.of("1", "*"))
		r.Headers = append(r.Headers, h)
	}
	if c.below(4) == 0 {
		q, _ := ParseQuery(c.of("q", "r"), c.of("1", "*"))
		r.Query = append(r.Query, q)
	}
	return r
}

func (c *chooser) request(t testing.TB) *wire.Request {
	path := ""
	for range 1 + c.below(4) {
		if path == "/" {
			path = "/b"
		}
		path += "/" + c.of("a", "b", "", "c", "%2F")
	}
	return request(t, c.of("GET", "POST", "PURGE", "HEAD", "OPTIONS")+" "+c.of("a.b", "b", "x.a.b", "c", "y.c", "z", "a.b.", "a.b:1")+" "+path+
		c.of("", "?q=1", "?r", "?q=2&r=1"),
		c.of("X-A: 1", "Origin: b\r\nAccess-Control-Request-Method: GET", "x-a: 2", "Y: 1"), c.of("Accept: 1", "Accept: 2", "Z: 1"))
}

func FuzzRouter(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 64 {
		seed := make([]byte, 40+r.IntN(200))
		for i := range seed {
			seed[i] = byte(r.Uint32())
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &chooser{data}
		var rules []Rule
		for range 1 + c.below(12) {
			rules = append(rules, c.rule(t))
		}
		router := New(rules)
		for range 8 {
			q := c.request(t)
			scheme := c.of("http", "https")
			got, want := router.Match(q, scheme), reference(rules, q, scheme)
			if got != want {
				t.Fatalf("%s %s %s: rule %d, want %d of %+v", q.MethodText, q.Host, q.Path, got, want, rules)
			}
			for i := range rules {
				m, missed := rules[i].Why(q, scheme)
				if missed == rules[i].Matches(q, scheme) || missed == (m.Option == "") || missed == (m.Text == "") {
					t.Fatalf("%s %s %s: rule %d misses %v %+v, but matches %v", q.MethodText, q.Host, q.Path, i, missed, m, rules[i].Matches(q, scheme))
				}
			}
			// A rule that an earlier one covers can never be the first.
			for i := range max(want, 0) {
				if Covers(rules[i], rules[want]) {
					t.Fatalf("%s %s %s: rule %d was reached although %d covers it: %+v", q.MethodText, q.Host, q.Path, want, i, rules)
				}
			}
		}
	})
}

func TestCoversFindsRulesThatCanNeverMatch(t *testing.T) {
	f := func(a, b string, want bool) {
		t.Helper()
		if got := Covers(rule(t, a), rule(t, b)); got != want {
			t.Errorf("%q covers %q: %v, want %v", a, b, got, want)
		}
	}
	f("- -", "a.b /x GET", true)
	f("* /*", "- -", true)
	f("a.b -", "- -", false)
	f("a.b -", "A.B -", true)
	f("*.b -", "a.b,c.a.b -", true)
	f("*.b -", "*.a.b -", true)
	f("*.b -", "*.b -", true)
	f("*.b -", "b -", false)
	f("*.a.b -", "*.b -", false)
	f("b -", "*.b -", false)
	f("- /a/*", "- /a", true)
	f("- /a/*", "- /a/,/a/b/*", true)
	f("- /a/*", "- /a,/b", false)
	f("- /a", "- /a/*", false)
	f("- /{x}", "- /a", true)
	f("- /{x}", "- /", false)
	f("- /{x}", "- /{y}", true)
	f("- /a", "- /{y}", false)
	f("- /{x}/*", "- /a/b/*", true)
	f("- - GET", "- - GET", true)
	f("- - GET", "- -", false)
	f("- - GET,POST", "- - POST", true)
	f("- - GET", "- - GET,POST", false)

	one, _ := ParseHeader("X-A", "1")
	any, _ := ParseHeader("x-a", "*")
	if !Covers(Rule{Headers: []Condition{any}}, Rule{Headers: []Condition{one}}) ||
		Covers(Rule{Headers: []Condition{one}}, Rule{Headers: []Condition{any}}) ||
		Covers(Rule{Headers: []Condition{one}}, Rule{}) || !Covers(Rule{}, Rule{Headers: []Condition{one}}) {
		t.Error("conditions are not compared")
	}
	if !Covers(Rule{}, Rule{Scheme: "http"}) || Covers(Rule{Scheme: "http"}, Rule{}) || Covers(Rule{Scheme: "http"}, Rule{Scheme: "https"}) {
		t.Error("schemes are not compared")
	}
}

func TestSchemes(t *testing.T) {
	r := New([]Rule{{Scheme: "https"}, rule(t, "- /a")})
	f := func(line, scheme string, want int) {
		t.Helper()
		if got := r.Match(request(t, line), scheme); got != want {
			t.Errorf("%s, %s: rule %d, want %d", line, scheme, got, want)
		}
	}
	f("GET a /a", "https", 0)
	f("GET a /a", "http", 1)
	f("GET a /b", "http", -1)
}

// table is a configuration of n routes over a hundred hosts.
func table(t testing.TB, n int) []Rule {
	var rules []Rule
	for i := range n {
		rules = append(rules, rule(t, fmt.Sprintf("h%d.example.com %s", i%100, []string{
			fmt.Sprintf("/exact/%d", i), fmt.Sprintf("/prefix%d/*", i), fmt.Sprintf("/users/{id}/x%d", i),
		}[i%3])))
	}
	return rules
}

func TestMatchAllocatesNothing(t *testing.T) {
	rules := table(t, 1000)
	header, _ := ParseHeader("X-Beta", "1")
	query, _ := ParseQuery("v", "2")
	rules = append(rules, Rule{Headers: []Condition{header}, Query: []Condition{query}, Methods: []string{"PURGE"}}, rule(t, "*.com /w/*"))
	r := New(rules)
	requests := []*wire.Request{
		request(t, "GET h99.example.com /exact/999"),
		request(t, "GET h98.example.com /users/7/x998"),
		request(t, "PURGE long.name.of.a.host.that.is.below.example.com /a/path/that/is/longer/than/small/buffers/are?v=2", "X-Beta: 1"),
		request(t, "GET h1.example.com /w/x"),
		request(t, "GET nobody /none"),
	}
	mallocs.None(t, t.Name(), 20_000, func() {
		for _, q := range requests {
			r.Match(q, "http")
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{10, 1000} {
		r := New(table(b, n))
		last := n - 1 - (n-1)%3 + 2
		for last >= n {
			last -= 3
		}
		for _, c := range []struct{ name, request string }{
			{"Exact", fmt.Sprintf("GET h%d.example.com /exact/%d", (n-1)%100, n-1)},
			{"Segments", fmt.Sprintf("GET h%d.example.com /users/7/x%d", last%100, last)},
			{"None", "GET nobody.example.com /none"},
		} {
			q := request(b, c.request)
			b.Run(fmt.Sprintf("%s/%d", c.name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					r.Match(q, "http")
				}
			})
		}
	}
}
