package proxy

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"gateway/internal/origin"
	"gateway/internal/testenv"
)

// A database is killed and comes back: what is stored is served past its
// freshness meanwhile, unless that is forbidden, and the origin is left alone.
func TestStaleResponsesStandInWhileADependencyIsDown(t *testing.T) {
	pg := testenv.StartPostgres(t)
	var version atomic.Int64
	version.Store(1)
	o := &recorder{}
	o.Origin = origin.Start(t, func(c *origin.Conn) {
		for {
			q := c.Read()
			o.keep(q)
			control := "max-age=10"
			switch {
			case strings.HasPrefix(q.Target, "/fresh"):
				control = "max-age=5000"
			case strings.HasPrefix(q.Target, "/must"):
				control = "max-age=10, must-revalidate"
			}
			body := fmt.Sprintf("%s %d", q.Target, version.Load())
			c.Write(fmt.Sprintf("HTTP/1.1 200 OK\r\nCache-Control: %s\r\nAge: 1000\r\nETag: \"%d\"\r\nContent-Length: %d\r\n\r\n%s",
				control, version.Load(), len(body), body))
		}
	})
	r := begin(t, app(o.Address), "[dependency.pg]\nurl = \""+pg.URL()+"\"\ninterval = \"50ms\"\ntimeout = \"5s\"\nfails = 2\n",
		"[[route]]\nname = \"strict\"\npath = \"/strict\"\nupstream = \"app\"\ncache = true\nneeds = [\"pg\"]\n",
		caching("true\nneeds = [\"pg\"]\non_dependency_down = \"serve_stale\""))
	up := func(want float64) func() bool {
		return func() bool { return r.metric("gateway_dependency_up", `dependency="pg"`) == want }
	}
	r.until("the database is known", up(1))
	for _, path := range []string{"/a", "/must", "/fresh", "/strict"} {
		r.get(path).expect(t, 200, path+" 1", "fwd=uri-miss; fwd-status=200; stored")
	}
	r.get("/a").expect(t, 200, "/a 1", "fwd=stale; fwd-status=200") // while all is well it is asked for anew
	asked := o.Requests()
	version.Store(2)

	pg.Kill()
	r.until("the database is down", up(0))
	for range 3 {
		r.get("/a").expect(t, 200, "/a 1", "gateway; hit; ttl=-")
		r.get("/fresh").expect(t, 200, "/fresh 1", "gateway; hit; ttl=")
		r.get("/a", `If-None-Match: "1"`).expect(t, 304, "", "gateway; hit; ttl=-")
		r.get("/a", "Range: bytes=0-1").expect(t, 206, "/a", "gateway; hit; ttl=-")
		r.do("HEAD /a HTTP/1.1\r\nHost: test\r\n\r\n").expect(t, 200, "", "gateway; hit; ttl=-")
		r.get("/other").refused(t, 503, "dependency_down")
		r.get("/must").refused(t, 503, "dependency_down")
		r.get("/strict").refused(t, 503, "dependency_down")
		r.get("/a", "Cache-Control: no-cache").refused(t, 503, "dependency_down")
		r.do("POST /a HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n").refused(t, 503, "dependency_down")
	}
	if n := o.Requests(); n != asked {
		t.Errorf("%d requests at the origin while the database is down", n-asked)
	}
	r.counts(12, "gateway_cache_requests_total", `route="r"`, `result="stale"`)
	r.endedFor("dependency_down", 15)

	pg.Restart()
	r.until("the database is back", up(1))
	r.get("/a").expect(t, 200, "/a 2", "fwd=stale; fwd-status=200; stored")
	r.get("/other").expect(t, 200, "/other 2", "fwd=uri-miss; fwd-status=200; stored")
	r.get("/must").expect(t, 200, "/must 2", "fwd=stale; fwd-status=200; stored")
	r.get("/strict").expect(t, 200, "/strict 2", "fwd=stale; fwd-status=200; stored")
	r.get("/fresh").expect(t, 200, "/fresh 1", "gateway; hit")
}
