package metrics

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	vm "github.com/VictoriaMetrics/metrics"
)

var testMethods = []string{"OTHER", "GET", "POST"}

// own is what a registry writes, without the families of the runtime.
func own(r *Registry) string {
	var b []byte
	for _, f := range r.snapshot() {
		b = f.appendTo(b)
	}
	return string(b)
}

func wantText(t *testing.T, r *Registry, want string) {
	t.Helper()
	if got := own(r); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// full is a registry with something of each kind.
func full() *Registry {
	r := New()
	r.Build("v1.2.3")
	r.Counter("gateway_ended_total", "Exchanges by who ended them.", "reason", "done").Add(3)
	r.Counter("gateway_ended_total", "Exchanges by who ended them.", "reason", "client\\ \"left\"\n\xff").Inc()
	r.Gauge("gateway_config_last_reload_successful", "1 if the last reload succeeded.").Set(1)
	r.Level("gateway_http_in_flight", "Requests being served.").Add(-2)
	r.GaugeFunc("gateway_cache_bytes", "Bytes of\nthe cache.", func() float64 { return 1.5e18 })
	r.CounterFunc("gateway_access_log_dropped_total", "Lines dropped.", func() float64 { return 7 })
	r.Histogram("gateway_upstream_duration_seconds", "Time of attempts.", "upstream", "users").Observe(3 * time.Millisecond)
	r.CollectGauge("gateway_upstream_up", "1 if the server may be used.", func(s *Samples) {
		s.Add(1, "upstream", "users", "server", "127.0.0.1:1")
		s.Add(0, "upstream", "users", "server", "127.0.0.1:2")
	})
	r.CollectCounter("gateway_nothing_total", "Never has a sample.", func(*Samples) {})
	q := r.Requests("users", testMethods)
	q.Inc(1, 200)
	q.Inc(2, 404)
	q.Observe(1, time.Minute)
	return r
}

func TestPromtoolFindsNothingToSay(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatal("promtool is missing; as root: apt-get install -y --no-install-recommends prometheus")
	}
	cmd := exec.Command(promtool, "check", "metrics")
	text := full().String()
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool: %v\n%s\n%s", err, out, text)
	}
}

func TestFamiliesAreSortedAndDescribedOnce(t *testing.T) {
	var names []string
	heads := map[string]int{}
	for line := range strings.Lines(full().String()) {
		if rest, ok := strings.CutPrefix(line, "# HELP "); ok {
			name, help, _ := strings.Cut(rest, " ")
			names = append(names, name)
			heads[name]++
			if strings.TrimSpace(help) == "" {
				t.Errorf("%s has no help text", name)
			}
		} else if strings.HasPrefix(line, "# TYPE ") {
			heads[strings.Fields(line)[2]] += 100
		}
	}
	if !slices.IsSorted(names) {
		t.Errorf("families are not sorted: %q", names)
	}
	for name, n := range heads {
		if n != 101 {
			t.Errorf("%s: HELP and TYPE are not there exactly once", name)
		}
	}
	for _, name := range []string{"go_goroutines", "go_gc_duration_seconds", "go_memstats_alloc_bytes", "go_info",
		"go_sched_latencies_seconds", "go_gc_gomemlimit_bytes", "process_cpu_seconds_total",
		"process_open_fds", "process_max_fds", "process_resident_memory_bytes", "process_start_time_seconds", "gateway_build_info"} {
		if heads[name] == 0 {
			t.Errorf("%s is missing", name)
		}
	}
	if heads["gateway_nothing_total"] != 0 {
		t.Error("a family without samples is announced")
	}
}

// A new version of the library must not lose or gain a family unnoticed.
func TestEachRuntimeFamilyIsListedOrLeftOutOnPurpose(t *testing.T) {
	leftOut := []string{
		"go_cpu_count",                // GOMAXPROCS is what matters
		"go_info_ext",                 // tells paths of the machine
		"go_memstats_gc_cpu_fraction", // a mean since the start; go_cpu_classes_* can be differentiated
		"go_memstats_lookups_total",   // always 0
	}
	var raw bytes.Buffer
	vm.WriteProcessMetrics(&raw)
	vm.WriteFDMetrics(&raw)
	seen := map[string]bool{}
	for rest := raw.String(); rest != ""; {
		var name string
		name, _, rest = nextFamily(rest)
		if seen[name] {
			t.Errorf("%s stands in two places", name)
		}
		seen[name] = true
		if _, listed := runtimeTable[name]; listed == slices.Contains(leftOut, name) {
			t.Errorf("%s: listed is %v, left out is %v", name, listed, !listed)
		}
	}
	for name := range runtimeTable {
		// Not every kernel tells of I/O, pressure and control groups.
		if !seen[name] && !strings.HasPrefix(name, "process_io_") && !strings.HasPrefix(name, "process_pressure_") &&
			!strings.HasPrefix(name, "process_cgroup_") {
			t.Errorf("%s is listed but not written", name)
		}
	}
}

