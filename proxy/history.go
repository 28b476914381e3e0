package proxy

import (
	"bytes"
	"os"
	"sync"
	"syscall"
	"time"

	"gateway/metrics"
	"gateway/upstream"
)

// The last minutes are kept in the gateway, for those who look at it without a
// Prometheus: a sample every few seconds, in a ring of fixed size.
const (
	historyInterval = 2 * time.Second
	historyLength   = int(15 * time.Minute / historyInterval)
)

// Sample is what the gateway has done since the sample before. Counts belong to
// the time between the two; levels are those of the moment.
type Sample struct {
	Sequence    uint64    `json:"n"`        // 1, 2, … since the gateway's start
	Time        time.Time `json:"time"`     // of the end
	Seconds     float64   `json:"seconds"`  // since the sample before
	Requests    [6]uint64 `json:"requests"` // by class of status: none, 1xx to 5xx
	P50         float64   `json:"p50_ms"`   // durations of requests, estimated from the histogram; 0 without any
	P90         float64   `json:"p90_ms"`
	P99         float64   `json:"p99_ms"`
	Mean        float64   `json:"mean_ms"`
	InFlight    int64     `json:"in_flight"`
	Connections int64     `json:"connections"`
	BytesIn     uint64    `json:"bytes_in"` // of bodies
	BytesOut    uint64    `json:"bytes_out"`
	CacheHits   uint64    `json:"cache_hits"`   // answered from the cache, fresh, stale or revalidated
	CacheMisses uint64    `json:"cache_misses"` // for which the origin was asked
	CacheBytes  uint64    `json:"cache_bytes"`
	Limited     uint64    `json:"limited"` // refused by limits
	Retries     uint64    `json:"retries"`
	CPU         float64   `json:"cpu_seconds"`
	Memory      uint64    `json:"memory_bytes"` // in RAM
}

// History are the samples after one, at most those of the last 15 minutes.
type History struct {
	Started  time.Time `json:"started"` // of the gateway: another one begins to count anew
	Interval float64   `json:"interval_seconds"`
	Last     uint64    `json:"last"` // sequence of the newest sample
	Samples  []Sample  `json:"samples"`
}

// history is the ring of samples.
type history struct {
	mu    sync.Mutex
	ring  [historyLength]Sample
	last  uint64 // sequence of the newest sample; ring[last % historyLength] holds it
	state counts // at the newest sample

	// What taking a sample needs, kept so that it allocates nothing: beside
	// requests that do not either, it would be all that the collector has to do.
	counting            counts
	addCache, addLimits func(value float64, labels []string)
	statm               *os.File // /proc/self/statm; nil where there is none, and once the gateway is closed
	text                [128]byte
}

// counts are the counters that samples are the differences of.
type counts struct {
	at                         time.Time
	requests                   metrics.Totals
	bytesIn, bytesOut, retries uint64
	hits, misses, limited      uint64
	cpu                        float64
}

// cacheHits are the results, as metrics label them, for which no response of
// the origin was transferred.
var cacheHits = map[string]bool{"hit": true, "stale": true, "refresh": true, "stale_error": true, "revalidated": true, "collapsed": true}

// count reads the counters. The caller holds the history's lock, but for the
// first time.
func (g *Gateway) count(now time.Time) counts {
	r, h := g.metrics, &g.history
	if h.addCache == nil {
		h.addCache, h.addLimits = h.counting.addCache, h.counting.addLimits
	}
	h.counting = counts{
		at:       now,
		requests: r.Totals(),
		bytesIn:  uint64(r.Sum("gateway_http_request_bytes_total")),
		bytesOut: uint64(r.Sum("gateway_http_response_bytes_total")),
		retries:  g.retries(),
		cpu:      processorTime(),
	}
	r.Each("gateway_cache_requests_total", h.addCache)
	r.Each("gateway_limit_decisions_total", h.addLimits)
	return h.counting
}

// addCache adds a series of gateway_cache_requests_total.
func (c *counts) addCache(value float64, labels []string) {
	switch result := label(labels, "result"); {
	case cacheHits[result]:
		c.hits += uint64(value)
	case result == "miss":
		c.misses += uint64(value)
	}
}

