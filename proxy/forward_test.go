package proxy

import (
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gateway/internal/origin"
)

func TestForwardsRequestAndResponse(t *testing.T) {
	o := origin.Start(t, origin.Echo)
	r := start(t, `
[upstream.app]
servers = ["%s"]
`, o.Address)
	a := r.get("/a/./b/../c?x=1", "X-Test: yes", "Connection: X-Drop", "X-Drop: 1", "X-Forwarded-For: 6.6.6.6")
	if a.StatusCode != 200 {
		t.Fatalf("status %d: %s", a.StatusCode, a.body)
	}
	for _, want := range []string{
		"GET /a/c?x=1 HTTP/1.1\r\nHost: test\r\n", "X-Test: yes\r\n", "X-Forwarded-For: 127.0.0.1\r\n", "Via: 1.1 gateway\r\n",
	} {
		if !strings.Contains(a.body, want) {
			t.Errorf("the origin did not get %q but:\n%s", want, a.body)
		}
	}
	for _, unwanted := range []string{"X-Drop", "6.6.6.6", "Connection:"} {
		if strings.Contains(a.body, unwanted) {
			t.Errorf("the origin got %q:\n%s", unwanted, a.body)
		}
	}
	r.counts(1, "gateway_http_requests_total", `method="GET"`, `status="200"`)
}

func TestRequestFieldsKeepOrderSpellingAndRepetition(t *testing.T) {
	o := record(t, origin.OK(""))
	r := begin(t, app(o.Address))
	fields := []string{
		"x-lower: 1", "X-UPPER: 2", "Accept: text/html", "X-Twice: a", "Cookie: a=1", "X-Twice: b", "Accept: */*",
		"X-Empty:", "X-Bytes: \xe9\xff \"q\"", "Cookie: b=2", "Authorization: Basic Zm9v",
	}
	r.get("/", fields...)
	got := o.last(t).Head
	want := "GET / HTTP/1.1\r\nHost: test\r\n" + strings.Replace(lines(fields), "X-Empty:\r\n", "X-Empty: \r\n", 1)
	if got = strings.Replace(got, "X-Empty:\r\n", "X-Empty: \r\n", 1); !strings.HasPrefix(got, want) {
		t.Errorf("the origin got\n%s\nwant it to begin with\n%s", got, want)
	}
}

func TestResponseFieldsKeepOrderSpellingAndRepetition(t *testing.T) {
	fields := []string{
		"server: own", "X-UPPER: 2", "Set-Cookie: a=1; Path=/", "x-twice: a", "Set-Cookie: b=2", "X-Twice: b", "Date: Thu, 01 Jan 1970 00:00:00 GMT",
		"Content-Type: text/plain", "Vary: Accept", "Vary: Origin",
	}
	o := record(t, "HTTP/1.1 203 Whatever\r\n"+lines(fields)+"Content-Length: 2\r\n\r\nhi")
	r := begin(t, app(o.Address))
	c := r.dial()
	c.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
	head := c.head()
	if _, got, _ := strings.Cut(head, "\r\n"); !strings.HasPrefix(head, "HTTP/1.1 203 ") || got != lines(fields)+"Content-Length: 2\r\n\r\n" {
		t.Errorf("the client got\n%s", head)
	}
	if body := c.next(2); body != "hi" {
		t.Errorf("body %q", body)
	}
}

