package proxy

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"gateway/upstream"
)

// echoes are origins that say in their answers who they are and what they have
// seen. Paths with /fresh may be stored, those with /bin are not text.
func echoes(t testing.TB, n int) (addresses []string, requests *atomic.Int64) {
	requests = new(atomic.Int64)
	for range n {
		var address string
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests.Add(1)
			io.Copy(io.Discard, r.Body)
			h := w.Header()
			h.Set("X-Server", address)
			h.Set("X-Seen", r.Method+" "+r.RequestURI+" "+r.Host)
			h.Set("Content-Type", "text/plain")
			if strings.Contains(r.URL.Path, "/bin") {
				h.Set("Content-Type", "image/png")
			}
			h.Set("Cache-Control", "no-store")
			if strings.Contains(r.URL.Path, "/fresh") {
				h.Set("Cache-Control", "max-age=3600")
				h.Set("ETag", `"tag"`)
			}
			if strings.Contains(r.URL.Path, "/vary") {
				h.Set("Vary", "X-User")
			}
			body := strings.Repeat("all the same ", 100)
			h.Set("Content-Length", fmt.Sprint(len(body)))
			io.WriteString(w, body)
		}))
		t.Cleanup(s.Close)
		address = s.Listener.Addr().String()
		addresses = append(addresses, address)
	}
	return addresses, requests
}

// explainable is a configuration in which much can happen to a request. Limits
// fill up too slowly for a test to see.
const explainable = `
[client]
trusted_proxies = ["127.0.0.0/8"]
[cache]
memory = "8MiB"
[explain]
secret = "0123456789abcdef0123456789abcdef"
[limit.few]
rate = "30/d"
burst = 30
key = ["header:X-User", "ip"]
cost = { POST = 3 }
[limit.missing]
rate = "30/d"
burst = 70
key = "ip"
on = "miss"
[cors.site]
origins = ["https://app.example.com"]
[jwt.staff]
secret = "fedcba9876543210fedcba9876543210"
[upstream.turns]
servers = ["%[1]s", { address = "%[2]s", weight = 2 }, "%[3]s"]
health = false
[upstream.least]
servers = ["%[1]s", "%[2]s"]
balance = "least_conn"
host = "inside.example.com"
health = false
[upstream.hashed]
servers = ["%[1]s", "%[2]s", "%[3]s"]
balance = "hash"
hash_key = "header:X-User"
health = false
[upstream.drawn]
servers = ["%[2]s", "%[3]s"]
balance = "p2c"
health = false
[[route]]
name = "moved"
host = "old.example.com"
methods = ["GET"]
redirect = { to = "https://new.example.com{path}{query}" }
set_response_headers = { X-Route = "moved" }
[[route]]
name = "api"
host = ["api.example.com", "*.api.example.com"]
path = ["/api/{kind}/*"]
headers = { X-User = "*" }
upstream = "turns"
strip_prefix = "/api"
add_prefix = "/v2"
limit = "few"
compress = true
cors = "site"
set_response_headers = { X-Route = "api" }
[[route]]
name = "cached"
path = "/c/*"
upstream = "least"
cache = { query_except = ["utm"] }
limit = "missing"
compress = ["gzip", "zstd"]
set_response_headers = { X-Route = "cached" }
[[route]]
name = "hashed"
path = "/h/*"
query = { q = "1" }
upstream = "hashed"
cache = true
set_response_headers = { X-Route = "hashed" }
[[route]]
name = "inside"
path = "/inside"
deny = ["10.0.0.0/9"]
max_body = "1KiB"
upstream = "drawn"
split = { turns = "30%%" }
set_response_headers = { X-Route = "inside" }
[[route]]
name = "staff"
path = "/staff"
jwt = "staff"
upstream = "drawn"
set_response_headers = { X-Route = "staff" }
[[route]]
name = "fixed"
scheme = "https"
path = "/h/*"
respond = { status = 203, content_type = "text/plain", body = "%[4]s" }
compress = true
set_response_headers = { X-Route = "fixed" }
`

// asked is a request of the property test.
type asked struct {
	method, host, target string
	fields               []string
	body                 int
}

func (a *asked) question() Question {
	return Question{URL: "http://" + a.host + a.target, Method: a.method, Fields: a.head()}
}

func (a *asked) head() []string {
	if a.body == 0 {
		return a.fields
	}
	return append(slices.Clone(a.fields), fmt.Sprintf("Content-Length: %d", a.body))
}

func (a *asked) text() string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\n%s\r\n%s", a.method, a.target, a.host, lines(a.head()), strings.Repeat("b", a.body))
}