func TestHistogramOfTheRuntimeGetsSumAndCount(t *testing.T) {
	got := rewrite("go_gc_pauses_seconds_bucket{le=\"0\"} 0\n" +
		"go_gc_pauses_seconds_bucket{le=\"0.5\"} 4\ngo_gc_pauses_seconds_bucket{le=\"+Inf\"} 6\ngo_other 1\n")
	if len(got) != 1 || !strings.HasSuffix(string(got[0].text), "go_gc_pauses_seconds_sum 2\ngo_gc_pauses_seconds_count 6\n") {
		t.Errorf("got %q", got)
	}
}

// The library's switch for HELP and TYPE is global; others may have turned it on.
func TestDescriptionsOfTheLibraryAreReplaced(t *testing.T) {
	got := rewrite("# HELP go_goroutines\n# TYPE go_goroutines gauge\ngo_goroutines 7\n# HELP go_gomaxprocs\n# TYPE go_gomaxprocs gauge\ngo_gomaxprocs 2\n")
	if len(got) != 2 || string(got[0].text) != "# HELP go_goroutines Goroutines that exist.\n# TYPE go_goroutines gauge\ngo_goroutines 7\n" ||
		!strings.HasSuffix(string(got[1].text), "\ngo_sched_gomaxprocs_threads 2\n") {
		t.Errorf("got %q", got)
	}
}

func TestSameNameAndLabelsGiveTheSameHandle(t *testing.T) {
	r := New()
	a := r.Counter("a_total", "A.", "k", "v")
	a.Inc()
	if b := r.Counter("a_total", "A.", "k", "v"); a != b {
		t.Error("another counter")
	}
	if b := r.Counter("a_total", "A.", "k", "w"); a == b {
		t.Error("the same counter for another value")
	}
	q, h := r.Requests("x", testMethods), r.Histogram("a_seconds", "A.")
	if r.Requests("x", testMethods) != q {
		t.Error("another set of requests")
	}
	if r.Histogram("a_seconds", "A.") != h {
		t.Error("another histogram")
	}
	if text := own(r); !strings.Contains(text, "a_total{k=\"v\"} 1\na_total{k=\"w\"} 0\n") {
		t.Errorf("got:\n%s", text)
	}
}

func TestLabelValuesAndHelpAreEscaped(t *testing.T) {
	r := New()
	r.Gauge("g", "back\\slash, \"quote\",\nline", "k", "back\\slash, \"quote\",\nline, \xff, ü").Set(0.5)
	wantText(t, r, "# HELP g back\\\\slash, \"quote\",\\nline\n# TYPE g gauge\n"+
		"g{k=\"back\\\\slash, \\\"quote\\\",\\nline, \uFFFD, ü\"} 0.5\n")
}

func TestValues(t *testing.T) {
	f := func(v float64, want string) {
		t.Helper()
		if got := string(appendValue(nil, v)); got != want {
			t.Errorf("%v is written as %s; want %s", v, got, want)
		}
	}
	f(0, "0")
	f(-3, "-3")
	f(1e9, "1000000000")
	f(1e18, "1e+18")
	f(0.25, "0.25")
	f(math.Inf(1), "+Inf")
	f(math.Inf(-1), "-Inf")
	f(math.NaN(), "NaN")
}

func TestDurationsAreWrittenInSeconds(t *testing.T) {
	r := New()
	s := r.Seconds("s_seconds_total", "S.", "k", "v")
	s.Add(1500 * time.Millisecond)
	s.Add(time.Microsecond)
	wantText(t, r, "# HELP s_seconds_total S.\n# TYPE s_seconds_total counter\ns_seconds_total{k=\"v\"} 1.500001\n")
	if r.Sum("s_seconds_total") != 1.500001 || s.Value() != 1_500_001*time.Microsecond || r.Seconds("s_seconds_total", "S.", "k", "v") != s {
		t.Errorf("sum %v, value %v", r.Sum("s_seconds_total"), s.Value())
	}
}

