// Package metrics counts what the gateway does and writes it down as
// Prometheus text.
//
// A Registry holds families by name and series by label values. Asking twice
// for the same name and labels gives the same handle, so that counters survive
// a reload that builds everything anew. Handles are resolved when a
// configuration is built; using them takes no lock and allocates nothing.
// Label values come from the configuration or from closed sets, never from a
// client: nothing here limits the number of series.
//
// Wrong names, label names that differ within a family, and a family of two
// kinds are mistakes of the program and panic.
package metrics

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Registry is a set of families. It is safe for use by several goroutines.
type Registry struct {
	mu       sync.Mutex
	families map[string]*family
	sorted   []*family // by name; nil when a family has been added since
	current  []family  // what snapshot returned; nil when a family or series came or went since
}

// family is what shares a name, a help text and a kind.
type family struct {
	name, help string
	kind       kind
	labels     []string           // names of its labels, as its first series had them
	series     map[string]*series // by their labels as text
	sorted     []*series          // by their labels as text; nil when one was added or removed since
	collect    func(*Samples)     // gives the samples instead of series
}

// series is one line of a family, or the few that belong together.
type series struct {
	pairs  []string // names and values in turn
	labels string   // pairs as text without braces
	source source
}

// source is what a series reads its value from.
type source interface {
	// appendTo appends the lines of the series called name with these labels.
	appendTo(b []byte, name, labels string) []byte
}

type kind string

const (
	counter   kind = "counter"
	gauge     kind = "gauge"
	histogram kind = "histogram"
	summary   kind = "summary" // the Go runtime's only
)

// New is an empty registry. What it writes includes the process_* and go_*
// families.
func New() *Registry { return &Registry{families: map[string]*family{}} }

// Counter is the counter with this name, which ends in _total, and these
// labels, names and values in turn. The help text is the family's.
func (r *Registry) Counter(name, help string, labels ...string) *Counter {
	return obtain(r, name, help, counter, labels, newCounter)
}

// Seconds is the counter of durations with this name, which ends in
// _seconds_total, and these labels.
func (r *Registry) Seconds(name, help string, labels ...string) *Seconds {
	return obtain(r, name, help, counter, labels, func() *Seconds { return (*Seconds)(newCounter()) })
}

// Gauge is the gauge with this name and these labels, for a value that is set.
func (r *Registry) Gauge(name, help string, labels ...string) *Gauge {
	return obtain(r, name, help, gauge, labels, func() *Gauge { return new(Gauge) })
}

// Level is the gauge with this name and these labels, for a value that many
// goroutines raise and lower.
func (r *Registry) Level(name, help string, labels ...string) *Level {
	return obtain(r, name, help, gauge, labels, func() *Level { return (*Level)(newCounter()) })
}

// Histogram is the histogram of durations with this name, which ends in
// _seconds, and these labels.
func (r *Registry) Histogram(name, help string, labels ...string) *Histogram {
	return obtain(r, name, help, histogram, labels, newHistogram)
}

// GaugeFunc has f asked for the value of a gauge at each scrape. The newest f
// for the same name and labels replaces older ones.
func (r *Registry) GaugeFunc(name, help string, f func() float64, labels ...string) {
	r.function(name, help, gauge, f, labels)
}

// CounterFunc is GaugeFunc for a value that never falls and a name that ends
// in _total.
func (r *Registry) CounterFunc(name, help string, f func() float64, labels ...string) {
	r.function(name, help, counter, f, labels)
}

func (r *Registry) function(name, help string, k kind, f func() float64, labels []string) {
	s := obtain(r, name, help, k, labels, func() *function { return new(function) })
	s.f.Store(&f)
}

// CollectGauge has f asked for all samples of a family of gauges at each
// scrape: for things that come and go, such as servers. A family has one such
// function and no other series.
func (r *Registry) CollectGauge(name, help string, f func(*Samples)) {
	r.collect(name, help, gauge, f)
}