func draw(r *rand.Rand) *asked {
	of := func(list ...string) string { return list[r.IntN(len(list))] }
	a := &asked{
		method: of("GET", "GET", "GET", "GET", "HEAD", "POST", "OPTIONS", "PUT"),
		host:   of("api.example.com", "API.example.com", "x.api.example.com", "old.example.com", "other:8080"),
		target: of("/api/users/7", "/api/users/8", "/api/x/../users/1", "/api//users/../x/1", "/api", "/c/fresh/1", "/c/fresh/2", "/c/fresh/vary", "/c/fresh/bin",
			"/c/plain", "/h/fresh/1", "/h/fresh/2", "/inside", "/staff", "/c/%66resh/1", "/%2e%2e/above", "/none") +
			of("", "", "?q=1", "?q=1&utm=mail", "?utm=x", "?"),
	}
	if a.method == "POST" || a.method == "PUT" {
		a.body = []int{0, 3, 2000}[r.IntN(3)]
	}
	for _, choice := range [][]string{
		{"", "X-User: anna", "X-User: bert", "X-User: carl"},
		{"", "", "Accept-Encoding: gzip", "Accept-Encoding: gzip, zstd", "Accept-Encoding: zstd;q=0.2, gzip;q=0", "Accept-Encoding: br"},
		{"", "", "X-Forwarded-For: 10.1.2.3", "X-Forwarded-For: 10.200.0.1", "X-Forwarded-For: 192.0.2.9"},
		{"", "", "", "X-Forwarded-Proto: https"},
		{"", "", "", "", "Cache-Control: no-cache", "Cache-Control: only-if-cached", "Cache-Control: no-store", "Cache-Control: max-age=0"},
		{"", "", "", "", "", "Range: bytes=0-9", `If-None-Match: "tag"`, `If-Match: "x"`, "Authorization: Basic eDp5", "Authorization: Bearer x"},
		{"", "", "", "Origin: https://app.example.com\r\nAccess-Control-Request-Method: GET"},
	} {
		if f := of(choice...); f != "" {
			a.fields = append(a.fields, strings.Split(f, "\r\n")...)
		}
	}
	return a
}

// settled waits until nothing is under way: neither a request nor what is still
// received for the cache.
func (r *running) settled() {
	r.t.Helper()
	r.until("everything has ended", func() bool {
		r.fills.mu.Lock()
		n := len(r.fills.calls)
		r.fills.mu.Unlock()
		for _, p := range r.snapshot.Load().pools {
			for _, s := range p.Servers() {
				n += int(s.InFlight()) // given back a moment later
			}
		}
		return n == 0 && r.counters.inFlight.Value() == 0
	})
}

// The same requests are explained and then sent.
func TestExplanationsAgreeWithWhatHappens(t *testing.T) {
	const n = 900
	servers, requests := echoes(t, 3)
	r := start(t, explainable, servers[0], servers[1], servers[2], strings.Repeat("text ", 100))
	random := rand.New(rand.NewPCG(1, 11))
	seen := map[string]int{} // how often something came about, so that the test tests something
	for i := range n {
		if i%40 == 39 { // other servers, and at times none
			pool := []string{"turns", "least", "hashed"}[random.IntN(3)]
			for _, s := range r.snapshot.Load().pools[pool].Servers() {
				if err := r.SetOrder(pool, s.Name, upstream.Order(random.IntN(3))); err != nil {
					t.Fatal(err)
				}
			}
		}
		a := draw(random)
		r.settled()
		e, err := r.Explain(a.question())
		if err != nil {
			t.Fatal(err)
		}
		before := requests.Load()
		got := r.do(a.text())
		if problem := disagreement(e, a, got, requests.Load()-before); problem != "" {
			t.Errorf("%q\n%s\nbut the answer is %d %v\nand the explanation %+v\nlimits %+v\ncache %+v\npool %+v\ncoding %+v",
				a.text(), problem, got.StatusCode, got.Header, e, e.Limits, e.Cache, e.Pool, e.Compress)
		}
		seen["by the "+e.Outcome.By]++
		seen["for "+e.Outcome.Reason]++
		if e.Cache != nil {
			seen["cache: "+e.Cache.Verdict]++
		}
		if e.Pool != nil {
			seen["pool: "+e.Pool.Pool+" by "+e.Pool.Why]++
		}
		if e.Compress != nil {
			seen["coding: "+e.Compress.Coding+e.Compress.Why]++
		}
		seen["route: "+e.Route]++
	}
	t.Logf("%v", seen)
	for _, what := range []string{
		"by the gateway", "by the cache", "by the origin",
		"for rate_limited", "for denied", "for unauthenticated", "for no_route", "for no_server", "for not_cached", "for body_too_large", "for bad_request",
		"cache: hit", "cache: miss", "cache: validate", "cache: bypass", "cache: unavailable",
		"pool: turns by turn", "pool: least by turn", "pool: hashed by hash", "pool: drawn by ",
		"coding: gzip", "coding: zstd", "coding: not_accepted", "coding: range",
		"route: moved", "route: api", "route: cached", "route: hashed", "route: inside", "route: staff", "route: fixed", "route: ",
	} {
		if seen[what] == 0 {
			t.Errorf("nothing of the kind: %s", what)
		}
	}
}