func TestHopByHopFieldsEndHere(t *testing.T) {
	hop := []string{
		"Connection: keep-alive, X-Private, x-other", "Connection: X-Third", "Keep-Alive: timeout=5", "Proxy-Connection: keep-alive",
		"X-Private: 1", "X-OTHER: 1", "X-Third: 1", "Proxy-Authorization: Basic Zm9v", "Proxy-Authenticate: Basic", "Trailer: X-Sum",
		"TE: gzip", "Upgrade: websocket",
	}
	kept := []string{"X-Kept: 1", "Cache-Control: no-cache", "Authorization: x"}
	o := record(t, "HTTP/1.1 200 OK\r\n"+lines(hop)+lines(kept)+"Content-Length: 0\r\n\r\n")
	r := begin(t, app(o.Address))
	c := r.dial()
	c.send("GET / HTTP/1.1\r\nHost: test\r\n" + lines(hop) + lines(kept) + "\r\n")
	for who, head := range map[string]string{"client": c.head(), "origin": o.last(t).Head} {
		for _, f := range hop {
			if name, _, _ := strings.Cut(f, ":"); field(head, name) != "" {
				t.Errorf("the %s got %s:\n%s", who, name, head)
			}
		}
		for _, f := range kept {
			if name, value, _ := strings.Cut(f, ": "); field(head, name) != value {
				t.Errorf("the %s did not get %s:\n%s", who, name, head)
			}
		}
	}
}

func TestConnectionCannotRemoveWhatOriginsRelyOn(t *testing.T) {
	o := record(t, origin.OK(""))
	r := begin(t, app(o.Address))
	a := r.do("POST / HTTP/1.1\r\nHost: test\r\nConnection: close, Host, Content-Length, Content-Type, Authorization, Cookie, X-Forwarded-For, X-Request-Id, Via\r\n" +
		"Content-Type: text/x\r\nAuthorization: x\r\nCookie: c=1\r\nContent-Length: 2\r\n\r\nhi")
	q := o.last(t)
	for name, want := range map[string]string{
		"Host": "test", "Content-Length": "2", "Content-Type": "text/x", "Authorization": "x", "Cookie": "c=1",
		"X-Forwarded-For": "127.0.0.1", "Via": "1.1 gateway",
	} {
		if got := q.Field(name); got != want {
			t.Errorf("the origin got %s %q, want %q", name, got, want)
		}
	}
	if q.Body != "hi" || q.Field("X-Request-Id") == "" || !a.Close {
		t.Errorf("body %q, close %v:\n%s", q.Body, a.Close, q.Head)
	}
}

// What an untrusted client says about itself and others.
var claims = []string{
	"X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 7.7.7.7", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil", "X-Forwarded-Port: 99",
	"Forwarded: for=6.6.6.6;proto=https;host=evil", "X-Request-Id: mine", "Via: 1.1 other",
	"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate: a=b",
}

func TestUntrustedClientsCannotSpeakForOthers(t *testing.T) {
	o := record(t, origin.OK(""))
	r := begin(t, app(o.Address))
	r.do("GET / HTTP/1.1\r\nHost: test:8080\r\n" + lines(claims) + "\r\n")
	q := o.last(t)
	for name, want := range map[string][]string{
		"X-Forwarded-For": {"127.0.0.1"}, "X-Forwarded-Proto": {"http"}, "X-Forwarded-Host": {"test:8080"}, "X-Forwarded-Port": {"8080"},
		"Forwarded": {`for=127.0.0.1;host="test:8080";proto=http`}, "Via": {"1.1 other", "1.1 gateway"}, "tracestate": {"a=b"},
	} {
		if got := values(q.Head, name); !slices.Equal(got, want) {
			t.Errorf("the origin got %s %q, want %q", name, got, want)
		}
	}
	if id := values(q.Head, "X-Request-Id"); len(id) != 1 || id[0] == "mine" || len(id[0]) != 32 {
		t.Errorf("the origin got X-Request-Id %q", id)
	}
	// A trace is no claim: it goes on, with a span of this hop.
	if p := values(q.Head, "traceparent"); len(p) != 1 || !regexp.MustCompile(`^00-0af7651916cd43dd8448eb211c80319c-[0-9a-f]{16}-01$`).MatchString(p[0]) || strings.Contains(p[0], "b7ad6b7169203331") {
		t.Errorf("the origin got traceparent %q", p)
	}
}

