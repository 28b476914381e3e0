package loadgen

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestTargetsAreReadFromAFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "blob.bin"), []byte("\x00blob {n}"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "targets")
	err := os.WriteFile(path, []byte(`# what people do
GET http://localhost:8080/users/{key}
Accept: application/json

2 POST http://localhost:8080/users
# in between
Content-Type: application/json
= {"name":"user {n}"}


PUT https://localhost/blobs/{n}
@blob.bin
`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReadTargets(path)
	if err != nil {
		t.Fatal(err)
	}
	want := []Target{
		{Method: "GET", URL: "http://localhost:8080/users/{key}", Header: []Field{{"Accept", "application/json"}}, Weight: 1},
		{Method: "POST", URL: "http://localhost:8080/users", Header: []Field{{"Content-Type", "application/json"}}, Body: []byte(`{"name":"user {n}"}`), Weight: 2},
		{Method: "PUT", URL: "https://localhost/blobs/{n}", Body: []byte("\x00blob {n}"), Weight: 1},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v\nwant %+v", got, want)
	}
	for i, head := range []string{
		"GET /users/0000000000 HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: gateway-load\r\nAccept: application/json\r\n\r\n",
		"POST /users HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: gateway-load\r\nAccept: */*\r\nContent-Type: application/json\r\nContent-Length: 26\r\n\r\n{\"name\":\"user 0000000000\"}",
		"PUT /blobs/0000000000 HTTP/1.1\r\nHost: localhost\r\nUser-Agent: gateway-load\r\nAccept: */*\r\nContent-Length: 16\r\n\r\n\x00blob 0000000000",
	} {
		p, err := got[i].pattern()
		if err != nil || p.text != head {
			t.Errorf("target %d is sent as %q, %v\nwant %q", i, p.text, err, head)
		}
	}
}

func TestMistakesInTargetsAreNamed(t *testing.T) {
	f := func(want, text string) {
		t.Helper()
		if _, err := parseTargets(strings.NewReader(text), "file"); err == nil || err.Error() != want {
			t.Errorf("%q: %v\nwant %s", text, err, want)
		}
	}
	f("file has no targets; want lines such as GET http://localhost:8080/", "# nothing\n\n")
	f(`file:1: "GET"; want [WEIGHT] METHOD URL`, "GET")
	f(`file:1: "1 2 3 4"; want [WEIGHT] METHOD URL`, "1 2 3 4")
	f("file:1: weight 0; want 1 to 1000000", "0 GET http://a/")
	f(`file:2: URL "ftp://a/"; want http://HOST/… or https://HOST/…`, "\nGET ftp://a/")
	f(`file:1: URL "http:///x"; want http://HOST/… or https://HOST/…`, "GET http:///x")
	f(`file:2: header field "Accept"; want "Name: value"`, "GET http://a/\nAccept")
	f("file:2: header field Content-Length is set from the body", "GET http://a/\nContent-Length: 3")
	f("file:2: not a valid request: malformed header field name", "GET http://a/\nBad Name: x")
	f("file:3: a second body", "POST http://a/\n= 1\n= 2")
	f("file:2: body: open missing: no such file or directory", "POST http://a/\n@missing")
	f("file:1: not a valid request: method CONNECT is not supported", "CONNECT http://a/")
	f("file:3: a request that waits for 100 Continue or asks for an upgrade cannot be loaded with", "GET http://a/\nConnection: Upgrade\nUpgrade: websocket")
}

func TestPlansAreChecked(t *testing.T) {
	good := []Target{{URL: "http://a/"}, {URL: "http://b/"}}
	f := func(want string, p Plan) {
		t.Helper()
		if err := p.Complete(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v\nwant %s", p, err, want)
		}
	}
	f("no URL to load", Plan{})
	f("want 2 (one for each server) to 100000", Plan{Targets: good, Connections: 1})
	f("want 2 (one for each server) to 100000", Plan{Targets: good, Connections: 100_001})
	f("threads: -1", Plan{Targets: good, Threads: -1})
	f("rate: -1", Plan{Targets: good, Rate: -1})
	f("rate: +Inf", Plan{Targets: good, Rate: inf()})
	f("random arrivals need a rate", Plan{Targets: good, Poisson: true})
	f("negative duration", Plan{Targets: good, Duration: -1})
	f("keys: -1", Plan{Targets: good, Keys: -1})
	f("zipf: exponent NaN", Plan{Targets: good, Zipf: inf() - inf()})
}

func inf() float64 { x := 0.0; return 1 / x }