// disagreement says where an answer is not what was explained, "" if it is.
// asked is how many requests origins have got for it.
func disagreement(e *Explanation, a *asked, got answer, asked int64) string {
	if e.Outcome.Reason != "bad_request" && got.Header.Get("X-Route") != e.Route {
		return fmt.Sprintf("route %q", e.Route)
	}
	if want := e.Outcome.Status; want != 0 && want != got.StatusCode {
		return fmt.Sprintf("status %d", want)
	}
	if e.Outcome.By != "origin" {
		if asked != 0 {
			return "no origin is asked"
		}
		if e.Outcome.Location != got.Header.Get("Location") {
			return "location " + e.Outcome.Location
		}
	} else {
		if asked != 1 {
			return fmt.Sprintf("the origin is asked, but %d were", asked)
		}
		if c := got.StatusCode; c != 200 && c != 206 && c != 304 {
			return "the origin answers"
		}
		if want := e.Target.Method + " " + e.Target.Target + " " + e.Target.Host; got.Header.Get("X-Seen") != want && got.StatusCode != 304 {
			return "the origin sees " + want
		}
		server := got.Header.Get("X-Server")
		if !slices.ContainsFunc(e.Pool.Servers, func(c upstream.Candidate) bool { return c.Eligible && c.Address == server }) && server != "" {
			return server + " was no candidate"
		}
		if e.Pool.Next != "" && e.Pool.Next != server && server != "" {
			return "the next server is " + e.Pool.Next
		}
	}
	if e.Cache != nil {
		hit := strings.HasSuffix(strings.SplitN(got.status(), ";", 3)[min(1, strings.Count(got.status(), ";"))], " hit")
		switch e.Cache.Verdict {
		case "hit", "stale", "refresh":
			if !hit {
				return "a hit, not " + got.status()
			}
		default:
			if hit {
				return e.Cache.Verdict + ", not a hit"
			}
		}
	}
	if c := e.Compress; c != nil {
		want := c.Coding
		if !c.Certain && (got.StatusCode != 200 || got.Header.Get("Content-Type") != "text/plain") {
			want = ""
		}
		if got.Header.Get("Content-Encoding") != want {
			return fmt.Sprintf("coding %q", want)
		}
	}
	return ""
}

func TestExplainingTakesNothing(t *testing.T) {
	servers, requests := echoes(t, 3)
	r := start(t, explainable, servers[0], servers[1], servers[2], "")
	if a := r.get("/c/fresh/1"); a.StatusCode != 200 {
		t.Fatal(a.StatusCode)
	}
	r.settled()
	count := func() (sums [5]float64) {
		for i, family := range []string{"gateway_limit_decisions_total", "gateway_cache_requests_total", "gateway_upstream_requests_total", "gateway_http_requests_total", "gateway_limit_keys"} {
			sums[i] = r.metric(family)
		}
		return sums
	}
	before, asked := count(), requests.Load()
	for range 50 {
		for _, q := range []Question{
			{URL: "http://api.example.com/api/users/1", Fields: []string{"X-User: anna"}},
			{URL: "http://test/c/fresh/1"}, {URL: "http://test/c/fresh/2"}, {URL: "http://test/h/x?q=1"}, {URL: "http://test/none"},
		} {
			if _, err := r.Explain(q); err != nil {
				t.Fatal(err)
			}
		}
	}
	if after := count(); after != before || requests.Load() != asked {
		t.Errorf("counted %v, and %v before; %d requests at origins", after, before, requests.Load()-asked)
	}
	for i := range 30 { // the whole burst is there
		if a := r.do("GET /api/users/1 HTTP/1.1\r\nHost: api.example.com\r\nX-User: anna\r\n\r\n"); a.StatusCode != 200 {
			t.Errorf("request %d: status %d", i, a.StatusCode)
		}
	}
	e, err := r.Explain(Question{URL: "http://api.example.com/api/users/1", Fields: []string{"X-User: anna"}})
	if err != nil || e.Outcome.Status != 429 || e.Outcome.Reason != "rate_limited" || e.Limits[0].Key != "anna" || e.Limits[0].Allowed || e.Limits[0].Wait == "" {
		t.Errorf("%+v, %v", e, err)
	}
}
