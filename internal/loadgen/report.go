package loadgen

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Schema is the version of the JSON form of a Report.
const Schema = 1

// Report is what a run has measured. Times are in seconds.
type Report struct {
	Schema    int       `json:"schema"`
	Generator string    `json:"generator,omitempty"` // program and version
	Name      string    `json:"name,omitempty"`      // given by whoever ran it
	Began     time.Time `json:"began"`
	Plan      PlanView  `json:"plan"`

	Elapsed    float64          `json:"elapsed"`  // from the first counted request to the last answer
	Answered   int64            `json:"answered"` // requests with a complete answer, whatever its status
	Failed     int64            `json:"failed"`
	Rate       float64          `json:"rate"` // answers a second
	Statuses   map[string]int64 `json:"statuses"`
	Failures   map[string]int64 `json:"failures"`
	Cause      string           `json:"cause,omitempty"` // why the last handshake failed
	BytesIn    int64            `json:"bytes_in"`        // heads and bodies; without TLS and TCP
	BytesOut   int64            `json:"bytes_out"`
	Reconnects int64            `json:"reconnects"` // after connections that ended in peace
	CPU        float64          `json:"cpu"`        // of this process

	Latency Latency   `json:"latency"`           // open loop: from the moment a request was due
	Service *Latency  `json:"service,omitempty"` // open loop: from the moment it was sent
	Series  []Second  `json:"series"`
	Curve   []Percent `json:"curve"` // latency by percentile

	// Histogram is the latency in ns, in the V2 compressed form of HdrHistogram.
	Histogram string `json:"histogram"`
}

// PlanView is a plan as it is reported.
type PlanView struct {
	Targets     []string `json:"targets"`
	Connections int      `json:"connections"`
	Threads     int      `json:"threads"`
	Rate        float64  `json:"rate,omitempty"`
	Poisson     bool     `json:"poisson,omitempty"`
	Duration    float64  `json:"duration,omitempty"`
	Requests    int64    `json:"requests,omitempty"`
	Warmup      float64  `json:"warmup,omitempty"`
	Timeout     float64  `json:"timeout"`
	Keys        int      `json:"keys,omitempty"`
	Zipf        float64  `json:"zipf,omitempty"`
}

