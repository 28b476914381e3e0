//go:build prove

package proxy

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"gateway/internal/mallocs"
	"gateway/internal/origin"
	"gateway/internal/testenv"
)

// feature is a line of the table: a configuration after "[upstream.app]" and a
// request that makes use of it.
type feature struct {
	name    string
	config  string // "%s" is the origin's address
	request string // whole; "0000000000" becomes another number each time
	runs    int    // 0: 2000
	secure  bool   // over TLS
}

// repeated sends a request again and again, perhaps with another number.
type repeated struct {
	conn    io.ReadWriter
	request []byte
	number  int // where it stands in request, -1 without
	buffer  []byte
}

func (a *repeated) once() error {
	if a.number >= 0 {
		countUp(a.request[a.number:])
	}
	if _, err := a.conn.Write(a.request); err != nil {
		return err
	}
	for n := 0; !a.whole(a.buffer[:n]); {
		m, err := a.conn.Read(a.buffer[n:])
		if err != nil {
			return fmt.Errorf("%w after %.200q", err, a.buffer[:n])
		}
		n += m
	}
	return nil
}

// whole reports whether these bytes are an answer up to its end.
func (a *repeated) whole(b []byte) bool {
	head := bytes.Index(b, []byte("\r\n\r\n"))
	if head < 0 {
		return false
	}
	if bytes.Contains(b[:head], []byte("Transfer-Encoding: chunked")) {
		return bytes.HasSuffix(b, []byte("\r\n0\r\n\r\n"))
	}
	size := 0
	if at := bytes.Index(b[:head], []byte("Content-Length: ")); at >= 0 && !bytes.HasPrefix(b, []byte("HTTP/1.1 304")) {
		for _, c := range b[at+16 : head+1] {
			if c < '0' || c > '9' {
				break
			}
			size = 10*size + int(c-'0')
		}
	}
	return len(b) >= head+4+size
}

