package proxy

import (
	"strings"
	"testing"

	"gateway/internal/origin"
)

// A bug in one request is that request's alone: what it held is given back and
// all others go on.
func TestPanicsAreContained(t *testing.T) {
	o := record(t, origin.OK("hello"))
	r := begin(t, app(o.Address), "[[route]]\nname = \"broken\"\npath = \"/broken\"\nupstream = \"app\"\n[[route]]\nupstream = \"app\"\n")
	r.snapshot.Load().routes[0].target.duration = nil // met when the answer has come
	c := r.dial()
	c.send("GET /broken HTTP/1.1\r\nHost: test\r\n\r\n")
	a := c.receive("GET")
	a.refused(t, 500, "panicked")
	if !a.Close || !c.closed() {
		t.Error("the connection stays")
	}
	if a := r.get("/"); a.body != "hello" {
		t.Errorf("another request is answered %d %q", a.StatusCode, a.body)
	}
	r.counts(1, "gateway_panics_total")
	r.endedFor("panicked", 1)
	r.counts(1, "gateway_http_requests_total", `route="broken"`, `status="500"`)
	r.counts(0, "gateway_http_in_flight")
	r.counts(0, "gateway_upstream_in_flight")
	if log := r.log.String(); !strings.Contains(log, "panic while a request was served") || !strings.Contains(log, "forward.go") {
		t.Errorf("the log does not show where:\n%s", log)
	}
}
