// Package loadgen loads HTTP/1.1 servers and measures their answers.
//
// A Plan says what to send, over how many connections and until when. Start
// runs it; Run.Snapshot looks at it meanwhile, Run.Wait gives the Report.
//
// With a rate the loop is open: requests are due at times that do not depend on
// the answers, and latency counts from the moment a request was due, so that
// everybody who would have waited behind a stall is counted (no coordinated
// omission; G. Tene, "How not to measure latency"). Without a rate the loop is
// closed: each connection sends its next request when the last one is answered.
//
// Each thread runs one event loop over its share of the connections: a request
// costs a read, a write and a share of an epoll_wait, and allocates nothing.
package loadgen

import (
	"crypto/tls"
	"fmt"
	"runtime"
	"time"
)

// Plan is what a run does. The zero value of each optional field means its default.
type Plan struct {
	Targets     []Target
	Connections int           // open at the same time; default 64, at most 100,000
	Threads     int           // event loops; default half of the processors, at least 1
	Rate        float64       // requests a second; 0: as many as the connections carry
	Poisson     bool          // with a rate: random intervals, as of many independent clients
	Duration    time.Duration // of the measured part; default 10s when Requests is 0
	Requests    int64         // measured requests; 0: until Duration is over
	Warmup      time.Duration // sent before, and not counted
	Timeout     time.Duration // of a request, and of the wait for the last answers; default 10s
	Keys        int           // {key} in a target is one of 0 … Keys-1; default 1,000
	Zipf        float64       // exponent of the keys' popularity; 0: all alike
	First       int64         // first {n}
	Seed        uint64        // of everything random; runs with the same seed draw alike
	TLS         *tls.Config   // for https targets; nil: the system's authorities
}

// Bounds that keep a mistyped number from taking the machine down.
const (
	maxConnections = 100_000
	maxRate        = 10_000_000
	maxKeys        = 1_000_000_000
)

// Complete fills in the defaults and says what is wrong with the plan.
func (p *Plan) Complete() error {
	if len(p.Targets) == 0 {
		return fmt.Errorf("no URL to load")
	}
	if p.Connections == 0 {
		p.Connections = 64
	}
	all, err := p.sites()
	if err != nil {
		return err
	}
	sites := len(all)
	if p.Connections < sites || p.Connections > maxConnections {
		return fmt.Errorf("connections: %d; want %d (one for each server) to %d", p.Connections, sites, maxConnections)
	}
	if p.Threads == 0 {
		p.Threads = max(1, runtime.GOMAXPROCS(0)/2)
	}
	if p.Threads < 1 || p.Threads > 1024 {
		return fmt.Errorf("threads: %d; want 1 to 1024", p.Threads)
	}
	p.Threads = min(p.Threads, p.Connections/sites)
	if !(p.Rate >= 0 && p.Rate <= maxRate) {
		return fmt.Errorf("rate: %v; want 0 (as many as possible) to %d requests a second", p.Rate, maxRate)
	}
	if p.Poisson && p.Rate == 0 {
		return fmt.Errorf("random arrivals need a rate")
	}
	if p.Duration < 0 || p.Requests < 0 || p.Warmup < 0 || p.Timeout < 0 || p.First < 0 {
		return fmt.Errorf("negative duration, number of requests, warm-up, timeout or first number")
	}
	if p.Duration == 0 && p.Requests == 0 {
		p.Duration = 10 * time.Second
	}
	if p.Timeout == 0 {
		p.Timeout = 10 * time.Second
	}
	if p.Keys == 0 {
		p.Keys = 1000
	}
	if p.Keys < 1 || p.Keys > maxKeys {
		return fmt.Errorf("keys: %d; want 1 to %d", p.Keys, maxKeys)
	}
	if !(p.Zipf >= 0 && p.Zipf <= 10) {
		return fmt.Errorf("zipf: exponent %v; want 0 (all keys alike) to 10; 1 is typical of web traffic", p.Zipf)
	}
	return nil
}