// addLimits adds a series of gateway_limit_decisions_total.
func (c *counts) addLimits(value float64, labels []string) {
	if label(labels, "decision") == "denied" {
		c.limited += uint64(value)
	}
}

// retries is the number of attempts that were repeated, the sum of
// gateway_retries_total.
func (g *Gateway) retries() (n uint64) {
	s := g.snapshot.Load()
	if s == nil {
		return 0
	}
	for _, p := range s.pools {
		for o := range upstream.OutcomeCount {
			n += p.Retries(o)
		}
	}
	return n
}

// label is the value of a label, "" without it.
func label(labels []string, name string) string {
	for i := 0; i+1 < len(labels); i += 2 {
		if labels[i] == name {
			return labels[i+1]
		}
	}
	return ""
}

// sample adds the sample of this moment.
func (g *Gateway) sample(now time.Time) {
	h := &g.history
	h.mu.Lock()
	defer h.mu.Unlock()
	c := g.count(now)
	before := &h.state
	requests := c.requests.Since(&before.requests)
	milliseconds := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	s := Sample{
		Time:        now.UTC(),
		Seconds:     now.Sub(before.at).Seconds(),
		Requests:    requests.Statuses,
		P50:         milliseconds(requests.Durations.Quantile(0.5)),
		P90:         milliseconds(requests.Durations.Quantile(0.9)),
		P99:         milliseconds(requests.Durations.Quantile(0.99)),
		InFlight:    max(g.counters.inFlight.Value(), 0),
		Connections: int64(g.front.Stats().Active),
		BytesIn:     rise(before.bytesIn, c.bytesIn),
		BytesOut:    rise(before.bytesOut, c.bytesOut),
		CacheHits:   rise(before.hits, c.hits),
		CacheMisses: rise(before.misses, c.misses),
		CacheBytes:  uint64(g.metrics.Sum("gateway_cache_bytes")),
		Limited:     rise(before.limited, c.limited),
		Retries:     rise(before.retries, c.retries),
		CPU:         max(c.cpu-before.cpu, 0),
		Memory:      h.residentMemory(),
	}
	if n := requests.Requests(); n > 0 {
		s.Mean = milliseconds(requests.Time) / float64(n)
	}
	h.last++
	s.Sequence = h.last
	h.ring[h.last%uint64(historyLength)] = s
	h.state = c
}

// rise is how much a counter has grown. Counters of parts that a reload has
// removed are gone: what they had counted does not count as negative.
func rise(before, now uint64) uint64 { return now - min(before, now) }

// keepHistory samples until the gateway is closed.
func (g *Gateway) keepHistory() {
	g.history.openStatm()
	defer g.history.closeStatm()
	tick := time.NewTicker(historyInterval)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			g.sample(now)
		case <-g.closed:
			return
		}
	}
}

// History is what has been since the sample of that sequence, 0 for all that is
// kept.
func (g *Gateway) History(since uint64) History {
	h := &g.history
	h.mu.Lock()
	defer h.mu.Unlock()
	answer := History{Started: g.started.UTC(), Interval: historyInterval.Seconds(), Last: h.last, Samples: []Sample{}}
	if since > h.last { // of another life of the gateway
		since = 0
	}
	first := since + 1
	if h.last >= uint64(historyLength) {
		first = max(first, h.last-uint64(historyLength)+1)
	}
	for n := first; n <= h.last; n++ {
		answer.Samples = append(answer.Samples, h.ring[n%uint64(historyLength)])
	}
	return answer
}

// processorTime is what the process has used so far, in seconds.
func processorTime() float64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// openStatm opens what residentMemory reads.
func (h *history) openStatm() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.statm, _ = os.Open("/proc/self/statm")
}

func (h *history) closeStatm() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.statm.Close()
	h.statm = nil
}

// residentMemory is what the process has in RAM, in bytes; 0 where /proc does
// not tell. The caller holds the lock.
func (h *history) residentMemory() uint64 {
	n, _ := h.statm.ReadAt(h.text[:], 0) // a nil file has nothing
	_, resident, _ := bytes.Cut(h.text[:n], []byte(" "))
	pages := uint64(0)
	for _, c := range resident {
		if c < '0' || c > '9' {
			break
		}
		pages = pages*10 + uint64(c-'0')
	}
	return pages * uint64(os.Getpagesize())
}
