package proxy

import (
	"strings"
	"testing"

	"gateway/internal/origin"
)

func TestFirstMatchingRouteWins(t *testing.T) {
	r := begin(t, `
[[route]]
host = "a.example"
path = "/x/*"
respond = { body = "host and path" }

[[route]]
host = "*.example"
methods = ["GET"]
respond = { body = "wildcard, GET" }

[[route]]
headers = { X-Beta = "1" }
respond = { body = "beta" }

[[route]]
query = { preview = "*" }
respond = { body = "preview" }

[[route]]
path = "/users/{id}/posts"
respond = { body = "posts" }

[[route]]
path = ["/exact", "/also"]
methods = ["POST", "PURGE"]
respond = { body = "exact" }
`)
	for _, c := range []struct{ request, want string }{
		{"GET /x/y HTTP/1.1\r\nHost: a.example\r\n\r\n", "host and path"},
		{"GET /x HTTP/1.1\r\nHost: A.Example.:81\r\n\r\n", "host and path"},
		{"GET /xy HTTP/1.1\r\nHost: a.example\r\n\r\n", "wildcard, GET"},
		{"GET /%78/./y HTTP/1.1\r\nHost: a.example\r\n\r\n", "host and path"},
		{"GET /y/../x/ HTTP/1.1\r\nHost: a.example\r\n\r\n", "host and path"},
		{"GET http://b.c.example/ HTTP/1.1\r\nHost: b.c.example\r\n\r\n", "wildcard, GET"},
		{"POST / HTTP/1.1\r\nHost: b.example\r\n\r\n", "404"},
		{"GET / HTTP/1.1\r\nHost: example\r\n\r\n", "404"},
		{"GET / HTTP/1.1\r\nHost: test\r\nX-Beta: 1\r\n\r\n", "beta"},
		{"GET / HTTP/1.1\r\nHost: test\r\nx-beta: 0\r\nX-BETA: 1\r\n\r\n", "beta"},
		{"GET / HTTP/1.1\r\nHost: test\r\nX-Beta: 2\r\n\r\n", "404"},
		{"GET /?a=b&preview HTTP/1.1\r\nHost: test\r\n\r\n", "preview"},
		{"GET /users/7/posts HTTP/1.1\r\nHost: test\r\n\r\n", "posts"},
		{"GET /users/7/8/posts HTTP/1.1\r\nHost: test\r\n\r\n", "404"},
		{"GET /users/7%2F8/posts HTTP/1.1\r\nHost: test\r\n\r\n", "posts"},
		{"POST /exact HTTP/1.1\r\nHost: test\r\n\r\n", "exact"},
		{"PURGE /also HTTP/1.1\r\nHost: test\r\n\r\n", "exact"},
		{"GET /exact HTTP/1.1\r\nHost: test\r\n\r\n", "404"},
		{"POST /exact/ HTTP/1.1\r\nHost: test\r\n\r\n", "404"},
		{"POST /exact HTTP/1.0\r\n\r\n", "exact"},
	} {
		a := r.do(c.request)
		got := a.body
		if a.StatusCode == 404 {
			a.refused(t, 404, "no_route")
			got = "404"
		}
		if got != c.want {
			t.Errorf("%q is answered %q, want %q", c.request, got, c.want)
		}
	}
	r.counts(6, "gateway_http_requests_total", `route="none"`, `status="404"`)
	r.endedFor("no_route", 6)
}

func TestFixedResponses(t *testing.T) {
	r := begin(t, `
[[route]]
path = "/empty"
respond = { status = 204 }

[[route]]
path = "/json"
respond = { status = 418, body = '{"a":1}', content_type = "application/json" }

[[route]]
respond = { body = "hello" }
`)
	a := r.get("/")
	if a.StatusCode != 200 || a.body != "hello" || a.ContentLength != 5 || a.Header.Get("Content-Type") != "text/plain; charset=utf-8" || a.Header.Get("Date") == "" {
		t.Errorf("status %d, body %q, %v", a.StatusCode, a.body, a.Header)
	}
	a = r.do("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n")
	if a.StatusCode != 200 || a.body != "" || a.ContentLength != 5 {
		t.Errorf("HEAD: status %d, body %q, length %d", a.StatusCode, a.body, a.ContentLength)
	}
	a = r.get("/json")
	if a.StatusCode != 418 || a.body != `{"a":1}` || a.Header.Get("Content-Type") != "application/json" {
		t.Errorf("status %d, body %q, %v", a.StatusCode, a.body, a.Header)
	}
	c := r.dial()
	c.send("GET /empty HTTP/1.1\r\nHost: test\r\n\r\n")
	if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 204 ") || field(head, "Content-Length") != "" || field(head, "Content-Type") != "" {
		t.Errorf("204 is\n%s", head)
	}
	r.counts(5+7, "gateway_http_response_bytes_total")
	r.endedFor("done", 4)
}

