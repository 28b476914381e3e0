package proxy

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"gateway/internal/origin"
)

func TestLimitRefusesWhatExceedsIt(t *testing.T) {
	o := origin.Start(t, origin.Echo)
	r := start(t, `
[upstream.app]
servers = ["%s"]

[limit.api]
rate  = "1/m"
burst = 2
max_keys = 1000
key   = "header:X-Key"

[[route]]
name     = "app"
upstream = "app"
limit    = "api"
`, o.Address)
	for i, want := range []int{200, 200, 429, 429} {
		a := r.get("/", "X-Key: one")
		if a.StatusCode != want {
			t.Fatalf("request %d: status %d, want %d", i, a.StatusCode, want)
		}
		if want != 429 {
			continue
		}
		if wait, err := strconv.Atoi(a.Header.Get("Retry-After")); err != nil || wait < 1 || wait > 60 {
			t.Errorf("Retry-After is %q", a.Header.Get("Retry-After"))
		}
		if got := a.Header.Get("RateLimit-Policy"); !strings.Contains(got, `"api";q=1;w=60`) {
			t.Errorf("RateLimit-Policy is %q", got)
		}
		if !strings.Contains(a.body, `"violated-policies":["api"]`) {
			t.Errorf("the problem document does not name the policy: %s", a.body)
		}
	}
	if a := r.get("/", "X-Key: two"); a.StatusCode != 200 {
		t.Errorf("another key: status %d", a.StatusCode)
	}
	if n := o.Requests(); n != 3 {
		t.Errorf("the origin saw %d requests, want 3", n)
	}
	for _, c := range []struct {
		want  float64
		parts []string
	}{
		{2, []string{"gateway_limit_decisions_total", `policy="api"`, `decision="denied"`}},
		{3, []string{"gateway_limit_decisions_total", `policy="api"`, `decision="allowed"`}},
		{2, []string{"gateway_ended_total", `reason="rate_limited"`}},
		{2, []string{"gateway_http_requests_total", `status="429"`}},
	} {
		r.counts(c.want, c.parts...)
	}
}

func TestReloadKeepsWhatALimitHasCounted(t *testing.T) {
	o := origin.Start(t, origin.Reply(origin.OK("ok")))
	const text = `
[upstream.app]
servers = ["%s"]
[limit.api]
rate  = "1/h"
burst = 1
[[route]]
name     = "%s"
upstream = "app"
limit    = "api"
`
	r := start(t, text, o.Address, "a")
	if a := r.get("/"); a.StatusCode != 200 {
		t.Fatalf("status %d", a.StatusCode)
	}
	r.configure(text, o.Address, "b")
	if _, err := r.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a := r.get("/"); a.StatusCode != 429 {
		t.Errorf("after a reload: status %d, want 429", a.StatusCode)
	}
}

// TestWhoIsLimitedWhateverTheySay asks as clients that X-Forwarded-For is to
// make others of.
func TestWhoIsLimitedWhateverTheySay(t *testing.T) {
	text := `
[client]
trusted_proxies = [%s]
[limit.api]
rate  = "1/h"
burst = 1
[[route]]
limit = "api"
respond = { status = 204 }
`
	r := start(t, text, `"10.0.0.0/8"`)
	f := func(want int, fields ...string) {
		t.Helper()
		if a := r.get("/", fields...); a.StatusCode != want {
			t.Errorf("%q: status %d, want %d", fields, a.StatusCode, want)
		}
	}
	// Nobody is trusted: the peer counts, whatever it says.
	f(204)
	for i := range 5 {
		f(429, fmt.Sprintf("X-Forwarded-For: 192.0.2.%d", i))
		f(429, fmt.Sprintf("Forwarded: for=192.0.2.%d", i), "X-Real-IP: 192.0.2.9", "X-Forwarded-For: ::1")
	}
	// The peer is trusted: the right-most address that is not trusted counts.
	r = start(t, text, `"127.0.0.0/8", "10.0.0.0/8"`)
	f(204, "X-Forwarded-For: 192.0.2.1")
	f(429, "X-Forwarded-For: 192.0.2.1")
	f(429, "X-Forwarded-For: 198.51.100.7, 192.0.2.1")
	f(429, "X-Forwarded-For: 192.0.2.1, 10.1.2.3, 127.0.0.9")
	f(429, "X-Forwarded-For: 198.51.100.7", "X-Forwarded-For: 192.0.2.1")
	f(429, "X-Forwarded-For: ::ffff:192.0.2.1") // is that IPv4 address
	f(429, "X-Forwarded-For: [::ffff:c000:201]:4711, 10.0.0.1")
	f(204, "X-Forwarded-For: 192.0.2.2")
	f(204, "X-Forwarded-For: 192.0.2.1, 192.0.2.3")
	f(429, "X-Forwarded-For: 192.0.2.4, 192.0.2.3")
	// Of an IPv6 address the first 64 bits count.
	f(204, "X-Forwarded-For: 2001:db8:0:1::1")
	f(429, "X-Forwarded-For: 2001:db8:0:1:ffff::9")
	f(204, "X-Forwarded-For: 2001:db8:0:2::1")
	f(429, "X-Forwarded-For: [2001:db8:0:2::5]:80, ::ffff:10.0.0.1")
	// What can't be read ends the search at the proxy that wrote it.
	f(204, "X-Forwarded-For: 192.0.2.99, nonsense")
	f(429, "X-Forwarded-For: 192.0.2.98, nonsense")
}

