package proxy

import (
	"strings"
	"testing"

	"gateway/internal/origin"
)

// smuggled follows requests that are refused: it must never be interpreted.
const smuggled = "GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n"

func TestMalformedRequestsAreRefusedAndEndTheConnection(t *testing.T) {
	o := record(t, origin.OK("hello"))
	r := begin(t, "[client]\nmax_header = \"4KiB\"\nmax_uri = \"1KiB\"\nmax_fields = 20\n", app(o.Address))
	get := func(fields ...string) string {
		return "GET / HTTP/1.1\r\nHost: test\r\n" + lines(fields) + "\r\n"
	}
	post := func(fields ...string) string {
		return "POST / HTTP/1.1\r\nHost: test\r\n" + lines(fields) + "\r\n"
	}
	line := func(line string) string { return line + "\r\nHost: test\r\n\r\n" }
	host := func(value string) string { return "GET / HTTP/1.1\r\nHost: " + value + "\r\n\r\n" }

	count := 0.0
	for _, c := range []struct {
		what    string
		request string
		status  int
	}{
		// Line ends and bytes that do not belong into a head.
		{"bare LF after the request line", "GET / HTTP/1.1\nHost: test\r\n\r\n", 400},
		{"bare LF after a field", "GET / HTTP/1.1\r\nHost: test\nX: 1\r\n\r\n", 400},
		{"bare LF as blank line", "GET / HTTP/1.1\r\nHost: test\r\n\n", 400},
		{"bare LF everywhere", "GET / HTTP/1.1\nHost: test\n\n", 400},
		{"bare CR in a value", get("X: a\rb"), 400},
		{"bare CR before a line", get("X: a", "\rContent-Length: 5"), 400},
		{"two CR at the end of a line", "GET / HTTP/1.1\r\nHost: test\r\r\n\r\n", 400},
		{"bare CR in the request line", "GET /\r HTTP/1.1\r\nHost: test\r\n\r\n", 400},
		{"NUL in a value", get("X: a\x00b"), 400},
		{"NUL in a name", get("X\x00: a"), 400},
		{"control byte in a value", get("X: a\x01b"), 400},
		{"DEL in a value", get("X: a\x7fb"), 400},
		{"folded field", get("X: a", " b"), 400},
		{"field folded with a tab", get("X: a", "\tb"), 400},
		{"fold behind the request line", "GET / HTTP/1.1\r\n X: 1\r\nHost: test\r\n\r\n", 400},
		{"space before the colon", get("X : 1"), 400},
		{"tab before the colon", get("Transfer-Encoding\t: chunked"), 400},
		{"space in a name", get("X Y: 1"), 400},
		{"no name", get(": 1"), 400},
		{"no colon", get("X"), 400},
		{"name that is no token", get("X(): 1"), 400},
		{"name outside of ASCII", get("X\xe9: 1"), 400},

		// Framing.
		{"length and coding", post("Content-Length: 5", "Transfer-Encoding: chunked"), 400},
		{"coding and length", post("Transfer-Encoding: chunked", "Content-Length: 5"), 400},
		{"other coding first", post("Transfer-Encoding: gzip, chunked"), 501},
		{"other coding last", post("Transfer-Encoding: chunked, gzip"), 501},
		{"identity", post("Transfer-Encoding: identity"), 501},
		{"chunked twice", post("Transfer-Encoding: chunked, chunked"), 501},
		{"two coding fields", post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), 501},
		{"two coding fields, one unknown", post("Transfer-Encoding: chunked", "Transfer-Encoding: cow"), 501},
		{"almost chunked", post("Transfer-Encoding: xchunked"), 501},
		{"quoted chunked", post(`Transfer-Encoding: "chunked"`), 501},
		{"chunked with parameter", post("Transfer-Encoding: chunked;q=1"), 501},
		{"empty coding", post("Transfer-Encoding:"), 501},
		{"vertical tab before chunked", post("Transfer-Encoding: \x0bchunked"), 400},
		{"coding in HTTP/1.0", "POST / HTTP/1.0\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
		{"same length twice", post("Content-Length: 5", "Content-Length: 5"), 400},
		{"two lengths", post("Content-Length: 5", "Content-Length: 6"), 400},
		{"list of lengths", post("Content-Length: 5, 5"), 400},
		{"signed length", post("Content-Length: +5"), 400},
		{"negative length", post("Content-Length: -5"), 400},
		{"hexadecimal length", post("Content-Length: 0x5"), 400},
		{"length with a point", post("Content-Length: 5.0"), 400},
		{"length with space inside", post("Content-Length: 5 5"), 400},
		{"empty length", post("Content-Length:"), 400},
		{"length beyond 64 bits", post("Content-Length: 18446744073709551621"), 400},

		// Who is asked.
		{"no Host", "GET / HTTP/1.1\r\n\r\n", 400},
		{"two Hosts", get("Host: test"), 400},
		{"two Hosts that differ", get("Host: other"), 400},
		{"empty Host", host(""), 400},
		{"Host with space", host("a b"), 400},
		{"list of Hosts", host("a, b"), 400},
		{"Host with user", host("u@test"), 400},
		{"Host with user and password", host("u:p@test"), 400},
		{"Host with path", host("test/x"), 400},
		{"Host with port that is none", host("test:http"), 400},
		{"Host with port beyond 65535", host("test:99999"), 400},
		{"Host with open bracket", host("[::1"), 400},
		{"authority against Host", "GET http://other/ HTTP/1.1\r\nHost: test\r\n\r\n", 400},
		{"authority with user", "GET http://u:p@test/ HTTP/1.1\r\nHost: test\r\n\r\n", 400},
		{"authority without Host", "GET http://test/ HTTP/1.1\r\n\r\n", 400},
		{"absolute form with another scheme", "GET ftp://test/ HTTP/1.1\r\nHost: test\r\n\r\n", 400},

		// Request line.
		{"target that looks like an authority", line("GET //evil/x HTTP/1.1"), 400},
		{"target that becomes one", line("GET /.//evil HTTP/1.1"), 400},
		{"backslashes", line(`GET /\evil HTTP/1.1`), 400},
		{"fragment", line("GET /a#b HTTP/1.1"), 400},
		{"above the root", line("GET /../a HTTP/1.1"), 400},
		{"encoded, above the root", line("GET /%2e%2e/a HTTP/1.1"), 400},
		{"broken percent-encoding", line("GET /%zz HTTP/1.1"), 400},
		{"encoded NUL", line("GET /%00 HTTP/1.1"), 400},
		{"* for GET", line("GET * HTTP/1.1"), 400},
		{"no slash", line("GET a HTTP/1.1"), 400},
		{"no target", line("GET HTTP/1.1"), 400},
		{"space in the target", line("GET /a b HTTP/1.1"), 400},
		{"two spaces", line("GET  / HTTP/1.1"), 400},
		{"space at the end", line("GET / HTTP/1.1 "), 400},
		{"space before the method", line(" GET / HTTP/1.1"), 400},
		{"method that is no token", line("G@T / HTTP/1.1"), 400},
		{"HTTP/0.9", "GET /\r\n\r\n", 400},
		{"HTTP/1.2", line("GET / HTTP/1.2"), 505},
		{"HTTP/2.0", line("GET / HTTP/2.0"), 505},
		{"HTTP/3", line("GET / HTTP/3"), 505},
		{"preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
		{"version in lower case", line("GET / http/1.1"), 400},
		{"version that is none", line("GET / HTTP/1.1x"), 400},
		{"CONNECT", line("CONNECT test:443 HTTP/1.1"), 501},
		{"TRACE", line("TRACE / HTTP/1.1"), 501},

		// What is asked for.
		{"h2c", get("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"), 400},
		{"h2c that Connection does not name", get("Upgrade: h2c"), 400},
		{"h2c among others", get("Connection: Upgrade", "Upgrade: websocket, h2c"), 400},
		{"other expectation", post("Content-Length: 5", "Expect: 200-ok"), 417},

		// Sizes.
		{"long target", line("GET /" + strings.Repeat("a", 2000) + " HTTP/1.1"), 414},
		{"long head", get("X: " + strings.Repeat("a", 5000)), 431},
		{"many fields", get(strings.Split(strings.Repeat("X: 1\n", 30), "\n")[:30]...), 431},
	} {
		count++
		c1 := r.dial()
		c1.send(c.request + smuggled)
		method, _, _ := strings.Cut(c.request, " ")
		a := c1.receive(method)
		if a.StatusCode != c.status || !a.Close || a.err != nil {
			t.Errorf("%s: status %d, close %v, %v; want %d", c.what, a.StatusCode, a.Close, a.err, c.status)
		}
		if rest, err := c1.rest(); rest != "" || err != nil {
			t.Errorf("%s: after the answer came %q, %v", c.what, rest, err)
		}
		c1.Close()
	}
	r.endedFor("bad_request", count)
	r.counts(count, "gateway_http_requests_total", `route="none"`)
	if n := o.Requests(); n != 0 || o.Connections() != 0 {
		t.Errorf("the origin saw %d requests on %d connections:\n%s", n, o.Connections(), o.last(t).Head)
	}
}

func TestARefusalSaysWhatIsWrong(t *testing.T) {
	r := begin(t, app(refusing(t)))
	a := r.do("GET / HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n")
	p := a.refused(t, 400, "bad_request")
	if p.Detail != "more than one Content-Length field" || p.RequestID == "" {
		t.Errorf("the problem is %+v", p)
	}
	if got := a.Header.Get("Proxy-Status"); got != `gateway; error=http_request_error; details="more than one Content-Length field"` {
		t.Errorf("Proxy-Status %q", got)
	}
}

func TestRequestsBeforeAMalformedOneAreAnswered(t *testing.T) {
	o := record(t, origin.OK("hello"))
	r := begin(t, app(o.Address))
	c := r.dial()
	c.send("GET /1 HTTP/1.1\r\nHost: test\r\n\r\n" +
		"POST /2 HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nbody" +
		"GET /3 HTTP/1.1\nHost: test\r\n\r\n" + smuggled)
	for i, want := range []int{200, 200, 400} {
		if a := c.receive("GET"); a.StatusCode != want || a.Close != (want == 400) {
			t.Errorf("answer %d: status %d, close %v, want %d", i+1, a.StatusCode, a.Close, want)
		}
	}
	if rest, err := c.rest(); rest != "" || err != nil {
		t.Errorf("after the refusal came %q, %v", rest, err)
	}
	if n := o.Requests(); n != 2 {
		t.Errorf("the origin got %d requests, want 2", n)
	}
	if last := o.last(t); last.Target != "/2" || last.Body != "body" {
		t.Errorf("the origin got %q with body %q", last.Target, last.Body)
	}
}

func TestBodyIsNeverARequest(t *testing.T) {
	o := record(t, origin.OK("hello"))
	r := begin(t, app(o.Address), `
[[route]]
path = "/refused"
respond = { status = 403 }

[[route]]
upstream = "app"
`)
	c := r.dial()
	// A body that nobody reads, one behind a GET, and one behind a HEAD.
	for _, request := range []string{
		"POST /refused HTTP/1.1\r\nHost: test\r\nContent-Length: 38\r\n\r\n" + smuggled[:38],
		"POST /refused HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n26\r\n" + smuggled[:38] + "\r\n0\r\n\r\n",
		"GET /get HTTP/1.1\r\nHost: test\r\nContent-Length: 38\r\n\r\n" + smuggled[:38],
	} {
		c.send(request)
		a := c.receive("POST")
		if a.Close {
			c = r.dial()
		}
	}
	c.send("GET /end HTTP/1.1\r\nHost: test\r\n\r\n")
	if a := c.receive("GET"); a.StatusCode != 200 {
		t.Errorf("status %d", a.StatusCode)
	}
	for _, q := range o.all() {
		if strings.Contains(q.Target, "smuggled") {
			t.Errorf("the origin got %q", q.Head)
		}
	}
	if n := len(o.all()); n != 2 {
		t.Errorf("the origin got %d requests, want 2", n)
	}
}

func TestRequestLineAndFramingAreWrittenAnew(t *testing.T) {
	o := record(t, origin.OK("hello"))
	r := begin(t, app(o.Address))
	for _, c := range []struct{ request, line, length, coding, body string }{
		{"GET http://TEST./%7ea/../b?%zz HTTP/1.1\r\nHost: test\r\n\r\n", "GET /b?%zz HTTP/1.1", "", "", ""},
		{"POST /a HTTP/1.0\r\nHost: test\r\ncontent-length: 0005\r\n\r\nhello", "POST /a HTTP/1.1", "5", "", "hello"},
		{"POST /a HTTP/1.1\r\nHost: test\r\n\r\n", "POST /a HTTP/1.1", "0", "", ""},
		{"GET /a HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n", "GET /a HTTP/1.1", "0", "", ""},
		{"POST /a HTTP/1.1\r\nHost: test\r\nTRANSFER-encoding: Chunked\r\n\r\n" +
			"2;x=\"y;z\";evil\r\nhe\r\n3;a\r\nllo\r\n000;end\r\n\r\n", "POST /a HTTP/1.1", "", "chunked", "hello"},
		{"POST /a HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n" +
			"05\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", "POST /a HTTP/1.1", "", "chunked", "hello"},
	} {
		if a := r.do(c.request); a.StatusCode != 200 {
			t.Errorf("%q: status %d: %s", c.request, a.StatusCode, a.body)
			continue
		}
		q := o.last(t)
		line, _, _ := strings.Cut(q.Head, "\r\n")
		if line != c.line || q.Field("Content-Length") != c.length || q.Field("Transfer-Encoding") != c.coding || q.Body != c.body {
			t.Errorf("%q reached the origin as\n%s%q", c.request, q.Head, q.Body)
		}
		if strings.Count(q.Head, "ength:")+strings.Count(strings.ToLower(q.Head), "coding:") > 1 {
			t.Errorf("the origin got two framings:\n%s", q.Head)
		}
	}
}

// What the chunked coding allows beside the data must not reach the origin,
// byte for byte.
func TestChunkExtensionsDoNotTravel(t *testing.T) {
	got := make(chan string, 1)
	o := origin.Start(t, func(c *origin.Conn) {
		c.ReadHead()
		var body strings.Builder
		for !strings.HasSuffix(body.String(), "0\r\n\r\n") {
			body.WriteByte(c.Byte())
		}
		got <- body.String()
		c.Write(origin.OK(""))
	})
	r := begin(t, app(o.Address))
	r.do("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n005;x=y\r\nhello\r\n00;z\r\n\r\n")
	if body := <-got; body != "5\r\nhello\r\n0\r\n\r\n" {
		t.Errorf("the origin got %q", body)
	}
}

func TestMalformedChunksEndTheUploadUnfinished(t *testing.T) {
	o := record(t, origin.OK("hello"))
	r := begin(t, app(o.Address))
	count := 0.0
	for _, chunks := range []string{
		"x\r\nhello\r\n0\r\n\r\n",
		"-5\r\nhello\r\n0\r\n\r\n",
		"0x5\r\nhello\r\n0\r\n\r\n",
		"+5\r\nhello\r\n0\r\n\r\n",
		"\r\nhello\r\n0\r\n\r\n",
		"5\nhello\r\n0\r\n\r\n",
		"5\r\nhello0\r\n\r\n",
		"5\r\nhello!\r\n0\r\n\r\n",
		"5\r\nhello\n0\r\n\r\n",
		"5 5\r\nhello\r\n0\r\n\r\n",
		"5;a=\"\x00\"\r\nhello\r\n0\r\n\r\n",
		"5;a\rb\r\nhello\r\n0\r\n\r\n",
		"10000000000000005\r\nhello\r\n0\r\n\r\n",
		"5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n",
		"5\r\nhello\r\n0\r\nX: a\n\r\n",
		"5\r\nhello\r\n0\r\nX : a\r\n\r\n",
		"5\r\nhello\r\n0\r\n X: a\r\n\r\n",
	} {
		count++
		c := r.dial()
		c.send("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + smuggled)
		if a := c.receive("POST"); a.StatusCode != 400 || !a.Close {
			t.Errorf("%q: status %d, close %v", chunks, a.StatusCode, a.Close)
		}
		if rest, err := c.rest(); rest != "" || err != nil {
			t.Errorf("%q: after the answer came %q, %v", chunks, rest, err)
		}
		c.Close()
	}
	r.endedFor("bad_body", count)
	if all := o.all(); len(all) != 0 {
		t.Errorf("the origin got a complete request: %q %q", all[0].Head, all[0].Body)
	}
}