func TestRedirectsFillInTheRequest(t *testing.T) {
	r := begin(t, `
[[route]]
path = "/old/*"
redirect = { to = "/new{path}{query}", status = 302 }

[[route]]
path = "/fixed"
redirect = { to = "https://example.com/a" , status = 301 }

[[route]]
redirect = { to = "https://{host}{path}{query}" }
`)
	for _, c := range []struct {
		request  string
		status   int
		location string
	}{
		{"GET /a/../b?c=d&e HTTP/1.1\r\nHost: Test.Example:8080\r\n\r\n", 308, "https://test.example/b?c=d&e"},
		{"GET / HTTP/1.1\r\nHost: test\r\n\r\n", 308, "https://test/"},
		{"GET /? HTTP/1.1\r\nHost: test\r\n\r\n", 308, "https://test/?"},
		{"GET /a%0d%0aX:%201?%0d%0aX:%201 HTTP/1.1\r\nHost: test\r\n\r\n", 308, "https://test/a%0D%0AX:%201?%0d%0aX:%201"},
		{"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 308, "https://[::1]/"},
		{"OPTIONS * HTTP/1.1\r\nHost: test\r\n\r\n", 308, "https://test/"},
		{"POST /old/x?y HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nhi", 302, "/new/old/x?y"},
		{"GET /old HTTP/1.0\r\n\r\n", 302, "/new/old"},
		{"GET /fixed?a HTTP/1.1\r\nHost: test\r\n\r\n", 301, "https://example.com/a"},
	} {
		a := r.do(c.request)
		if a.StatusCode != c.status || a.Header.Get("Location") != c.location || a.body != "" || a.ContentLength != 0 {
			t.Errorf("%q: status %d, Location %q, body %q", c.request, a.StatusCode, a.Header.Get("Location"), a.body)
		}
	}
	r.do("GET / HTTP/1.0\r\n\r\n").refused(t, 400, "bad_request") // to which host?
}

func TestAddressesAreLetInOrNot(t *testing.T) {
	o := record(t, origin.OK("in"))
	r := begin(t, "[client]\ntrusted_proxies = [\"127.0.0.1\"]", app(o.Address), `
[[route]]
path = "/allow"
allow = ["10.0.0.0/8", "2001:db8::/32"]
deny = ["10.6.6.6"]
upstream = "app"

[[route]]
path = "/deny"
deny = ["10.0.0.0/8"]
upstream = "app"
`)
	for _, c := range []struct {
		path, client string
		status       int
	}{
		{"/allow", "10.1.2.3", 200},
		{"/allow", "2001:db8::1", 200},
		{"/allow", "10.6.6.6", 403},
		{"/allow", "11.1.2.3", 403},
		{"/allow", "10.1.2.3, 11.1.2.3", 403},
		{"/allow", "", 403},
		{"/deny", "10.1.2.3", 403},
		{"/deny", "::ffff:10.1.2.3", 403},
		{"/deny", "11.1.2.3", 200},
		{"/deny", "", 200},
	} {
		fields := []string{}
		if c.client != "" {
			fields = []string{"X-Forwarded-For: " + c.client}
		}
		a := r.get(c.path, fields...)
		if a.StatusCode != c.status {
			t.Errorf("%s for %q: status %d, want %d", c.path, c.client, a.StatusCode, c.status)
		}
		if c.status == 403 {
			a.refused(t, 403, "denied")
			if a.Close {
				t.Error("a refusal that needs no close has closed")
			}
		}
	}
	if n := o.Requests(); n != 4 {
		t.Errorf("the origin got %d requests, want 4", n)
	}
}

const cors = `
[cors.site]
origins = ["https://app.example.com"]
credentials = true
max_age = "1m"

[[route]]
path = "/get"
methods = ["GET"]
cors = "site"
upstream = "app"
set_response_headers = { X-Route = "1" }

[[route]]
path = "/small"
cors = "site"
max_body = "1B"
upstream = "app"

[[route]]
path = "/all"
cors = true
upstream = "app"
`

func TestPreflightsAreAnsweredForRoutesWithAPolicy(t *testing.T) {
	o := record(t, origin.OK("in"))
	r := begin(t, app(o.Address), cors)
	ask := func(path, site, method string) answer {
		return r.do("OPTIONS " + path + " HTTP/1.1\r\nHost: test\r\nOrigin: " + site + "\r\nAccess-Control-Request-Method: " + method + "\r\nAccess-Control-Request-Headers: X-A\r\n\r\n")
	}
	a := ask("/get", "https://app.example.com", "GET")
	if a.StatusCode != 204 || a.Header.Get("Access-Control-Allow-Origin") != "https://app.example.com" ||
		a.Header.Get("Access-Control-Allow-Credentials") != "true" || a.Header.Get("Access-Control-Max-Age") != "60" ||
		a.Header.Get("Access-Control-Allow-Headers") != "X-A" || a.Header.Get("X-Route") != "1" {
		t.Errorf("status %d, %v", a.StatusCode, a.Header)
	}
	if a := ask("/get", "https://evil.example.com", "GET"); a.StatusCode != 204 || a.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("another site: status %d, %v", a.StatusCode, a.Header)
	}
	if a := ask("/get", "https://app.example.com", "POST"); a.StatusCode != 404 {
		t.Errorf("a method that no route takes: status %d", a.StatusCode)
	}
	if a := ask("/all", "https://any.example", "DELETE"); a.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("any site: %v", a.Header)
	}
	if n := o.Requests(); n != 0 {
		t.Errorf("the origin got %d requests", n)
	}
	if a := r.do("OPTIONS /all HTTP/1.1\r\nHost: test\r\n\r\n"); a.body != "in" {
		t.Errorf("OPTIONS that is no preflight is answered %q", a.body)
	}
}