func TestTrustedProxiesSpeakForClients(t *testing.T) {
	log, read := accessLog(t)
	o := record(t, origin.OK(""))
	r := begin(t, log, "[client]\ntrusted_proxies = [\"127.0.0.0/8\"]", app(o.Address))
	r.do("GET / HTTP/1.1\r\nHost: test\r\n" + lines(claims) + "\r\n")
	q := o.last(t)
	for name, want := range map[string][]string{
		"X-Forwarded-For": {"6.6.6.6, 7.7.7.7, 127.0.0.1"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"evil"}, "X-Forwarded-Port": {"99"},
		"Forwarded": {"for=6.6.6.6;proto=https;host=evil, for=127.0.0.1;host=test;proto=http"}, "X-Request-Id": {"mine"},
	} {
		if got := values(q.Head, name); !slices.Equal(got, want) {
			t.Errorf("the origin got %s %q, want %q", name, got, want)
		}
	}
	r.until("the line is written", func() bool { return len(read()) == 1 })
	line := read()[0]
	if line["client"] != "7.7.7.7" || line["request_id"] != "mine" || line["trace_id"] != "0af7651916cd43dd8448eb211c80319c" {
		t.Errorf("the log says %v", line)
	}
}

func TestTraceBeginsHereWithoutAValidOne(t *testing.T) {
	o := record(t, origin.OK(""))
	r := begin(t, app(o.Address))
	seen := map[string]bool{}
	for _, fields := range [][]string{nil, {"traceparent: 00-0-0-0", "tracestate: a=b"}, {"traceparent: 00-" + strings.Repeat("0", 32) + "-b7ad6b7169203331-01"}} {
		r.get("/", fields...)
		p := o.last(t).Field("traceparent")
		m := regexp.MustCompile(`^00-([0-9a-f]{32})-[0-9a-f]{16}-0[0-3]$`).FindStringSubmatch(p)
		if m == nil || seen[m[1]] || o.last(t).Field("tracestate") != "" {
			t.Fatalf("traceparent %q for %q", p, fields)
		}
		if b, _ := hex.DecodeString(m[1]); slices.Max(b) == 0 {
			t.Errorf("trace id %q", m[1])
		}
		seen[m[1]] = true
	}
}