func TestHistogramBuckets(t *testing.T) {
	r := New()
	h := r.Histogram("d_seconds", "D.", "k", "v")
	h.Observe(-time.Second)
	h.Observe(250 * time.Microsecond)
	h.Observe(250*time.Microsecond + 1)
	h.Observe(10 * time.Second)
	h.Observe(11 * time.Second)
	want := "# HELP d_seconds D.\n# TYPE d_seconds histogram\n"
	for _, b := range []struct {
		le string
		n  int
	}{{"0.00025", 2}, {"0.0005", 3}, {"0.001", 3}, {"0.0025", 3}, {"0.005", 3}, {"0.01", 3}, {"0.025", 3}, {"0.05", 3}, {"0.1", 3},
		{"0.25", 3}, {"0.5", 3}, {"1", 3}, {"2.5", 3}, {"5", 3}, {"10", 4}, {"+Inf", 5}} {
		want += fmt.Sprintf("d_seconds_bucket{k=\"v\",le=\"%s\"} %d\n", b.le, b.n)
	}
	wantText(t, r, want+"d_seconds_sum{k=\"v\"} 21.000500001\nd_seconds_count{k=\"v\"} 5\n")
	if h.Count() != 5 {
		t.Errorf("Count is %d", h.Count())
	}
}

func TestRequestsByMethodAndStatus(t *testing.T) {
	r := New()
	q := r.Requests("users", testMethods)
	for _, status := range []int{200, 200, 100, 599, 99, 600, -1, math.MaxInt} {
		q.Inc(1, status)
	}
	q.Inc(0, 200)
	q.Inc(77, 200)
	wantText(t, r, "# HELP gateway_http_requests_total "+requestsHelp+"\n# TYPE gateway_http_requests_total counter\n"+
		"gateway_http_requests_total{route=\"users\",method=\"OTHER\",status=\"200\"} 2\n"+
		"gateway_http_requests_total{route=\"users\",method=\"GET\",status=\"0\"} 4\n"+
		"gateway_http_requests_total{route=\"users\",method=\"GET\",status=\"100\"} 1\n"+
		"gateway_http_requests_total{route=\"users\",method=\"GET\",status=\"200\"} 2\n"+
		"gateway_http_requests_total{route=\"users\",method=\"GET\",status=\"599\"} 1\n")
	q.Observe(2, time.Millisecond)
	q.Observe(200, time.Millisecond)
	text := own(r)
	for _, want := range []string{
		`gateway_http_request_duration_seconds_bucket{route="users",method="POST",le="0.001"} 1`,
		`gateway_http_request_duration_seconds_count{route="users",method="OTHER"} 1`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("%s is missing in\n%s", want, text)
		}
	}
}

func TestRemoveForgetsWhatCarriesAllLabels(t *testing.T) {
	r := New()
	add := func(upstream, server, result string) *Counter {
		return r.Counter("u_total", "U.", "upstream", upstream, "server", server, "result", result)
	}
	old := add("a", "1", "ok")
	old.Inc()
	add("a", "1", "failed")
	add("a", "2", "ok")
	add("b", "1", "ok")
	r.Level("v", "V.", "server", "1")
	r.CollectGauge("w", "W.", func(s *Samples) { s.Add(1, "server", "1") })
	r.Remove("u_total", "server", "1", "upstream", "a")
	head := "# HELP u_total U.\n# TYPE u_total counter\n"
	a2 := "u_total{upstream=\"a\",server=\"2\",result=\"ok\"} 0\n"
	w := "# HELP w W.\n# TYPE w gauge\nw{server=\"1\"} 1\n"
	wantText(t, r, head+a2+"u_total{upstream=\"b\",server=\"1\",result=\"ok\"} 0\n# HELP v V.\n# TYPE v gauge\nv{server=\"1\"} 0\n"+w)
	r.Remove("", "server", "1")
	wantText(t, r, head+a2+w)
	old.Inc() // a handle that somebody still holds does no harm
	if again := add("a", "1", "ok"); again == old || again.Value() != 0 {
		t.Error("a series that returns does not begin anew")
	}
}

func TestNewestFunctionReplacesOlderOnes(t *testing.T) {
	r := New()
	r.GaugeFunc("g", "G.", func() float64 { return 1 }, "k", "v")
	r.GaugeFunc("g", "G.", func() float64 { return 2 }, "k", "v")
	wantText(t, r, "# HELP g G.\n# TYPE g gauge\ng{k=\"v\"} 2\n")
}

