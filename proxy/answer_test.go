package proxy

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"gateway/internal/origin"
)

// lies answers GET /i, as the first request of a connection, with the answer
// of that number, and anything else with "next".
func lies(answers ...string) origin.Script {
	return func(c *origin.Conn) {
		for first := true; ; first = false {
			i, err := strconv.Atoi(c.Read().Target[1:])
			if err != nil || !first {
				c.Write(origin.OK("next"))
			} else {
				c.Write(answers[i])
			}
		}
	}
}

func TestSurplusBytesNeverReachTheNextClient(t *testing.T) {
	const evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
	large := origin.Filler(100 << 10)
	cases := []struct{ what, method, answer, body string }{
		{"behind Content-Length", "GET", origin.OK("hello") + evil, "hello"},
		{"behind an empty body", "GET", origin.OK("") + evil, ""},
		{"a single byte", "GET", origin.OK("hello") + "x", "hello"},
		{"behind the last chunk", "GET", origin.Chunked("hello") + evil, "hello"},
		{"body of a HEAD", "HEAD", origin.OK("hello"), ""},
		{"chunked body of a HEAD", "HEAD", origin.Chunked("hello"), ""},
		{"body of a 204", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", ""},
		{"body of a 204 without length", "GET", "HTTP/1.1 204 No Content\r\n\r\n" + evil, ""},
		{"body of a 304", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello", ""},
		{"large body and more", "GET", origin.OK(large) + evil, large},
	}
	var answers []string
	for _, c := range cases {
		answers = append(answers, c.answer)
	}
	o := origin.Start(t, lies(answers...))
	r := begin(t, app(o.Address))
	for i, c := range cases {
		before := o.Connections()
		client := r.dial()
		client.send(fmt.Sprintf("%s /%d HTTP/1.1\r\nHost: test\r\n\r\n", c.method, i))
		if a := client.receive(c.method); a.body != c.body || a.err != nil {
			t.Errorf("%s: body %.40q, %v", c.what, a.body, a.err)
		}
		// The same client and another one get answers of their own. (What comes
		// late is found by the look at the connection before its next use.)
		client.send("GET /next HTTP/1.1\r\nHost: test\r\n\r\n")
		if a := client.receive("GET"); a.body != "next" {
			t.Errorf("%s: the same client got %d %q", c.what, a.StatusCode, a.body)
		}
		if a := r.get("/next"); a.body != "next" {
			t.Errorf("%s: another client got %d %q", c.what, a.StatusCode, a.body)
		}
		if n := o.Connections() - before; n < 1 {
			t.Errorf("%s: the connection was used again", c.what)
		}
		r.until("the next case begins without connections", func() bool { o.CloseIdle(); return o.Open() == 0 })
	}
}

func TestUnaskedAnswersAreThrownAway(t *testing.T) {
	answered := make(chan struct{})
	o := origin.Start(t, func(c *origin.Conn) {
		for i := 0; ; i++ {
			c.Read()
			c.Write(origin.OK("asked"))
			if c.Number == 0 && i == 0 {
				c.Sleep(20 * time.Millisecond) // until the connection lies idle
				c.Write(origin.OK("unasked"))
				close(answered)
			}
		}
	})
	r := begin(t, app(o.Address))
	for i := range 3 {
		if a := r.get("/"); a.body != "asked" {
			t.Errorf("request %d is answered %q", i, a.body)
		}
		within(t, "the origin speaks without being asked", answered)
	}
}

func TestInvalidAnswersBecome502(t *testing.T) {
	cases := []struct{ what, answer string }{
		{"not HTTP", "SSH-2.0-OpenSSH_9.2\r\n"},
		{"garbage", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"},
		{"HTTP/2", "HTTP/2 200 OK\r\n\r\n"},
		{"HTTP/0.9", "<html>hello</html>"},
		{"status that is none", "HTTP/1.1 xyz OK\r\n\r\n"},
		{"status 000", "HTTP/1.1 000 Zero\r\nContent-Length: 0\r\n\r\n"},
		{"status 600", "HTTP/1.1 600 Six\r\nContent-Length: 0\r\n\r\n"},
		{"four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"},
		{"same length twice", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello"},
		{"list of lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello"},
		{"negative length", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhello"},
		{"length that is none", "HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello"},
		{"length and coding", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"},
		{"unknown coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"},
		{"identity", "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nhello"},
		{"coding in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		{"bare LF", "HTTP/1.1 200 OK\nContent-Length: 0\n\n"},
		{"bare LF after a field", "HTTP/1.1 200 OK\r\nX: 1\nContent-Length: 0\r\n\r\n"},
		{"folded field", "HTTP/1.1 200 OK\r\nX: 1\r\n 2\r\nContent-Length: 0\r\n\r\n"},
		{"space before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n"},
		{"NUL", "HTTP/1.1 200 OK\r\nX: \x00\r\nContent-Length: 0\r\n\r\n"},
		{"no colon", "HTTP/1.1 200 OK\r\nnonsense\r\n\r\n"},
		{"upgrade that nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"},
	}
	var answers []string
	for _, c := range cases {
		answers = append(answers, c.answer)
	}
	o := origin.Start(t, lies(answers...))
	r := begin(t, app(o.Address))
	client := r.dial()
	for i, c := range cases {
		for range 2 { // the client's connection goes on, the origin's does not
			client.send(fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: test\r\n\r\n", i))
			a := client.receive("GET")
			a.refused(t, 502, "origin_invalid")
			if a.Close || a.Header.Get("Proxy-Status") != "gateway; error=http_protocol_error" {
				t.Errorf("%s: %v", c.what, a.Header)
			}
			if t.Failed() {
				t.Fatalf("%s: %d %q", c.what, a.StatusCode, a.body)
			}
		}
	}
	n := 2 * len(cases)
	r.endedFor("origin_invalid", float64(n))
	r.counts(float64(n), "gateway_upstream_requests_total", `result="invalid"`)
	if o.Connections() != n || o.Requests() != n {
		t.Errorf("%d requests on %d connections, want %d", o.Requests(), o.Connections(), n)
	}
}

func TestTooLargeHeadsBecome502(t *testing.T) {
	o := origin.Start(t, func(c *origin.Conn) {
		if c.Read().Target == "/endless" {
			c.Write("HTTP/1.1 200 OK\r\n")
			for {
				c.Write("X: " + strings.Repeat("x", 1000) + "\r\n")
			}
		}
		c.Write("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 5000) + "\r\nContent-Length: 0\r\n\r\n")
	})
	r := begin(t, app(o.Address)+"max_response_header = \"4KiB\"\n")
	r.get("/").refused(t, 502, "origin_invalid")
	r.get("/endless").refused(t, 502, "origin_invalid")
}

func TestTruncatedSmallBodiesBecome502(t *testing.T) {
	o := origin.Start(t, func(c *origin.Conn) {
		q := c.Read()
		c.Write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
		if q.Target == "/reset" {
			c.Reset()
		}
		c.Cut()
	})
	r := begin(t, app(o.Address)+"retry = { attempts = 1 }\n")
	for _, target := range []string{"/cut", "/reset"} {
		a := r.get(target)
		a.refused(t, 502, "origin_truncated")
		if a.Header.Get("Proxy-Status") != "gateway; error=http_response_incomplete" {
			t.Errorf("%s: %v", target, a.Header)
		}
	}
	r.endedFor("origin_truncated", 2)
	r.counts(2, "gateway_upstream_requests_total", `result="reset"`)
}

// What has begun can only be cut: the client must see that it is not all.
func TestTruncatedBodiesAreCutForTheClientToo(t *testing.T) {
	cases := []struct{ what, answer string }{
		{"large length", "HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + origin.Filler(200<<10)},
		{"chunks without an end", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"},
		{"half a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nhello"},
		{"last chunk without blank line", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"},
		{"bad chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nx\r\n"},
		{"chunk longer than announced", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n"},
		{"chunks, many", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("5\r\nhello\r\n", 20000)},
		{"until a close that is a reset", "HTTP/1.1 200 OK\r\n\r\nhello"},
	}
	o := origin.Start(t, func(c *origin.Conn) {
		i, _ := strconv.Atoi(c.Read().Target[1:])
		c.Write(cases[i].answer)
		c.Sleep(20 * time.Millisecond)
		if strings.HasPrefix(cases[i].what, "until") {
			c.Reset()
		}
	})
	r := begin(t, app(o.Address))
	for i, c := range cases {
		for _, version := range []string{"1.1", "1.0"} {
			client := r.dial()
			client.send(fmt.Sprintf("GET /%d HTTP/%s\r\nHost: test\r\n\r\n", i, version))
			if _, err := client.rest(); err == nil {
				t.Errorf("%s: to HTTP/%s it looks complete", c.what, version)
			}
		}
	}
	n := float64(2 * len(cases))
	r.endedFor("origin_truncated", n)
	r.counts(n, "gateway_upstream_requests_total", `result="reset"`)
	r.counts(0, "gateway_upstream_in_flight")
}

func TestTruncationIsSeenByClientsOfEachFraming(t *testing.T) {
	o := origin.Start(t, func(c *origin.Conn) {
		c.Read()
		c.Write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
		c.Sleep(20 * time.Millisecond)
		c.Reset()
	})
	r := begin(t, app(o.Address))
	if a := r.get("/"); a.err == nil || a.body != "hello" {
		t.Errorf("chunked: %q, %v", a.body, a.err)
	}
	if a := r.do("GET / HTTP/1.0\r\n\r\n"); a.err == nil || a.body != "hello" {
		t.Errorf("until close: %q, %v", a.body, a.err)
	}
}

func TestAnswersWithoutBody(t *testing.T) {
	cases := []struct{ method, answer, want string }{
		{"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 123456789\r\n\r\n", "HTTP/1.1 200 OK\r\nDate: -\r\nContent-Length: 123456789\r\n\r\n"},
		{"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nDate: -\r\nContent-Length: 0\r\n\r\n"},
		{"HEAD", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nDate: -\r\n\r\n"},
		{"HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 200 OK\r\nDate: -\r\n\r\n"},
		{"GET", "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 204 No Content\r\nDate: -\r\n\r\n"},
		{"GET", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 204 No Content\r\nDate: -\r\n\r\n"},
		{"GET", "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nDate: -\r\n\r\n"},
		{"GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nDate: -\r\nContent-Length: 77\r\n\r\n"},
		{"GET", "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 205 Reset Content\r\nDate: -\r\nContent-Length: 0\r\n\r\n"},
		{"DELETE", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nDate: -\r\nContent-Length: 0\r\n\r\n"},
	}
	o := origin.Start(t, func(c *origin.Conn) {
		for {
			i, _ := strconv.Atoi(c.Read().Target[1:])
			c.Write(cases[i].answer)
		}
	})
	r := begin(t, app(o.Address))
	client := r.dial()
	for i, c := range cases {
		for range 2 {
			client.send(fmt.Sprintf("%s /%d HTTP/1.1\r\nHost: test\r\n\r\n", c.method, i))
			got := client.head()
			got = strings.Replace(got, "Date: "+field(got, "Date"), "Date: -", 1)
			if got != c.want {
				t.Errorf("%s %q is relayed as\n%s", c.method, c.answer, got)
			}
		}
	}
	// A 204 that announces a body may be followed by one.
	if n := o.Connections(); n > 2 {
		t.Errorf("%d connections", n)
	}
	r.counts(0, "gateway_http_response_bytes_total")
}

func TestDateIsKeptOrAdded(t *testing.T) {
	o := origin.Start(t, lies("HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n"))
	r := begin(t, app(o.Address))
	if d := r.get("/0").Header["Date"]; len(d) != 1 || d[0] != "Thu, 01 Jan 1970 00:00:00 GMT" {
		t.Errorf("Date %q", d)
	}
	d := r.get("/next").Header.Get("Date")
	if at, err := time.Parse("Mon, 02 Jan 2006 15:04:05 GMT", d); err != nil || time.Since(at).Abs() > 5*time.Second {
		t.Errorf("Date %q", d)
	}
}

func TestClientsOfHTTP10(t *testing.T) {
	bodies := map[string]string{
		"length":  origin.OK("hello"),
		"chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
		"close":   "HTTP/1.1 200 OK\r\n\r\nhello",
		"large":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("5\r\nhello\r\n", 20000) + "0\r\n\r\n",
	}
	o := origin.Start(t, func(c *origin.Conn) {
		c.Write(bodies[c.Read().Target[1:]])
	})
	r := begin(t, app(o.Address))
	for kind := range bodies {
		want := "hello"
		if kind == "large" {
			want = strings.Repeat("hello", 20000)
		}
		c := r.dial()
		c.send("GET /" + kind + " HTTP/1.0\r\nHost: test\r\n\r\n")
		a := c.receive("GET")
		if a.StatusCode != 200 || a.body != want || a.err != nil || !a.Close || len(a.TransferEncoding) > 0 || len(a.Trailer) > 0 {
			t.Errorf("%s: %d %.40q %v, close %v, coding %v", kind, a.StatusCode, a.body, a.err, a.Close, a.TransferEncoding)
		}
		if !c.closed() {
			t.Errorf("%s: the connection stays", kind)
		}
		// keep-alive works where the client can find the end.
		c = r.dial()
		c.send("GET /" + kind + " HTTP/1.0\r\nHost: test\r\nConnection: keep-alive\r\n\r\n")
		a = c.receive("GET")
		if a.body != want || a.err != nil {
			t.Errorf("%s, keep-alive: %.40q %v", kind, a.body, a.err)
		}
		if a.ContentLength < 0 {
			if !c.closed() {
				t.Errorf("%s, keep-alive: the connection stays", kind)
			}
			continue
		}
		if a.Header.Get("Connection") != "keep-alive" {
			t.Errorf("%s, keep-alive: %v", kind, a.Header)
		}
		c.send("GET /" + kind + " HTTP/1.0\r\nHost: test\r\n\r\n")
		if a := c.receive("GET"); a.body != want || !c.closed() {
			t.Errorf("%s, second request: %.40q", kind, a.body)
		}
	}
}

func TestOriginsOfHTTP10(t *testing.T) {
	o := origin.Start(t, func(c *origin.Conn) {
		if c.Read().Target == "/length" {
			c.Write("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n")
		} else {
			c.Write("HTTP/1.0 200 OK\r\n\r\n")
		}
		c.Write("hello")
	})
	r := begin(t, app(o.Address))
	for _, path := range []string{"/length", "/close", "/length", "/close"} {
		if a := r.get(path); a.body != "hello" || a.err != nil || a.Proto != "HTTP/1.1" || a.Close {
			t.Errorf("%s: %q %v %s close %v", path, a.body, a.err, a.Proto, a.Close)
		}
	}
}
