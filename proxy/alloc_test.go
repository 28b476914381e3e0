package proxy

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"gateway/internal/mallocs"
	"gateway/internal/origin"
)

// steady asks one thing again and again over one connection, and allocates
// nothing: all answers have the length of the first.
type steady struct {
	client  *client
	request []byte
	number  int    // where in the request a number stands that becomes another one each time; 0 for none
	answer  []byte // as it came last
}

// numberText is a number that countUp counts.
const numberText = "0000000000"

// countUp adds one to the number that these bytes begin with.
func countUp(b []byte) {
	for i := len(numberText) - 1; ; i-- {
		if b[i]++; b[i] <= '9' {
			return
		}
		b[i] = '0'
	}
}

func newSteady(r *running, request string) *steady {
	s := &steady{client: r.dial(), request: []byte(request), number: max(strings.Index(request, numberText), 0), answer: make([]byte, 64<<10)}
	s.client.SetDeadline(time.Now().Add(2 * time.Minute))
	s.client.send(request)
	n := 0
	for n == 0 { // until nothing more comes
		s.client.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		for {
			m, err := s.client.Read(s.answer[n:])
			n += m
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				r.t.Fatal(err)
			}
		}
	}
	s.client.SetReadDeadline(time.Now().Add(2 * time.Minute))
	s.answer = s.answer[:n]
	return s
}

func (s *steady) once() {
	if s.number > 0 {
		countUp(s.request[s.number:])
	}
	if _, err := s.client.Write(s.request); err != nil {
		s.client.t.Fatal(err)
	}
	for n := 0; n < len(s.answer); {
		m, err := s.client.Read(s.answer[n:])
		if err != nil {
			s.client.t.Fatalf("%v after %q", err, s.answer[:n])
		}
		n += m
	}
}

// allocatesNothing fails the test if so many requests allocate more than a
// thousandth of an object each. What happens once a second whatever is asked
// (dates are written anew) is counted without requests and taken off. When others
// keep the machine busy it takes a quiet moment to stay below; what each request
// allocates never does.
func (s *steady) allocatesNothing(what string) {
	s.client.t.Helper()
	const runs, tries = 10_000, 5
	var counts []uint64
	for range tries {
		for range 1000 {
			s.once()
		}
		began := time.Now()
		n, _ := mallocs.Count(runs, s.once)
		if n <= runs/1000 {
			return
		}
		took := time.Since(began)
		if idle, _ := mallocs.Count(1, func() { time.Sleep(took) }); n <= runs/1000+idle {
			return
		}
		counts = append(counts, n)
	}
	s.client.t.Errorf("%s: %d allocations in %d requests each", what, counts, runs)
}

