package main

import (
	"strings"

	"gateway/internal/loadgen"
)

// needs are what a proxy has to do in a scenario. Each rival's configuration
// (rivals/) renders them, or the rival cannot take part.
type needs struct {
	Cache bool   // keep cacheable responses in memory
	Gzip  bool   // compress application/json on the fly, at the rival's default level
	Limit string // by client address: "deny" refuses practically everything with 429, "allow" nothing
	Pool  bool   // three origins, least connections
	TLS   bool   // 1.3, towards the client
	Log   bool   // access log; the gateway's second column only

	Memory string // of the gateway's cache; 512MiB when empty
}

// scenario is one thing to do, the same for each rival.
type scenario struct {
	name, doc string
	needs     needs
	method    string // GET when empty
	path      string // {n} never repeats; {key} is one of keys
	header    []loadgen.Field
	upload    int // bytes of the request's body
	keys      int
	clients   int     // connections
	rate      float64 // of the fixed part, requests a second
	answer    string  // what of the origin's answers the body must be; empty for refusals
	renewed   bool    // no body is like another
	status    int
	origin    float64 // requests to the origin for each request
	idle      int     // connections that do nothing; then nothing else is measured
	cacheMay  bool    // a rival without a cache takes part, too
}

// scenarios are named as users of the results know them; the first is the one
// that the others are variations of.
var scenarios = []scenario{
	{name: "proxy-small", doc: "GET, 1 KB", path: "/1k/{n}", clients: 64, rate: 3000, answer: "1k", status: 200, origin: 1},
	{name: "proxy-json", doc: "GET, 16 KB of JSON", path: "/16k/{n}", clients: 64, rate: 3000, answer: "16k", status: 200, origin: 1},
	{name: "proxy-post", doc: "POST of 4 KB, answered with 1 KB", method: "POST", path: "/1k/{n}", upload: 4096, clients: 64, rate: 3000, answer: "1k", status: 200, origin: 1},
	{name: "proxy-large", doc: "GET, 1 MiB", path: "/1m/{n}", clients: 16, rate: 200, answer: "1m", status: 200, origin: 1},
	{name: "cache-1k", doc: "hits of 1 KB, 100 URLs", needs: needs{Cache: true}, path: "/c1k/{key}", keys: 100, clients: 64, rate: 5000, answer: "1k", status: 200},
	{name: "cache-16k", doc: "hits of 16 KB, 100 URLs", needs: needs{Cache: true}, path: "/c16k/{key}", keys: 100, clients: 64, rate: 5000, answer: "16k", status: 200},
	{name: "gzip", doc: "GET, 30 KB of JSON, compressed on the fly", needs: needs{Gzip: true}, path: "/30k/{n}", header: accept("gzip"), clients: 16, rate: 400, answer: "30k", status: 200, origin: 1},
	{name: "limit-deny", doc: "over the limit of the client's address: 429", needs: needs{Limit: "deny"}, path: "/1k/{n}", clients: 64, rate: 5000, status: 429},
	{name: "limit-allow", doc: "proxy-small within a limit", needs: needs{Limit: "allow"}, path: "/1k/{n}", clients: 64, rate: 3000, answer: "1k", status: 200, origin: 1},
	{name: "all-on", doc: "cache miss, limit, gzip and three origins, 30 KB of JSON", needs: needs{Cache: true, Gzip: true, Limit: "allow", Pool: true}, cacheMay: true, path: "/c30k/{n}", header: accept("gzip, deflate, br, zstd"), clients: 16, rate: 400, answer: "30k", status: 200, origin: 1},
	{name: "all-on-new", doc: "all-on, but no body is like another", needs: needs{Cache: true, Gzip: true, Limit: "allow", Pool: true}, cacheMay: true, path: "/n30k/{n}", header: accept("gzip, deflate, br, zstd"), clients: 16, rate: 400, answer: "30k", renewed: true, status: 200, origin: 1},
	{name: "tls", doc: "proxy-small over TLS 1.3 (ECDSA P-256), connections kept", needs: needs{TLS: true}, path: "/1k/{n}", clients: 64, rate: 3000, answer: "1k", status: 200, origin: 1},
	{name: "idle", doc: "memory of a connection that sleeps after one request", path: "/1k/{n}", clients: 64, answer: "1k", status: 200, origin: 1, idle: 10_000},
}

func accept(codings string) []loadgen.Field {
	return []loadgen.Field{{Name: "Accept-Encoding", Value: codings}}
}

// host is the name that clients ask for.
const host = "bench.example.com"

// target is what the load generator sends.
func (s *scenario) target(address string) loadgen.Target {
	scheme := "http"
	if s.needs.TLS {
		scheme = "https"
	}
	t := loadgen.Target{
		Method: s.method, URL: scheme + "://" + address + s.path,
		Header: append([]loadgen.Field{{Name: "Host", Value: host}}, s.header...),
	}
	if s.upload > 0 {
		t.Header = append(t.Header, loadgen.Field{Name: "Content-Type", Value: "application/json"})
		t.Body = []byte(strings.Repeat(`{"some":"upload"}`, s.upload/17+1)[:s.upload])
	}
	return t
}

func findScenario(name string) *scenario {
	for i := range scenarios {
		if scenarios[i].name == name {
			return &scenarios[i]
		}
	}
	return nil
}