// CollectCounter is CollectGauge for a family of counters.
func (r *Registry) CollectCounter(name, help string, f func(*Samples)) {
	r.collect(name, help, counter, f)
}

func (r *Registry) collect(name, help string, k kind, f func(*Samples)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.families[name] != nil {
		panic(fmt.Sprintf("BUG: metric %s is registered twice", name))
	}
	r.family(name, help, k).collect = f
}

// Remove forgets the series of the named family, or of every family when name
// is "", that carry all these labels, names and values in turn: what belongs to
// a server that went away. Handles to them may still be used, but nobody sees
// what they count. Families given by a Collect function are left alone.
func (r *Registry) Remove(name string, labels ...string) {
	if len(labels)%2 != 0 || len(labels) == 0 {
		panic(fmt.Sprintf("BUG: labels %q to remove are not pairs", labels))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.families {
		if name != "" && f.name != name {
			continue
		}
		for key, s := range f.series {
			if carries(s.pairs, labels) {
				delete(f.series, key)
				f.sorted, r.current = nil, nil
			}
		}
	}
}

// carries reports whether all wanted pairs are among pairs.
func carries(pairs, wanted []string) bool {
	for want := range slices.Chunk(wanted, 2) {
		found := false
		for pair := range slices.Chunk(pairs, 2) {
			found = found || slices.Equal(pair, want)
		}
		if !found {
			return false
		}
	}
	return true
}

// obtain is the source of the series with this name and these labels, made by
// create if there is none.
func obtain[S source](r *Registry, name, help string, k kind, labels []string, create func() S) S {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.family(name, help, k)
	if f.collect != nil {
		panic(fmt.Sprintf("BUG: metric %s has a function that collects it", name))
	}
	f.labels = checkLabels(name, f.labels, labels)
	key := string(appendLabels(nil, labels))
	if s := f.series[key]; s != nil {
		found, ok := s.source.(S)
		if !ok {
			panic(fmt.Sprintf("BUG: metric %s{%s} is a %T", name, key, s.source))
		}
		return found
	}
	made := create()
	f.series[key] = &series{pairs: slices.Clone(labels), labels: key, source: made}
	f.sorted, r.current = nil, nil
	return made
}

// family finds or makes a family; r.mu is held.
func (r *Registry) family(name, help string, k kind) *family {
	if f := r.families[name]; f != nil {
		if f.kind != k || f.help != help {
			panic(fmt.Sprintf("BUG: metric %s is a %s with help %q, not a %s with help %q", name, f.kind, f.help, k, help))
		}
		return f
	}
	checkFamily(name, help, k)
	f := &family{name: name, help: help, kind: k, series: map[string]*series{}}
	r.families[name] = f
	r.sorted, r.current = nil, nil
	return f
}

// snapshot is the registry at one moment, sorted. It must not be changed: as
// long as no family or series comes or goes, it is the same one.
func (r *Registry) snapshot() []family {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current != nil {
		return r.current
	}
	if r.sorted == nil {
		for _, name := range slices.Sorted(maps.Keys(r.families)) {
			r.sorted = append(r.sorted, r.families[name])
		}
	}
	families := make([]family, 0, len(r.sorted))
	for _, f := range r.sorted {
		if f.sorted == nil {
			for _, key := range slices.Sorted(maps.Keys(f.series)) {
				f.sorted = append(f.sorted, f.series[key])
			}
		}
		// The series list is replaced, never changed, so that the copy is safe.
		families = append(families, family{name: f.name, help: f.help, kind: f.kind, sorted: f.sorted, collect: f.collect})
	}
	r.current = families
	return families
}

// find is the family with this name at one moment, an empty one if there is none.
func (r *Registry) find(name string) family {
	families := r.snapshot()
	i, found := slices.BinarySearchFunc(families, name, func(f family, name string) int { return strings.Compare(f.name, name) })
	if !found {
		return family{}
	}
	return families[i]
}