func TestOriginsGetTheHostOfTheClientOrOfTheOption(t *testing.T) {
	o := record(t, origin.OK(""))
	r := begin(t, "[upstream.app]\nservers = [\""+o.Address+"\"]\n", "[upstream.named]\nservers = [\""+o.Address+"\"]\nhost = \"inner.example:81\"\n", `
[[route]]
path = "/named"
upstream = "named"

[[route]]
upstream = "app"
`)
	for _, c := range []struct{ request, host, forwarded string }{
		{"GET / HTTP/1.1\r\nHost: Test.Example:8080\r\n\r\n", "test.example:8080", "test.example:8080"},
		{"GET http://Test.Example/ HTTP/1.1\r\nHost: test.example\r\n\r\n", "test.example", "test.example"},
		{"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "[::1]:80", "[::1]:80"},
		{"GET / HTTP/1.0\r\n\r\n", "", ""},
		{"GET /named HTTP/1.1\r\nHost: test\r\n\r\n", "inner.example:81", "test"},
	} {
		if a := r.do(c.request); a.StatusCode != 200 {
			t.Errorf("%q: status %d", c.request, a.StatusCode)
			continue
		}
		q := o.last(t)
		if got := values(q.Head, "Host"); !slices.Equal(got, []string{c.host}) || q.Field("X-Forwarded-Host") != c.forwarded {
			t.Errorf("%q: the origin got\n%s", c.request, q.Head)
		}
		if !strings.HasPrefix(strings.SplitN(q.Head, "\r\n", 2)[1], "Host:") {
			t.Errorf("Host is not the first field:\n%s", q.Head)
		}
	}
}

func TestTargetsAreForwardedAsTheyWereMatched(t *testing.T) {
	o := record(t, origin.OK(""))
	r := begin(t, app(o.Address))
	for _, c := range []struct{ method, target, want string }{
		{"GET", "/", "/"},
		{"GET", "/?", "/?"},
		{"GET", "/?a", "/?a"},
		{"GET", "/?a=&b&=c&&", "/?a=&b&=c&&"},
		{"GET", "/a?b=c?d/../e", "/a?b=c?d/../e"},
		{"GET", "/a//b/", "/a//b/"},
		{"GET", "/%41%2f%e4/%2e/x", "/A%2F%E4/x"},
		{"GET", "/a;v=1,2/b:c@d", "/a;v=1,2/b:c@d"},
		{"GET", "/{a}|\"?{b}", "/%7Ba%7D%7C%22?%7Bb%7D"},
		{"OPTIONS", "*", "*"},
		{"OPTIONS", "/a", "/a"},
		{"OPTIONS", "http://test", "*"},
		{"PROPFIND", "/a", "/a"},
		{"get", "/a", "/a"},
		{"M-SEARCH", "/a", "/a"},
	} {
		if a := r.do(c.method + " " + c.target + " HTTP/1.1\r\nHost: test\r\n\r\n"); a.StatusCode != 200 {
			t.Errorf("%s %s: status %d", c.method, c.target, a.StatusCode)
			continue
		}
		if line, _, _ := strings.Cut(o.last(t).Head, "\r\n"); line != c.method+" "+c.want+" HTTP/1.1" {
			t.Errorf("%s %s reached the origin as %q", c.method, c.target, line)
		}
	}
}

func TestEncodedSlashesFollowTheOption(t *testing.T) {
	o := record(t, origin.OK(""))
	for option, want := range map[string]string{"keep": "/a%2Fb", "decode": "/a/b", "reject": ""} {
		r := begin(t, "[client]\nencoded_slashes = \""+option+"\"", app(o.Address))
		a := r.get("/a%2fb")
		if want == "" {
			a.refused(t, 400, "bad_request")
		} else if got := o.last(t).Target; got != want {
			t.Errorf("%s: the origin got %q, want %q", option, got, want)
		}
	}
}

func TestPrefixesAreTakenAndPut(t *testing.T) {
	o := record(t, origin.OK(""))
	r := begin(t, app(o.Address), `
[[route]]
path = "/api/*"
upstream = "app"
strip_prefix = "/api"

[[route]]
path = "/old/*"
upstream = "app"
strip_prefix = "/old"
add_prefix = "/new"

[[route]]
upstream = "app"
add_prefix = "/v2"
`)
	for target, want := range map[string]string{
		"/api/users?x": "/users?x", "/api": "/", "/api/": "/", "/api//evil/x": "/evil/x", "/apis": "/v2/apis", "/old/a": "/new/a", "/x?": "/v2/x?",
	} {
		if a := r.get(target); a.StatusCode != 200 {
			t.Errorf("%s: status %d", target, a.StatusCode)
		} else if got := o.last(t).Target; got != want {
			t.Errorf("%s reached the origin as %q, want %q", target, got, want)
		}
	}
}

func TestFieldsAreEditedAsTheRouteSays(t *testing.T) {
	o := record(t, "HTTP/1.1 200 OK\r\nServer: secret\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 0\r\n\r\n")
	edits := `
set_request_headers = { X-Set = "new", X-Request-Id = "fixed" }
add_request_headers = { X-Add = "more" }
remove_request_headers = ["Cookie", "X-Gone", "Via"]
set_response_headers = { X-A = "3", Strict-Transport-Security = "max-age=1" }
add_response_headers = { X-B = "4" }
remove_response_headers = ["Server"]
`
	r := begin(t, "[client]\nmax_header = \"2KiB\"\nmax_uri = \"1KiB\"", app(o.Address), "[upstream.down]\nservers = [\""+refusing(t)+"\"]\nretry = { attempts = 1 }\n", `
[[route]]
path = "/down"
upstream = "down"
`+edits+`
[[route]]
path = "/denied"
deny = ["127.0.0.0/8"]
upstream = "app"
`+edits+`
[[route]]
path = "/large"
max_body = "10B"
upstream = "app"
`+edits+`
[[route]]
path = "/fixed"
respond = { body = "hi" }
`+edits+`
[[route]]
path = "/moved"
redirect = { to = "/here" }
`+edits+`
[[route]]
upstream = "app"
`+edits)

	a := r.get("/", "X-Set: old", "X-Set: older", "X-Add: one", "Cookie: a=b", "X-Gone: 1", "Accept: */*")
	q := o.last(t)
	for name, want := range map[string][]string{
		"X-Set": {"new"}, "X-Add": {"one", "more"}, "Cookie": nil, "X-Gone": nil, "Via": nil, "X-Request-Id": {"fixed"}, "Accept": {"*/*"},
	} {
		if got := values(q.Head, name); !slices.Equal(got, want) {
			t.Errorf("the origin got %s %q, want %q", name, got, want)
		}
	}
	check := func(path string, a answer, status int) {
		if a.StatusCode != status || !slices.Equal(a.Header["X-A"], []string{"3"}) || !slices.Equal(a.Header["X-B"], []string{"4"}) ||
			a.Header.Get("Server") != "" || a.Header.Get("Strict-Transport-Security") != "max-age=1" {
			t.Errorf("%s: status %d, fields %v", path, a.StatusCode, a.Header)
		}
	}
	check("/", a, 200)
	check("/down", r.get("/down"), 502)
	check("/denied", r.get("/denied"), 403)
	check("/fixed", r.get("/fixed"), 200)
	check("/moved", r.get("/moved"), 308)
	check("/large", r.do("POST /large HTTP/1.1\r\nHost: test\r\nContent-Length: 11\r\n\r\nhello world"), 413)
	check("/large, chunked", r.do("POST /large HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n"), 413)
}

func TestOriginsBehindTLSAndUnixSockets(t *testing.T) {
	authority := origin.NewAuthority(t)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, authority.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	secure := origin.StartTLS(t, &tls.Config{Certificates: []tls.Certificate{authority.Issue("127.0.0.1")}}, origin.Reply(origin.OK("secure")))
	other := origin.StartTLS(t, &tls.Config{Certificates: []tls.Certificate{authority.Issue("other.example")}}, origin.Reply(origin.OK("other")))
	unix := origin.StartUnix(t, origin.Reply(origin.OK("unix")))
	plain := origin.Start(t, func(c *origin.Conn) {
		c.Write("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
		c.AwaitClose()
	})
	r := begin(t, fmt.Sprintf(`
[upstream.secure]
servers = ["https://%[1]s"]
tls = { ca = %[3]q }

[upstream.named]
servers = ["https://%[2]s"]
tls = { ca = %[3]q, server_name = "other.example" }

[upstream.misnamed]
servers = ["https://%[2]s"]
tls = { ca = %[3]q }

[upstream.unknown]
servers = ["https://%[1]s"]

[upstream.unverified]
servers = ["https://%[2]s"]
tls = { verify = false }

[upstream.plain]
servers = ["https://%[4]s"]
tls = { verify = false }

[upstream.unix]
servers = ["unix:%[5]s"]
`, secure.Address, other.Address, ca, plain.Address, unix.Address), routes("secure", "named", "misnamed", "unknown", "unverified", "plain", "unix"))
	for path, want := range map[string]string{"/secure": "secure", "/named": "other", "/unverified": "other", "/unix": "unix"} {
		for range 2 {
			if a := r.get(path); a.body != want {
				t.Errorf("%s is answered %d %q, want %q", path, a.StatusCode, a.body, want)
			}
		}
	}
	for _, path := range []string{"/misnamed", "/unknown", "/plain"} {
		r.get(path).refused(t, 502, "connect_failed")
	}
	r.counts(3, "gateway_upstream_requests_total", `result="tls_failed"`)
	if secure.Connections() != 2 || unix.Connections() != 1 {
		t.Errorf("%d connections by TLS, %d by Unix socket", secure.Connections(), unix.Connections())
	}
}

// routes are a route to each upstream of these names, by a path of its name.
func routes(names ...string) (text string) {
	for _, name := range names {
		text += "[[route]]\npath = \"/" + name + "\"\nupstream = \"" + name + "\"\n"
	}
	return text
}