func TestRequestsAllocNothing(t *testing.T) {
	if mallocs.Race {
		t.Skip("the race detector allocates")
	}
	const fields = "User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: */*\r\nAccept-Encoding: gzip, br\r\nCookie: session=0123456789abcdef\r\n\r\n"
	o := origin.StartFast(t, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: no-store\r\nServer: fast\r\nContent-Length: 13\r\n\r\n{\"id\":123456}")
	chunked := origin.StartFast(t, origin.Chunked("hello, ", "world"))
	unnamed := origin.StartFast(t, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: no-store\r\nServer: fast\r\nContent-Length: 13\r\n\r\n{\"id\":123456}")
	unix := origin.StartFastUnix(t, origin.OK("hello"))
	down := refusing(t)
	for _, log := range []string{"off", "/dev/null"} {
		if log != "off" {
			// The log's writer waits in a select fifty times a second. The
			// runtime keeps its records of waiting goroutines for each processor
			// and makes new ones until there are enough on all: not on one.
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
		}
		r := begin(t, "access_log = \""+log+"\"", "[client]\ntrusted_proxies = [\"10.0.0.0/8\"]\n", app(o.Address),
			"[upstream.chunked]\nservers = [\""+chunked.Address+"\"]\n",
			"[upstream.unix]\nservers = [\"unix:"+unix.Address+"\"]\nbalance = \"least_conn\"\n",
			"[upstream.hash]\nservers = [\""+o.Address+"\", \""+unnamed.Address+"\"]\nbalance = \"hash\"\nhash_key = \"query:a\"\n",
			"[upstream.sticky]\nservers = [\""+o.Address+"\", \""+unnamed.Address+"\"]\nbalance = \"hash\"\nsticky = \"session\"\nqueue = 10\n",
			"[upstream.down]\nservers = [\""+down+"\"]\nhealth = { interval = \"1h\", fails = 1 }\n", `
[[route]]
path = "/fixed"
respond = { body = "hello" }

[[route]]
path = "/moved/*"
redirect = { to = "https://{host}/new{path}{query}" }

[[route]]
path = "/denied"
deny = ["127.0.0.0/8"]
upstream = "app"

[[route]]
path = "/down"
upstream = "down"

[[route]]
path = "/unix/*"
strip_prefix = "/unix"
add_prefix = "/v2"
upstream = "unix"
cors = true
set_request_headers = { X-Set = "1" }
remove_request_headers = ["Cookie"]
set_response_headers = { X-Set = "1" }
allow = ["127.0.0.0/8"]
timeout = "10s"

[[route]]
path = "/chunked"
upstream = "chunked"

[[route]]
path = "/hash"
upstream = "hash"
split = { app = "50%" }

[[route]]
path = "/hedged"
upstream = "hash"
hedge = "10s"

[[route]]
path = "/sticky"
upstream = "sticky"

[[route]]
path = "/users/*"
upstream = "app"
`)
		r.until("the server is found dead", func() bool { return r.metric("gateway_upstream_up", `upstream="down"`) == 0 })
		for _, c := range []struct{ what, request string }{
			{"forwarded GET", "GET /users/1?a=b HTTP/1.1\r\nHost: api.example.com\r\n" + fields},
			{"forwarded GET with edits", "GET /unix/1 HTTP/1.1\r\nHost: api.example.com\r\nOrigin: https://a.example\r\n" + fields},
			{"forwarded GET, path to be normalised", "GET /users/%7e/../1 HTTP/1.1\r\nHost: API.example.com\r\n" + fields},
			{"forwarded GET, chunked answer", "GET /chunked HTTP/1.1\r\nHost: api.example.com\r\n" + fields},
			{"forwarded GET by the hash of a parameter", "GET /hash?b=c&a=%41 HTTP/1.1\r\nHost: api.example.com\r\n" + fields},
			{"forwarded GET in a sticky session that begins", "GET /sticky HTTP/1.1\r\nHost: api.example.com\r\n" + fields},
			{"forwarded GET that would be hedged", "GET /hedged HTTP/1.1\r\nHost: api.example.com\r\n" + fields},
			{"no route", "GET /none HTTP/1.1\r\nHost: api.example.com\r\n" + fields},
			{"fixed response", "GET /fixed HTTP/1.1\r\nHost: api.example.com\r\n" + fields},
			{"redirect", "GET /moved/a?b HTTP/1.1\r\nHost: api.example.com\r\n" + fields},
			{"no server", "GET /down HTTP/1.1\r\nHost: api.example.com\r\n" + fields},
			{"denied", "GET /denied HTTP/1.1\r\nHost: api.example.com\r\n" + fields},
		} {
			newSteady(r, c.request).allocatesNothing(c.what + ", access log " + log)
		}
	}
}

// Responses that are stored, and those that may not be, for another URL each
// time. The memory is small, so that most of it was used before.
func TestMissesAllocNothing(t *testing.T) {
	if mallocs.Race {
		t.Skip("the race detector allocates")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // it would empty the pools
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))  // see above
	body := records(3 << 10)
	answer := func(control string) *origin.Fast {
		return origin.StartFast(t, fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: %s\r\nContent-Length: %d\r\n\r\n%s", control, len(body), body))
	}
	stored, not := answer("max-age=50000"), answer("no-store")
	r := begin(t, "[cache]\nmemory = \"2MiB\"\n", app(stored.Address), "[upstream.not]\nservers = [\""+not.Address+"\"]\n", `
[[route]]
path = "/coded/*"
upstream = "app"
cache = true
compress = { busy = "0%", codings = ["gzip"] }

[[route]]
path = "/not/*"
upstream = "not"
cache = true

[[route]]
path = "/*"
upstream = "app"
cache = true
`)
	before := r.metric("gateway_cache_evictions_total", `cause="space"`)
	for _, path := range []string{"/coded/", "/not/", "/"} {
		newSteady(r, "GET "+path+numberText+" HTTP/1.1\r\nHost: test\r\nAccept-Encoding: gzip\r\n\r\n").allocatesNothing("a miss of " + path)
	}
	if n := r.metric("gateway_cache_evictions_total", `cause="space"`) - before; n < 30_000 {
		t.Errorf("%v entries were thrown out: not all was stored", n)
	}
}
