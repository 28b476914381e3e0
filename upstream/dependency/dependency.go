package dependency

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"gateway/internal/clock"
	"gateway/internal/health"
	"gateway/metrics"
)

// Dependency is a backend and what is known about it. Its probe runs in a
// goroutine of its own; nothing here waits for it.
type Dependency struct {
	Name     string        // as in the configuration, metrics and log
	Kind     Kind          // which probe it has
	Interval time.Duration // between probes: when it makes sense to ask again

	options Options
	id      uint64 // rises with each dependency of a registry
	prober  prober
	seconds *metrics.Histogram // nil without metrics

	// Written by watch alone.

	state  atomic.Uint32 // State
	failed atomic.Bool   // the last probe failed
	well   atomic.Int64  // when the last probe that passed began, as clock.Mono

	hurry chan struct{} // somebody is in doubt: the next probe is wanted soon

	mu      sync.Mutex    // guards what follows
	reason  string        // why the last probe failed, "" when it passed
	since   time.Time     // when the state changed last, or the dependency was first known
	latency time.Duration // of the last probe

	// Guarded by Registry.mu.

	users int                // sets that hold it
	stop  context.CancelFunc // ends its probe
}

// Down reports whether the backend is known to be away. A nil dependency and
// one that has not been probed yet are not down. One atomic load: allocates
// nothing, takes no lock.
func (d *Dependency) Down() bool {
	return d != nil && State(d.state.Load()) == Disconnected
}

// Failing reports whether the backend is away, or may turn out to be: sooner
// than Down it believes a single failed probe. Two atomic loads: allocates
// nothing, takes no lock.
func (d *Dependency) Failing() bool {
	return d != nil && (d.failed.Load() || d.Down())
}

// Doubtful reports whether no probe that began after that moment, as clock.Mono
// has it, has passed yet: then nobody knows whether the backend was well at the
// time, and the next probe comes soon. Allocates nothing, takes no lock.
func (d *Dependency) Doubtful(since int64) bool {
	if d == nil || d.well.Load() > since {
		return false
	}
	select {
	case d.hurry <- struct{}{}:
	default:
	}
	return true
}

// State is what the probes say of a dependency, in words of its own.
type State health.State

// The states of a dependency.
const (
	Unknown      = State(health.Unknown) // not probed yet; counts as connected
	Connected    = State(health.Up)
	Disconnected = State(health.Down)
)

// String is the state's name in status and logs.
func (s State) String() string {
	return [...]string{"unknown", "connected", "disconnected"}[s]
}

// State is what the probes say.
func (d *Dependency) State() State { return State(d.state.Load()) }

// Status is a dependency as an operator sees it. It holds no secrets.
type Status struct {
	Name    string    `json:"name"`
	Kind    Kind      `json:"kind"`
	State   string    `json:"state"`            // connected, disconnected or unknown
	Reason  string    `json:"reason,omitempty"` // why the last probe failed
	Since   time.Time `json:"since"`            // when the state changed last, or the dependency was first known
	Latency float64   `json:"latency_ms"`       // of the last probe, 0 before it
}

// Status describes the dependency. Cold path.
func (d *Dependency) Status() Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	return Status{
		Name:    d.Name,
		Kind:    d.Kind,
		State:   d.State().String(),
		Reason:  d.reason,
		Since:   d.since,
		Latency: float64(d.latency) / float64(time.Millisecond),
	}
}

// watch probes until ctx is done, the first time at once.
func (d *Dependency) watch(ctx context.Context, changed func(from, to State, reason string)) {
	defer d.prober.close()
	checker := health.Checker{State: health.State(d.State())}
	for {
		select {
		case <-d.hurry: // this is the probe that is wanted
		default:
		}
		mono, began := clock.Mono(), time.Now()
		reason, void := d.prober.probe(ctx)
		if ctx.Err() != nil {
			return
		}
		took := time.Since(began)
		if d.seconds != nil {
			d.seconds.Observe(took)
		}
		if from := d.State(); !void {
			to := State(checker.Next(reason == "", d.options.Fails, d.options.Passes))
			if d.become(to, reason, took) {
				changed(from, to, reason)
			}
		}
		if reason == "" && !void {
			d.well.Store(mono)
		}
		if !d.rest(ctx, began, pace(&d.options, d.State())) {
			return
		}
	}
}

// become records a probe and reports whether it changed the state.
func (d *Dependency) become(s State, reason string, took time.Duration) (changed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reason, d.latency = reason, took
	d.failed.Store(reason != "")
	if s == d.State() {
		return false
	}
	d.since = time.Now()
	d.state.Store(uint32(s))
	return true
}

// inherit takes over what another dependency knows about the same backend. The
// probe has not begun yet.
func (d *Dependency) inherit(from *Dependency) {
	from.mu.Lock()
	defer from.mu.Unlock()
	d.reason, d.since, d.latency = from.reason, from.since, from.latency
	d.failed.Store(from.failed.Load())
	d.well.Store(from.well.Load())
	d.state.Store(from.state.Load())
}

// rest waits until the next probe is due, or one is wanted sooner. It reports
// false when ctx was done before.
func (d *Dependency) rest(ctx context.Context, began time.Time, pause time.Duration) bool {
	timer := time.NewTimer(pause - time.Since(began))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	case <-d.hurry:
		return clock.Sleep(ctx, min(pause, hurried(&d.options))-time.Since(began))
	}
}
