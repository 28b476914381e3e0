// Package dependency watches the backends of the services behind the gateway:
// Postgres and Redis. Requests ask what is known (Dependency.Down); nothing of
// a request ever waits for a probe.
package dependency

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9/logging"

	"gateway/metrics"
)

// Registry owns what outlives a configuration: dependencies with their probes
// and states. Sets take from it by identity, which is the name with all
// options, and give back when they close; what nobody uses any more is
// stopped.
type Registry struct {
	log      *slog.Logger
	observer Observer
	metrics  *metrics.Registry
	parse    func(*Options) (backend, error)

	ctx     context.Context // ends probes
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex // never held across I/O
	live   map[identity]*Dependency
	lastID uint64
}

type identity struct {
	name    string
	options Options
}

// RegistryOptions are what a registry works with. The zero value is usable.
type RegistryOptions struct {
	Log      *slog.Logger      // nil: nothing is logged
	Observer Observer          // nil: nobody is told
	Metrics  *metrics.Registry // nil: nothing is counted; one dependency registry for each
}

// Observer is told what happens. It is called from the probes' goroutines and
// must not block.
type Observer interface {
	// Flip tells that a dependency went down, for a reason, or came up again.
	// The first probe of one that is up is no flip.
	Flip(name string, up bool, reason string)
}

const (
	upName      = "gateway_dependency_up"
	upHelp      = "Whether a dependency is connected (1) or not (0); one that was not probed yet counts as connected."
	secondsName = "gateway_dependency_probe_seconds"
	secondsHelp = "Time that probes of a dependency took, failed ones included."
)

// NewRegistry is an empty registry. Close ends it. It turns off the log of
// go-redis for the whole process: the library writes each failed dial to
// standard error.
func NewRegistry(o RegistryOptions) *Registry {
	logging.Disable()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &Registry{
		log:      o.Log,
		observer: o.Observer,
		metrics:  o.Metrics,
		parse:    parse,
		ctx:      ctx,
		cancel:   cancel,
		live:     make(map[identity]*Dependency),
	}
	if r.metrics != nil {
		r.metrics.CollectGauge(upName, upHelp, r.collect)
	}
	return r
}

// Build gives the dependencies of a configuration, by name: those that exist
// with the same options, and new ones, whose probes begin at once. A new one
// that asks the same of the same backend as an older one of its name begins
// with the older one's state. Close the set when the configuration that it was
// built for is retired, or was never used.
//
// Those without a URL are not in the set.
//
// The error names the first wrong option ("pg: url: …"); nothing has begun
// then. It holds no secrets.
func (r *Registry) Build(options map[string]Options) (*Set, error) {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(options)) {
		if options[name].URL != "" {
			names = append(names, name)
		}
	}
	backends := make([]backend, len(names))
	for i, name := range names {
		o := options[name]
		var problem error
		o.Check(func(key, text string) {
			if problem == nil {
				problem = fmt.Errorf("%s: %s: %s", name, key, text)
			}
		})
		if problem != nil {
			return nil, problem
		}
		b, err := r.parse(&o)
		if err != nil {
			return nil, fmt.Errorf("%s: url: %w", name, err)
		}
		backends[i] = b
	}
	s := &Set{registry: r}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, name := range names {
		id := identity{name, options[name]}
		d := r.live[id]
		if d == nil {
			d = r.begin(id, backends[i])
		}
		d.users++
		s.list = append(s.list, d)
	}
	return s, nil
}

// begin makes a dependency and starts its probe. The caller holds r.mu.
func (r *Registry) begin(id identity, b backend) *Dependency {
	r.lastID++
	d := &Dependency{
		Name:     id.name,
		Kind:     b.kind,
		Interval: id.options.Interval,
		options:  id.options,
		id:       r.lastID,
		prober:   prober{open: b.open, timeout: id.options.Timeout, secrets: b.secrets},
		since:    time.Now(),
		hurry:    make(chan struct{}, 1),
	}
	d.well.Store(math.MinInt64)
	if r.metrics != nil {
		d.seconds = r.metrics.Histogram(secondsName, secondsHelp, "dependency", d.Name)
	}
	if old := r.newest(d.Name); old != nil && old.options.asks() == d.options.asks() {
		d.inherit(old)
	}
	r.live[id] = d
	ctx, stop := context.WithCancel(r.ctx)
	d.stop = stop
	r.running.Go(func() {
		defer stop()
		d.watch(ctx, func(from, to State, reason string) { r.changed(d, from, to, reason) })
	})
	return d
}

// asks are the options without how often: whom they ask, and what.
func (o Options) asks() Options {
	return Options{URL: o.URL, Primary: o.Primary, MaxLag: o.MaxLag}
}

// newest is the dependency of that name that began last, nil without any. The
// caller holds r.mu.
func (r *Registry) newest(name string) (newest *Dependency) {
	for id, d := range r.live {
		if id.name == name && (newest == nil || d.id > newest.id) {
			newest = d
		}
	}
	return newest
}

// changed tells of a new state.
func (r *Registry) changed(d *Dependency, from, to State, reason string) {
	if to == Connected {
		r.log.Info("dependency is connected", "dependency", d.Name, "kind", d.Kind)
	} else {
		r.log.Warn("dependency is disconnected", "dependency", d.Name, "kind", d.Kind, "reason", reason)
	}
	if r.observer != nil && (from == Disconnected || to == Disconnected) {
		r.observer.Flip(d.Name, to == Connected, reason)
	}
}

// collect gives the samples of gateway_dependency_up. While a reload is under
// way there may be two dependencies of a name; the newer one counts.
func (r *Registry) collect(s *metrics.Samples) {
	r.mu.Lock()
	up := make(map[string]float64, len(r.live))
	for id := range r.live {
		up[id.name] = 1
		if r.newest(id.name).Down() {
			up[id.name] = 0
		}
	}
	r.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(up)) {
		s.Add(up[name], "dependency", name)
	}
}

// Close ends all probes, waits for them and closes their connections. Sets
// that were not closed keep the states that they had.
func (r *Registry) Close() {
	r.cancel()
	r.running.Wait()
}

// Set are the dependencies of one configuration. A nil set is empty.
type Set struct {
	registry *Registry
	list     []*Dependency // by name
	closed   sync.Once
}

// Lookup is the dependency of that name, nil when there is none or it is not
// probed; a nil one is never down.
func (s *Set) Lookup(name string) *Dependency {
	if s == nil {
		return nil
	}
	for _, d := range s.list {
		if d.Name == name {
			return d
		}
	}
	return nil
}

// Ready reports whether none is down on which readiness depends.
func (s *Set) Ready() bool {
	return s == nil || !slices.ContainsFunc(s.list, func(d *Dependency) bool { return d.options.Ready && d.Down() })
}

// Status describes all dependencies, by name. Cold path.
func (s *Set) Status() []Status {
	list := []Status{}
	if s != nil {
		for _, d := range s.list {
			list = append(list, d.Status())
		}
	}
	return list
}

// Close gives the dependencies back. Probes that no other set needs end soon.
func (s *Set) Close() {
	if s != nil {
		s.closed.Do(s.close)
	}
}

func (s *Set) close() {
	r := s.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range s.list {
		if d.users--; d.users > 0 {
			continue
		}
		d.stop()
		delete(r.live, identity{d.Name, d.options})
		if r.metrics != nil && r.newest(d.Name) == nil {
			r.metrics.Remove(secondsName, "dependency", d.Name)
		}
	}
}