func TestPolicyReplacesTheOriginsAndCoversErrors(t *testing.T) {
	o := record(t, "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 0\r\n\r\n")
	r := begin(t, app(o.Address), cors)
	for site, want := range map[string]string{"https://app.example.com": "https://app.example.com", "https://evil.example.com": ""} {
		a := r.get("/get", "Origin: "+site)
		if got := a.Header.Get("Access-Control-Allow-Origin"); got != want || !strings.Contains(strings.Join(a.Header["Vary"], ","), "Origin") {
			t.Errorf("%s: %v", site, a.Header)
		}
		a = r.do("POST /small HTTP/1.1\r\nHost: test\r\nOrigin: " + site + "\r\nContent-Length: 2\r\n\r\nhi")
		if got := a.Header.Get("Access-Control-Allow-Origin"); a.StatusCode != 413 || got != want {
			t.Errorf("%s: status %d, %v", site, a.StatusCode, a.Header)
		}
	}
}

func TestRequestsOfEachKindAreCountedByTheirRoute(t *testing.T) {
	o := record(t, origin.OK("hello"))
	r := begin(t, app(o.Address), "[[route]]\nname = \"one\"\npath = \"/one\"\nupstream = \"app\"\n")
	r.get("/one")
	r.do("POST /one HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nabc")
	r.counts(2, "gateway_http_requests_total", `route="one"`, `status="200"`)
	r.counts(3, "gateway_http_request_bytes_total", `route="one"`)
	r.counts(10, "gateway_http_response_bytes_total", `route="one"`)
	r.counts(2, "gateway_upstream_requests_total", `upstream="app"`, `result="ok"`)
	r.counts(0, "gateway_http_in_flight")
	r.counts(0, "gateway_upstream_in_flight")
}

func TestClientsCannotCreateSeries(t *testing.T) {
	o := record(t, origin.OK("hello"))
	r := begin(t, app(o.Address), "[[route]]\npath = \"/known/*\"\nupstream = \"app\"\n")
	series := func() int {
		var text strings.Builder
		if err := r.WriteMetrics(&text); err != nil {
			t.Fatal(err)
		}
		return strings.Count(text.String(), "\n")
	}
	// One request of each kind: registered methods and statuses make series.
	kinds := func(n string) {
		r.do("BREW" + n + " /known/" + n + " HTTP/1.1\r\nHost: h" + n + "\r\nUser-Agent: u" + n + "\r\nX-" + n + ": 1\r\n\r\n")
		r.do("BREW" + n + " /unknown/" + n + " HTTP/1.1\r\nHost: h" + n + "\r\n\r\n")
		r.do("BAD" + n + " /" + n + " HTTP/1.1\r\nHost: h" + n + "\r\nX : 1\r\n\r\n")
		r.do("B" + n + " /" + n + " HTTP/7." + n + "\r\nHost: h" + n + "\r\n\r\n")
	}
	kinds("0")
	r.counts(4, "gateway_http_requests_total")
	before := series()
	for _, n := range strings.Split(strings.Repeat("123456789", 4), "") {
		kinds(n)
	}
	r.counts(4+4*36, "gateway_http_requests_total")
	if after := series(); after != before {
		t.Errorf("%d lines of metrics became %d", before, after)
	}
	r.counts(37, "gateway_http_requests_total", `method="OTHER"`, `status="200"`)
}
