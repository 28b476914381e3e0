package upstream

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"gateway/internal/unit"
)

// AdaptiveOptions bound the limit of requests in flight that follows the
// latency.
type AdaptiveOptions struct {
	// On is set by any value but false.
	On bool `toml:"-"`

	// The limit never falls below this.
	Min int `toml:"min" default:"10" min:"1" max:"1000000"`

	// The limit never rises above this.
	Max int `toml:"max" default:"10000" min:"1" max:"1000000"`

	// Latency may be so much above that of servers without load before the
	// limit falls.
	Slack unit.Percent `toml:"slack" default:"25%"`
}

// DefaultAdaptive is what "adaptive = true" asks for.
func DefaultAdaptive() AdaptiveOptions {
	return AdaptiveOptions{On: true, Min: 10, Max: 10_000, Slack: 25}
}

// UnmarshalTOML reads true or false. It takes any table for true: the
// configuration reads its keys.
func (o *AdaptiveOptions) UnmarshalTOML(v any) error {
	switch v := v.(type) {
	case bool:
		*o = AdaptiveOptions{}
		if v {
			*o = DefaultAdaptive()
		}
		return nil
	case map[string]any:
		*o = DefaultAdaptive()
		return nil
	}
	return unexpectedSwitch(v, "{ max = 1000 }")
}

func (o *AdaptiveOptions) check(report func(key, problem string)) {
	if o.On && o.Min > o.Max {
		report("adaptive.min", fmt.Sprintf("%d is above adaptive.max = %d", o.Min, o.Max))
	}
}

// adaptive is a limit of requests in flight that finds out by itself what the
// servers can do at the same time: a gradient on latency, as in Envoy's
// adaptive concurrency filter and Netflix' concurrency-limits.
//
// Windows of at least a tenth of a second are judged by their mean latency. The
// limit shrinks by the ratio of what latency may be (that without load, and
// some slack) to what it is, and grows by its square root while it is used up:
// it comes to rest where both are equal, a little above what the servers can
// do. The latency without load is learned in windows in which the limit was
// hardly used; if there are none, the limit is halved now and then for two
// windows: one in which the servers catch up, one that is measured.
//
// It belongs to the pool's ledger. Admission and samples take no lock; whoever
// ends a window takes one that nobody waits for.
type adaptive struct {
	options AdaptiveOptions

	limit   atomic.Int64
	most    atomic.Int64 // requests in flight in this window
	refused atomic.Uint64

	_     [64]byte
	sum   atomic.Int64 // of the window's latencies, ns
	count atomic.Int64
	floor atomic.Int64 // latency without load, ns; 0 before the first window
	ends  atomic.Int64 // of the window; clock of the registry

	mu       sync.Mutex // held while a window is ended
	began    int64
	learning bool    // the limit has never been too high: it grows fast
	probe    int     // windows that the limit is still halved
	probeAt  int64   // when it is halved next
	exact    float64 // the limit, not rounded, and not halved
}

const (
	adaptiveWindow  = int64(100 * time.Millisecond) // at least
	adaptiveLongest = 10                            // windows that are waited for adaptiveSamples
	adaptiveSamples = 20
	adaptiveProbe   = int64(30 * time.Second) // between two measurements without load
)

func newAdaptive(o AdaptiveOptions) *adaptive {
	a := &adaptive{options: o, learning: true}
	a.set(0) // the first window is measured with as little load as there may be
	return a
}

// admits reports whether the n-th request in flight may go on. The last tenth
// of the limit is for those that matter.
func (a *adaptive) admits(n int64, low bool) bool {
	limit := a.limit.Load()
	if low {
		limit -= (limit + 9) / 10
	}
	if n > limit {
		a.refused.Add(1)
		return false
	}
	if n > a.most.Load() {
		a.most.Store(n)
	}
	return true
}

// observe takes the latency of an attempt, in ns, 0 if it was not measured. A
// failed one counts as slow: servers that are overloaded may refuse or time
// out.
func (a *adaptive) observe(latency int64, ok, failed bool, now int64) {
	switch {
	case failed:
		latency = max(latency, 2*a.floor.Load())
	case !ok:
		return
	}
	if latency > 0 {
		a.sum.Add(latency)
		a.count.Add(1)
	}
	if now >= a.ends.Load() && a.mu.TryLock() {
		if now >= a.ends.Load() {
			a.end(now)
		}
		a.mu.Unlock()
	}
}

// end judges the window and begins another one. The caller holds a.mu.
func (a *adaptive) end(now int64) {
	if a.began == 0 {
		a.begin(now, 0)
		a.probeAt = now + adaptiveProbe
		return
	}
	count := a.count.Load()
	if count == 0 || count < adaptiveSamples && now-a.began < adaptiveLongest*adaptiveWindow {
		a.ends.Store(now + adaptiveWindow/10)
		return
	}
	mean := float64(a.sum.Load()) / float64(count)
	floor := float64(a.floor.Load())
	most, limit := a.most.Load(), a.limit.Load()
	busy, idle := 2*most > limit, 4*most < limit
	probed := a.probe == 1
	if a.probe > 0 {
		a.probe--
	}
	switch {
	case floor == 0 || probed:
		floor = mean
	case mean < floor:
		floor += (mean - floor) / 4
	case idle, limit == int64(a.options.Min):
		floor += (mean - floor) / 8 // this is as little load as it gets
	}
	a.floor.Store(max(int64(floor), 1))

	if !probed && a.probe == 0 {
		a.adjust(min(max(floor*(1+a.options.Slack.Fraction())/mean, 0.5), 1), busy)
	}
	if now >= a.probeAt {
		a.probeAt = now + adaptiveProbe
		if busy {
			a.probe = 2
		}
	}
	if a.probe > 0 {
		a.limit.Store(max(int64(a.exact/2), int64(a.options.Min)))
	} else {
		a.set(a.exact)
	}
	a.begin(now, int64(mean))
}

// adjust moves the limit by the gradient, at most 1.
func (a *adaptive) adjust(gradient float64, busy bool) {
	switch {
	case gradient < 1:
		a.learning = false
		a.exact = a.exact*gradient + math.Sqrt(a.exact)
	case !busy:
	case a.learning:
		a.exact *= 1.5
	default:
		a.exact += math.Sqrt(a.exact)
	}
}

func (a *adaptive) set(limit float64) {
	a.exact = min(max(limit, float64(a.options.Min)), float64(a.options.Max))
	a.limit.Store(int64(a.exact))
}

// begin starts a window that is long enough for the last change of the limit
// to be seen.
func (a *adaptive) begin(now, latency int64) {
	a.began = now
	a.ends.Store(now + max(adaptiveWindow, 2*latency))
	a.most.Store(0)
	a.sum.Store(0)
	a.count.Store(0)
}

// Limit is the pool's limit of requests in flight of the moment, 0 without
// AdaptiveOptions, and the number of requests that it did not admit, those
// included that waited then.
func (p *Pool) Limit() (limit int64, refused uint64) {
	if p.adaptive == nil {
		return 0, 0
	}
	return p.adaptive.limit.Load(), p.adaptive.refused.Load()
}