// TestProveAlloc prints the allocations and bytes of a request with each
// feature switched on, those of client and origin (none without TLS) included:
//
//	make prove-alloc
//
// With PROVE_ALLOC_DOC=FILE it writes them between the file's markers, too.
func TestProveAlloc(t *testing.T) {
	const secret = "0123456789abcdef0123456789abcdef"
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": "ada", "exp": time.Now().Add(time.Hour).Unix()}).SignedString([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	body := records(30 << 10)
	answer := func(body string, fields ...string) string {
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nServer: fast\r\n%sContent-Length: %d\r\n\r\n%s", lines(fields), len(body), body)
	}
	small := origin.StartFast(t, answer(strings.Repeat("x", 1024), "Cache-Control: no-store"))
	stored := origin.StartFast(t, answer(strings.Repeat("x", 1024), "Cache-Control: max-age=50000", "Age: 1000"))
	large := origin.StartFast(t, answer(body, "Cache-Control: no-store"))
	huge := origin.StartFast(t, answer(origin.Filler(1<<20)))
	largeStored := origin.StartFast(t, answer(body, "Cache-Control: max-age=50000", "Age: 1000"))
	streamed := origin.StartFast(t, strings.Replace(origin.Chunked(body[:10_000], body[10_000:20_000], body[20_000:]), "\r\n", "\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n", 1))
	busy := origin.StartFast(t, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
	slow := origin.Start(t, func(c *origin.Conn) {
		for {
			c.Read()
			c.Sleep(20 * time.Millisecond)
			c.Write(origin.OK("slow"))
		}
	})
	traces := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
	t.Cleanup(traces.Close)
	redis := "[redis]\nurl = \"" + testenv.StartRedis(t).URL() + "\"\ntimeout = \"1s\"\n"
	cert, key := writeCertificate(t, t.TempDir(), origin.NewAuthority(t).Issue("a.test"), "a")
	logged := "access_log = \"" + filepath.Join(t.TempDir(), "log") + "\"\n"

	get := func(path string, fields ...string) string {
		return "GET " + path + " HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: */*\r\n" + lines(fields) + "\r\n"
	}
	route := func(options string) string { return "[[route]]\nname = \"r\"\nupstream = \"app\"\n" + options + "\n" }
	to := func(o string, options ...string) string { return app(o) + strings.Join(options, "\n") + "\n" }
	forwarded := func(options string) string { return to(small.Address) + route(options) }
	limited := func(store string) string {
		return forwarded("limit = { key = \"ip\", rate = \"1000000/s\", burst = 1000000, store = \"" + store + "\" }")
	}
	const memory = "[cache]\nmemory = \"64MiB\"\n"
	one := get("/users/1?a=b")
	numbered := get("/users/0000000000")
	features := []feature{
		{name: "forwarded GET, 1 KB", config: forwarded(""), request: one},
		{name: "forwarded POST, 4 KB up", config: forwarded(""), request: "POST /users HTTP/1.1\r\nHost: api.example.com\r\nContent-Type: application/json\r\nContent-Length: 4096\r\n\r\n" + strings.Repeat("x", 4096)},
		{name: "forwarded GET, chunked answer of 30 KB", config: to(streamed.Address) + route(""), request: one},
		{name: "forwarded GET, 1 MiB", config: to(huge.Address) + route(""), request: one, runs: 200},
		{name: "plain front off (fasthttp)", config: "[client]\nplain_front = false\n" + forwarded(""), request: one},
		{name: "TLS 1.3, the client's side included", config: fmt.Sprintf("listen = \"https://127.0.0.1:0\"\ntls.certificates = [{ cert = %q, key = %q }]\n", cert, key) + forwarded(""), request: one, secure: true},
		{name: "404, no route", config: to(small.Address) + "[[route]]\npath = \"/other\"\nupstream = \"app\"\n", request: one},
		{name: "fixed answer", config: to(small.Address) + "[[route]]\nrespond = { body = \"hello\" }\n", request: one},
		{name: "redirect", config: to(small.Address) + "[[route]]\nredirect = { to = \"https://{host}/new{path}{query}\" }\n", request: one},
		{name: "rewritten path and fields", config: forwarded("strip_prefix = \"/users\"\nadd_prefix = \"/v2\"\nset_request_headers = { X-Set = \"1\" }\nset_response_headers = { X-Set = \"1\" }"), request: one},
		{name: "access log", config: logged + forwarded(""), request: one},
		{name: "limit, local", config: limited("local"), request: one},
		{name: "limit, local, refused (429)", config: forwarded("limit = { key = \"ip\", rate = \"1/h\", burst = 1 }"), request: one},
		{name: "limit, shared by leases in Redis", config: redis + limited("redis"), request: one},
		{name: "limit, shared and exact (redis-strict)", config: redis + limited("redis-strict"), request: one, runs: 500},
		{name: "limit on requests in flight", config: forwarded("limit = { key = \"ip\", concurrency = 100 }"), request: one},
		{name: "cache, hit", config: memory + to(stored.Address) + route("cache = true"), request: one},
		{name: "cache, 304", config: memory + to(origin.StartFast(t, answer("hello", "Cache-Control: max-age=50000", "Age: 1000", `ETag: "a"`)).Address) + route("cache = true"), request: get("/users/1", `If-None-Match: "a"`)},
		{name: "cache, miss that is stored", config: memory + to(stored.Address) + route("cache = true"), request: numbered},
		{name: "cache, not storable", config: memory + to(small.Address) + route("cache = true"), request: one},
		{name: "cache, miss with the second tier in Redis", config: redis + strings.Replace(memory, "]\n", "]\nredis = true\n", 1) + to(stored.Address) + route("cache = true"), request: numbered, runs: 500},
		{name: "compress, 30 KB with a length", config: to(large.Address) + route("compress = [\"gzip\"]"), request: get("/users/1", "Accept-Encoding: gzip"), runs: 500},
		{name: "compress, 30 KB in chunks", config: to(streamed.Address) + route("compress = [\"gzip\"]"), request: get("/users/1", "Accept-Encoding: gzip"), runs: 500},
		{name: "compress, zstd", config: to(large.Address) + route("compress = [\"zstd\"]"), request: get("/users/1", "Accept-Encoding: zstd"), runs: 500},
		{name: "compress, br", config: to(large.Address) + route("compress = [\"br\"]"), request: get("/users/1", "Accept-Encoding: br"), runs: 500},
		{name: "cache and compress, miss that is stored in both forms", config: memory + to(largeStored.Address) + route("cache = true\ncompress = [\"gzip\"]"), request: get("/users/0000000000", "Accept-Encoding: gzip"), runs: 500},
		{name: "compress, body that has come before", config: to(largeStored.Address) + route("compress = [\"gzip\"]"), request: get("/users/1", "Accept-Encoding: gzip")},
		{name: "compress, stored form from the cache", config: memory + to(largeStored.Address) + route("cache = true\ncompress = [\"gzip\"]"), request: get("/users/1", "Accept-Encoding: gzip")},
		{name: "tracing, not sampled", config: "[tracing]\nendpoint = \"" + traces.URL + "\"\nsample = \"0%%\"\n" + forwarded(""), request: one},
		{name: "tracing, sampled, export included", config: "[tracing]\nendpoint = \"" + traces.URL + "\"\nsample = \"100%%\"\n" + forwarded(""), request: one},
		{name: "JWT (HS256)", config: "[jwt.login]\nsecret = \"" + secret + "\"\n" + forwarded("jwt = \"login\""), request: get("/users/1", "Authorization: Bearer "+token)},
		{name: "CORS, simple request", config: forwarded("cors = true"), request: get("/users/1", "Origin: https://app.example")},
		{name: "CORS, preflight", config: forwarded("cors = true"), request: "OPTIONS /users HTTP/1.1\r\nHost: api.example.com\r\nOrigin: https://app.example\r\nAccess-Control-Request-Method: PUT\r\n\r\n"},
		{name: "balance by hash of a parameter", config: "[upstream.app]\nservers = [\"" + small.Address + "\", \"" + stored.Address + "\"]\nbalance = \"hash\"\nhash_key = \"query:a\"\n" + route(""), request: one},
		{name: "balance p2c", config: to(small.Address, "balance = \"p2c\"") + route(""), request: one},
		{name: "balance peak_ewma", config: to(small.Address, "balance = \"peak_ewma\"") + route(""), request: one},
		{name: "sticky, session that begins", config: to(small.Address, "sticky = \"session\"") + route(""), request: one},
		{name: "adaptive concurrency", config: to(small.Address, "adaptive = true") + route(""), request: one},
		{name: "mirror, 1 KB copied to a second upstream", config: to(small.Address) + "[upstream.shadow]\nservers = [\"" + stored.Address + "\"]\n" + route("mirror = { upstream = \"shadow\" }"), request: one},
		{name: "hedge, not needed", config: app(small.Address, stored.Address) + route("hedge = \"10s\""), request: one},
		{name: "hedge, sent and won, the slow origin included", config: "[upstream.app]\nservers = [\"" + slow.Address + "\", { address = \"" + small.Address + "\", backup = true }]\nretry = { budget = \"100%%\", min_per_second = 10000 }\n" + route("hedge = \"1ms\""), request: one, runs: 100},
		{name: "retry after a 503", config: "[upstream.app]\nservers = [\"" + busy.Address + "\", { address = \"" + small.Address + "\", backup = true }]\neject = false\nretry = { on = [\"503\"], attempts = 2, budget = \"100%%\", min_per_second = 10000, backoff = \"0s\" }\n" + route(""), request: one},
		{name: "split between two upstreams", config: to(small.Address) + "[upstream.new]\nservers = [\"" + stored.Address + "\"]\n" + route("split = { new = \"50%%\" }"), request: one},
	}
	table := "| feature | allocations of a request | bytes of a request |\n|---|---|---|\n"
	for _, f := range features {
		t.Run(f.name, func(t *testing.T) {
			objects, size, status := f.measure(t)
			t.Logf("%-50s %8.3f allocations %9.0f bytes   %s", f.name, objects, size, status)
			table += fmt.Sprintf("| %s | %s | %s |\n", f.name, tidy(objects, "%.1f"), tidy(size, "%.0f"))
		})
	}
	if file := os.Getenv("PROVE_ALLOC_DOC"); file != "" && !t.Failed() {
		writeBetween(t, file, "<!-- prove-alloc -->\n", table, "<!-- /prove-alloc -->")
	}
	fmt.Print(table)
}

// tidy rounds; what happens once a second, whoever asks, is none of a request.
func tidy(v float64, form string) string {
	if v < 0.05 {
		return "0"
	}
	return fmt.Sprintf(form, v)
}

func (f *feature) measure(t *testing.T) (objects, size float64, status string) {
	// The log's writer waits in a select; see TestRequestsAllocNothing.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	r := begin(t, strings.ReplaceAll(f.config, "%%", "%"))
	c := r.dial()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	a := &repeated{conn: c, request: []byte(f.request), number: strings.Index(f.request, "0000000000"), buffer: make([]byte, 2<<20)}
	if f.secure {
		a.conn = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	}
	once := func() {
		if err := a.once(); err != nil {
			t.Fatal(err)
		}
	}
	runs := f.runs
	if runs == 0 {
		runs = 2000
	}
	for range runs / 5 {
		once()
	}
	objects, size = math.Inf(1), math.Inf(1)
	for range 3 { // what the rest of the process does meanwhile can only add
		n, b := mallocs.Count(runs, once)
		objects, size = min(objects, float64(n)/float64(runs)), min(size, float64(b)/float64(runs))
	}
	line, _, _ := strings.Cut(string(a.buffer[:64]), "\r\n")
	return objects, size, line
}

// writeBetween replaces what stands between two markers in a file.
func writeBetween(t *testing.T, file, from, text, to string) {
	t.Helper()
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(old), from)
	_, tail, ok2 := strings.Cut(rest, to)
	if !ok || !ok2 {
		t.Fatalf("%s has no markers %q and %q", file, from, to)
	}
	if err := os.WriteFile(file, []byte(head+from+text+to+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}