// TestEachRouteRefusesInItsOwnWay looks at the refusals, and at what the log
// and the metrics know of them.
func TestEachRouteRefusesInItsOwnWay(t *testing.T) {
	page := filepath.Join(t.TempDir(), "later.html")
	if err := os.WriteFile(page, []byte("<h1>Later</h1>"), 0o600); err != nil {
		t.Fatal(err)
	}
	option, read := accessLog(t)
	text := option + "\n"
	for _, p := range []struct{ name, more string }{
		{"problem", ""}, {"json", `body = "json"`}, {"text", `body = "text"`}, {"page", `page = "` + page + `"`},
		{"old", `headers = "x-ratelimit"`}, {"silent", `headers = "none"`},
	} {
		text += fmt.Sprintf("[limit.%s]\nrate = \"2/h\"\nburst = 1\nannounce = true\nmax_keys = 1000\n%s\n[[route]]\nname = \"r-%[1]s\"\npath = \"/%[1]s\"\nlimit = \"%[1]s\"\nrespond = { status = 204 }\n", p.name, p.more)
	}
	text += "[[route]]\nname = \"own\"\npath = \"/own\"\nlimit = { rate = \"2/h\", burst = 1, max_keys = 1000, body = \"text\" }\nrespond = { status = 204 }\n"
	r := start(t, "%s", text)
	f := func(path, kind, body string, fields ...string) {
		t.Helper()
		first, a := r.get("/"+path), r.get("/"+path)
		if first.StatusCode != 204 || a.StatusCode != 429 || a.Header.Get("Retry-After") != "1800" || a.Header.Get("Content-Type") != kind ||
			!strings.Contains(a.body, body) || a.ContentLength != int64(len(a.body)) {
			t.Errorf("/%s: %d, then %d: %v\n%s", path, first.StatusCode, a.StatusCode, a.Header, a.body)
		}
		told := 0
		for i := 0; i < len(fields); i += 3 {
			if got := first.Header.Get(fields[i]); got != fields[i+1] {
				t.Errorf("/%s, allowed: %s is %q, want %q", path, fields[i], got, fields[i+1])
			}
			if got := a.Header.Get(fields[i]); got != fields[i+2] {
				t.Errorf("/%s, refused: %s is %q, want %q", path, fields[i], got, fields[i+2])
			}
			told++
		}
		for name := range a.Header {
			if strings.Contains(strings.ToLower(name), "ratelimit") {
				told--
			}
		}
		if told != 0 {
			t.Errorf("/%s: fields %v", path, a.Header)
		}
	}
	draft := func(name string) []string {
		return []string{"RateLimit", `"` + name + `";r=0;t=1800`, `"` + name + `";r=0;t=1800`, "RateLimit-Policy", `"` + name + `";q=2;w=3600`, `"` + name + `";q=2;w=3600`}
	}
	f("problem", "application/problem+json", `"violated-policies":["problem"]`, draft("problem")...)
	f("json", "application/json", `"violated-policies":["json"]`, draft("json")...)
	f("text", "text/plain; charset=utf-8", "Too many requests (limit text). Try again in 1800 s.\n", draft("text")...)
	f("page", "text/html; charset=utf-8", "<h1>Later</h1>", draft("page")...)
	f("old", "application/problem+json", `["old"]`, "X-Ratelimit-Limit", "2", "2", "X-Ratelimit-Remaining", "0", "0", "X-Ratelimit-Reset", "1800", "1800")
	f("silent", "application/problem+json", `["silent"]`)
	if a, b := r.get("/own"), r.get("/own"); a.StatusCode != 204 || b.StatusCode != 429 || a.Header.Get("RateLimit") != "" ||
		b.body != "Too many requests (limit own). Try again in 1800 s.\n" {
		t.Errorf("a limit in the route: %d, then %d: %s", a.StatusCode, b.StatusCode, b.body)
	}

	names := []string{"problem", "json", "text", "page", "old", "silent", "own"}
	r.until("all lines are written", func() bool { return len(read()) >= 2*len(names) })
	refused := map[string]string{}
	for _, line := range read() {
		path := strings.TrimPrefix(line["path"].(string), "/")
		switch policy, _ := line["limit"].(string); {
		case line["status"] == 429.0 && line["reason"] == "rate_limited":
			refused[path] = policy
		case policy != "":
			t.Errorf("an allowed request was refused by %q: %v", policy, line)
		}
	}
	for _, name := range names {
		if refused[name] != name {
			t.Errorf("/%s: refused by %q, says the log", name, refused[name])
		}
		for _, decision := range []string{"allowed", "denied"} {
			if n := r.metric("gateway_limit_decisions_total", `policy="`+name+`"`, `decision="`+decision+`"`, `store="local"`); n != 1 {
				t.Errorf("%s: %v %s", name, n, decision)
			}
		}
		if n := r.metric("gateway_limit_keys", `policy="`+name+`"`); n != 1 {
			t.Errorf("%s: %v keys", name, n)
		}
	}
}