// Latency sums up a histogram. A request that timed out counts with the time
// that it waited; other failures do not count.
type Latency struct {
	Min  float64 `json:"min"`
	Mean float64 `json:"mean"`
	Dev  float64 `json:"dev"`
	P50  float64 `json:"p50"`
	P75  float64 `json:"p75"`
	P90  float64 `json:"p90"`
	P95  float64 `json:"p95"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	P9   float64 `json:"p9999"`
	Max  float64 `json:"max"`
}

// Second is one second of a run, or the rest of one.
type Second struct {
	At       float64 `json:"at"` // since the begin of the measured part
	Length   float64 `json:"length"`
	Rate     float64 `json:"rate"`
	Answered int64   `json:"answered"`
	Failed   int64   `json:"failed"`
	P50      float64 `json:"p50"`
	P90      float64 `json:"p90"`
	P99      float64 `json:"p99"`
	Max      float64 `json:"max"`
}

// Percent is a point of the curve: this share of the requests took at most so long.
type Percent struct {
	Share   float64 `json:"share"` // 0 … 1
	Latency float64 `json:"latency"`
}

func inSeconds(ns int64) float64 { return float64(ns) / 1e9 }

func newLatency(h *hdrhistogram.Histogram) Latency {
	if h.TotalCount() == 0 {
		return Latency{}
	}
	q := func(p float64) float64 { return inSeconds(h.ValueAtPercentile(p)) }
	return Latency{
		Min: inSeconds(h.Min()), Mean: h.Mean() / 1e9, Dev: h.StdDev() / 1e9,
		P50: q(50), P75: q(75), P90: q(90), P95: q(95), P99: q(99), P999: q(99.9), P9: q(99.99), Max: q(100),
	}
}

func newSecond(at, length time.Duration, i *interval) Second {
	s := Second{At: at.Seconds(), Length: length.Seconds(), Answered: i.answered, Failed: i.failures()}
	if length > 0 {
		s.Rate = float64(i.answered) / length.Seconds()
	}
	if i.latency.TotalCount() > 0 {
		l := newLatency(i.latency)
		s.P50, s.P90, s.P99, s.Max = l.P50, l.P90, l.P99, l.Max
	}
	return s
}

// curvePoints is how many points the curve has for each halving of what is left.
const curvePoints = 8

func (r *Report) fill(p *Plan, elapsed time.Duration, total *interval) {
	r.Schema = Schema
	r.Plan = PlanView{
		Connections: p.Connections, Threads: p.Threads, Rate: p.Rate, Poisson: p.Poisson,
		Duration: p.Duration.Seconds(), Requests: p.Requests, Warmup: p.Warmup.Seconds(), Timeout: p.Timeout.Seconds(),
	}
	keyed := false
	for i := range p.Targets {
		t := &p.Targets[i]
		c, _ := t.pattern()
		for _, h := range c.holes {
			keyed = keyed || h.key
		}
		method := t.Method
		if method == "" {
			method = "GET"
		}
		r.Plan.Targets = append(r.Plan.Targets, method+" "+t.URL)
	}
	if keyed {
		r.Plan.Keys, r.Plan.Zipf = p.Keys, p.Zipf
	}
	r.Elapsed = elapsed.Seconds()
	r.Answered, r.Failed = total.answered, total.failures()
	r.Rate = float64(r.Answered) / r.Elapsed
	r.Statuses, r.Failures = map[string]int64{}, map[string]int64{}
	for s, n := range total.statuses {
		if n > 0 {
			r.Statuses[strconv.Itoa(s)] = n
		}
	}
	for f, n := range total.failed {
		if n > 0 {
			r.Failures[Failure(f).String()] = n
		}
	}
	r.BytesIn, r.BytesOut, r.Reconnects = total.bytesIn, total.bytesOut, total.reconnects
	r.Latency = newLatency(total.latency)
	if p.Rate > 0 {
		service := newLatency(total.service)
		r.Service = &service
	}
	if total.latency.TotalCount() > 0 {
		for _, b := range total.latency.CumulativeDistributionWithTicks(curvePoints) {
			r.Curve = append(r.Curve, Percent{Share: b.Quantile / 100, Latency: inSeconds(b.ValueAt)})
		}
	}
	if text, err := total.latency.Encode(hdrhistogram.V2CompressedEncodingCookieBase); err == nil {
		r.Histogram = string(text)
	}
}

// WriteJSON writes the report as JSON.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// ReadReport reads a report that WriteJSON wrote.
func ReadReport(path string) (*Report, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := &Report{}
	if err := json.NewDecoder(f).Decode(r); err != nil {
		return nil, fmt.Errorf("%s: not a report of a load: %w", path, err)
	}
	if r.Schema != Schema {
		return nil, fmt.Errorf("%s: a report of schema %d; want %d", path, r.Schema, Schema)
	}
	if r.Name == "" {
		r.Name = path
	}
	return r, nil
}

// FormatSeconds writes a time with three digits: "1.23 ms".
func FormatSeconds(s float64) string {
	unit, scale := "s", 1.0
	switch a := math.Abs(s); {
	case a == 0:
		return "0"
	case a < 1e-3:
		unit, scale = "µs", 1e6
	case a < 1:
		unit, scale = "ms", 1e3
	}
	return FormatNumber(s*scale) + " " + unit
}

// FormatNumber writes a number with about three digits.
func FormatNumber(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100 || v == math.Trunc(v):
		return group(int64(math.Round(v)))
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case a >= 1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

// group writes thousands apart: "12,345".
func group(n int64) string {
	s := strconv.FormatInt(n, 10)
	from := 0
	if n < 0 {
		from = 1
	}
	for i := len(s) - 3; i > from; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// FormatBytes writes a number of bytes: "1.23 MiB".
func FormatBytes(n float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for n >= 1024 && i < len(units)-1 {
		n /= 1024
		i++
	}
	return FormatNumber(n) + " " + units[i]
}