func TestMistakesOfTheProgramPanic(t *testing.T) {
	f := func(mistake string, do func(r *Registry)) {
		t.Helper()
		defer func() {
			t.Helper()
			if p, _ := recover().(string); !strings.HasPrefix(p, "BUG: ") {
				t.Errorf("%s: panic %q", mistake, p)
			}
		}()
		r := New()
		r.Counter("known_total", "Known.", "k", "v")
		r.CollectGauge("collected", "Collected.", func(s *Samples) { s.Add(1, "a", "x"); s.Add(1, "b", "x") })
		do(r)
	}
	counter := func(name, help string, labels ...string) func(*Registry) {
		return func(r *Registry) { r.Counter(name, help, labels...) }
	}
	f("empty name", counter("", "H."))
	f("space in name", counter("a b_total", "H."))
	f("digit first", counter("1_total", "H."))
	f("colon", counter("a:b_total", "H."))
	f("no help", counter("a_total", " "))
	f("counter without _total", counter("a", "H."))
	f("gauge with _total", func(r *Registry) { r.Gauge("a_total", "H.") })
	f("histogram without unit", func(r *Registry) { r.Histogram("a", "H.") })
	f("name of the runtime", func(r *Registry) { r.Gauge("go_goroutines", "H.") })
	f("name of a part", func(r *Registry) { r.Gauge("a_count", "H.") })
	f("odd labels", counter("a_total", "H.", "k"))
	f("bad label name", counter("a_total", "H.", "k-v", "x"))
	f("reserved label name", counter("a_total", "H.", "__k", "x"))
	f("le as label", counter("a_total", "H.", "le", "x"))
	f("label twice", counter("a_total", "H.", "k", "x", "k", "y"))
	f("another label name", counter("known_total", "Known.", "j", "v"))
	f("fewer labels", counter("known_total", "Known."))
	f("another help text", counter("known_total", "Unknown.", "k", "v"))
	f("another type of handle", func(r *Registry) {
		r.CounterFunc("known_total", "Known.", func() float64 { return 0 }, "k", "v")
	})
	f("collected twice", func(r *Registry) { r.CollectGauge("collected", "Collected.", func(*Samples) {}) })
	f("collected and counted", func(r *Registry) { r.Gauge("collected", "Collected.") })
	f("collected with other labels", func(r *Registry) { _ = r.String() })
	f("other methods", func(r *Registry) { r.Requests("x", testMethods); r.Requests("x", testMethods[:1]) })
	f("remove by half a pair", func(r *Registry) { r.Remove("known_total", "k") })
}

func TestConcurrentUseLosesNothing(t *testing.T) {
	r := New()
	const workers, each = 8, 2000
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			q := r.Requests("users", testMethods)
			level := r.Level("level", "Level.")
			for i := range each {
				q.Inc(uint8(i%3), 200+i%5)
				q.Observe(1, time.Millisecond)
				level.Inc()
				if i%100 == 0 {
					r.Counter("extra_total", "Extra.", "w", fmt.Sprint(w), "i", fmt.Sprint(i))
					_ = r.String()
					r.Remove("extra_total", "w", fmt.Sprint(w))
				}
				level.Dec()
			}
		})
	}
	wg.Wait()
	q := r.Requests("users", testMethods)
	if n := q.Total(); n != workers*each {
		t.Errorf("%d requests counted; want %d", n, workers*each)
	}
	if n := q.durations[1].Load().Count(); n != workers*each {
		t.Errorf("%d durations counted; want %d", n, workers*each)
	}
	if v := r.Level("level", "Level.").Value(); v != 0 {
		t.Errorf("level is %d", v)
	}
}

func TestErrorOfTheWriterIsReturned(t *testing.T) {
	want := errors.New("full")
	if err := New().WritePrometheus(failing{want}); err != want {
		t.Errorf("got %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// Whoever samples the registry every few seconds leaves nothing behind.
func TestSumsAllocNothing(t *testing.T) {
	r := New()
	r.Counter("gateway_a_total", "A.", "x", "1").Add(2)
	r.Counter("gateway_a_total", "A.", "x", "2").Add(3)
	r.CollectGauge("gateway_b", "B.", func(*Samples) {}) // has no series
	if n := testing.AllocsPerRun(100, func() {
		if r.Sum("gateway_a_total") != 5 || r.Sum("gateway_c_total") != 0 {
			t.Error("another sum")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	more := r.Counter("gateway_a_total", "A.", "x", "3")
	more.Add(4)
	r.Counter("gateway_c_total", "C.").Inc()
	if a, c := r.Sum("gateway_a_total"), r.Sum("gateway_c_total"); a != 9 || c != 1 {
		t.Errorf("%v and %v after series were added", a, c)
	}
	r.Remove("gateway_a_total", "x", "1")
	if a := r.Sum("gateway_a_total"); a != 7 {
		t.Errorf("%v after a series was removed", a)
	}
}