// TestPlacesComeBackWhenRequestsEnd limits what is under way at the same time:
// a place is free again after an answer, and after a client that left.
func TestPlacesComeBackWhenRequestsEnd(t *testing.T) {
	release := make(chan struct{})
	o := origin.Start(t, func(c *origin.Conn) {
		for {
			if c.Read().Target == "/wait" {
				c.Wait(release)
			}
			c.Write(origin.OK("ok"))
		}
	})
	r := begin(t, app(o.Address), `
[limit.places]
concurrency = 2
max_keys = 1000
key = "header:X-Key"
[[route]]
upstream = "app"
limit = "places"
`)
	held := func(n float64) {
		t.Helper()
		r.until(fmt.Sprint(n, " requests are under way"), func() bool { return r.metric("gateway_http_in_flight") == n })
	}
	const request = "GET /wait HTTP/1.1\r\nHost: test\r\nX-Key: a\r\n\r\n"
	first, second := r.dial(), r.dial()
	first.send(request)
	second.send(request)
	held(2)
	if a := r.get("/", "X-Key: a"); a.StatusCode != 429 || a.Header.Get("Retry-After") != "1" || a.Header.Get("RateLimit-Policy") != `"places";q=2;qu="concurrent-requests"` {
		t.Errorf("a third request: status %d, %v", a.StatusCode, a.Header)
	}
	if a := r.get("/", "X-Key: b"); a.StatusCode != 200 {
		t.Errorf("another key: status %d", a.StatusCode)
	}
	second.Close() // the client leaves
	held(1)
	if a := r.get("/", "X-Key: a"); a.StatusCode != 200 {
		t.Errorf("after a client left: status %d", a.StatusCode)
	}
	close(release)
	if a := first.receive("GET"); a.StatusCode != 200 {
		t.Errorf("status %d", a.StatusCode)
	}
	held(0)
	for range 5 {
		if a := r.get("/wait", "X-Key: a"); a.StatusCode != 200 {
			t.Errorf("one after the other: status %d", a.StatusCode)
		}
	}
}

// TestWhoIsDelayedIsServedInTime sends more at once than the rate allows, and
// asks for more bytes than the bandwidth.
func TestWhoIsDelayedIsServedInTime(t *testing.T) {
	body := strings.Repeat("0123456789abcdef", 16<<10) // 256 KiB
	o := origin.Start(t, origin.Reply(origin.OK(body)))
	r := begin(t, app(o.Address), `
[limit.delayed]
rate  = "5/s"
burst = 1
delay = "30s"
delay_queue = 3
max_keys = 1000
[limit.slow]
bandwidth = "512KiB"
max_keys = 1000
[[route]]
path = "/delayed"
limit = "delayed"
respond = { status = 204 }
[[route]]
path = "/slow"
upstream = "app"
limit = "slow"
`)
	began := time.Now()
	var clients []*client
	for range 5 {
		c := r.dial()
		c.send("GET /delayed HTTP/1.1\r\nHost: test\r\n\r\n")
		clients = append(clients, c)
	}
	statuses := map[int]int{}
	for _, c := range clients {
		statuses[c.receive("GET").StatusCode]++
	}
	took := time.Since(began)
	// One passes at once and three wait, 600 ms at least; the queue has no
	// place for a fifth unless it came when the first of them was served.
	if statuses[204]+statuses[429] != 5 || statuses[204] < 4 || took < 600*time.Millisecond {
		t.Errorf("statuses %v in %v", statuses, took)
	}
	if n := r.metric("gateway_limit_decisions_total", `policy="delayed"`, `decision="delayed"`); n < 1 {
		t.Errorf("%v decisions to delay", n)
	}
	began = time.Now()
	a := r.get("/slow")
	if took := time.Since(began); a.body != body || took < 100*time.Millisecond { // half a second's worth, of which a quarter of a second's goes at once, and the last piece as soon as it may
		t.Errorf("%d bytes in %v: %v", len(a.body), took, a.err)
	}
}

func TestResponsesAreCompressedForClientsThatWantIt(t *testing.T) {
	body := `{"users":[` + strings.Repeat(`{"name":"Ada Lovelace","role":"admin"},`, 100) + `{}]}`
	o := origin.Start(t, func(c *origin.Conn) {
		for {
			q := c.Read()
			if got := q.Field("Accept-Encoding"); got != "identity" {
				t.Errorf("the origin was asked for coding %q", got)
			}
			if q.Field("If-None-Match") == `"v1"` {
				c.Write("HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\n\r\n")
				continue
			}
			c.Write("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nETag: \"v1\"\r\nContent-Length: " +
				strconv.Itoa(len(body)) + "\r\n\r\n" + body)
		}
	})
	r := start(t, `
[upstream.app]
servers = ["%s"]
[[route]]
upstream = "app"
compress = ["gzip"]
`, o.Address)

	a := r.get("/", "Accept-Encoding: gzip, br")
	if a.Header.Get("Content-Encoding") != "gzip" || a.Header.Get("ETag") != `"v1-gzip"` || a.Header.Get("Vary") != "Accept-Encoding" {
		t.Errorf("fields %v", a.Header)
	}
	if len(a.body) > len(body)/4 || a.ContentLength != int64(len(a.body)) {
		t.Errorf("%d bytes, Content-Length %d, of %d", len(a.body), a.ContentLength, len(body))
	}
	z, err := gzip.NewReader(bytes.NewReader([]byte(a.body)))
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := io.ReadAll(z); err != nil || string(plain) != body {
		t.Errorf("decoded to %d bytes, want %d: %v", len(plain), len(body), err)
	}

	if a := r.get("/"); a.body != body || a.Header.Get("ETag") != `"v1"` || a.Header.Get("Vary") != "Accept-Encoding" {
		t.Errorf("without Accept-Encoding: %d bytes, fields %v", len(a.body), a.Header)
	}
	if a := r.get("/", "Accept-Encoding: gzip", `If-None-Match: "v1-gzip"`); a.StatusCode != 304 || a.Header.Get("ETag") != `"v1-gzip"` {
		t.Errorf("a tag of the coded form: status %d, fields %v", a.StatusCode, a.Header)
	}
}
