package dependency

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"gateway/metrics"
)

// fake is a backend that does as it is told.
type fake struct {
	mu     sync.Mutex
	err    error
	hang   bool
	asked  []time.Time
	opened int
	closed int
}

func (f *fake) set(err error, hang bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err, f.hang = err, hang
}

func (f *fake) probes() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.asked)
}

func (f *fake) ask(ctx context.Context) error {
	f.mu.Lock()
	f.asked = append(f.asked, time.Now())
	err, hang := f.err, f.hang
	f.mu.Unlock()
	if hang {
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}

func (f *fake) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed++
}

func (f *fake) open(context.Context) (session, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opened++
	return f, nil
}

// events remember what was told.
type events struct {
	mu   sync.Mutex
	list []string
}

func (e *events) Flip(name string, up bool, reason string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, strings.TrimSpace(fmt.Sprintf("%s %v %s", name, up, reason)))
}

func (e *events) want(t *testing.T, want ...string) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if !slices.Equal(e.list, want) {
		t.Errorf("flips %q; want %q", e.list, want)
	}
}

type world struct {
	*Registry
	fake    *fake
	events  *events
	metrics *metrics.Registry
	log     *bytes.Buffer // to be read in a still bubble
}

// newWorld is a registry over a fake backend, in a bubble.
func newWorld(t *testing.T) *world {
	w := &world{fake: new(fake), events: new(events), metrics: metrics.New(), log: new(bytes.Buffer)}
	w.Registry = NewRegistry(RegistryOptions{Log: slog.New(slog.NewTextHandler(w.log, nil)), Observer: w.events, Metrics: w.metrics})
	w.Registry.parse = func(*Options) (backend, error) {
		return backend{kind: Redis, open: w.fake.open, secrets: secrets{"hunter2"}}, nil
	}
	t.Cleanup(w.Close)
	return w
}

func (w *world) build(t *testing.T, o Options) (*Set, *Dependency) {
	t.Helper()
	s, err := w.Build(map[string]Options{"db": o})
	if err != nil {
		t.Fatal(err)
	}
	return s, s.Lookup("db")
}

func (w *world) metric(t *testing.T, line string, present bool) {
	t.Helper()
	var b bytes.Buffer
	if err := w.metrics.WritePrometheus(&b); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), line+"\n") != present {
		t.Errorf("%q among the metrics: %v; want %v", line, !present, present)
	}
}

// exact are options without jitter.
func exact() Options {
	o := defaults("redis://x")
	o.Jitter = 0
	return o
}

var errAway = errors.New("connection refused for hunter2")

func TestStateFollowsTheProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s, d := w.build(t, exact())
		synctest.Wait()
		if d.State() != Connected {
			t.Errorf("after a passed probe it is %v", d.State())
		}
		w.metric(t, `gateway_dependency_up{dependency="db"} 1`, true)

		w.fake.set(errAway, false)
		gone := time.Now()
		time.Sleep(4*time.Second + time.Second)
		if d.Down() {
			t.Error("down after two failed probes of three")
		}
		if r := s.Status()[0].Reason; r != "connection refused for ***" {
			t.Errorf("reason %q", r)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if !d.Down() || time.Since(gone) != 6*time.Second {
			t.Errorf("after three failed probes it is %v", d.State())
		}
		w.metric(t, `gateway_dependency_up{dependency="db"} 0`, true)

		// The worst moment to return is right after a probe.
		time.Sleep(10 * time.Second / 15 * 4)
		synctest.Wait()
		w.fake.set(nil, false)
		time.Sleep(2 * time.Second)
		if d.Down() {
			t.Error("still down one interval after the return")
		}
		st := s.Status()[0]
		if st.Name != "db" || st.Kind != Redis || st.State != "connected" || st.Reason != "" {
			t.Errorf("%+v", st)
		}
		w.events.want(t, "db false connection refused for ***", "db true")
		if n := strings.Count(w.log.String(), "\n"); n != 3 || strings.Contains(w.log.String(), "hunter2") {
			t.Errorf("log:\n%s", w.log)
		}
		w.metric(t, fmt.Sprintf(`gateway_dependency_probe_seconds_count{dependency="db"} %d`, d.seconds.Count()), true)
		w.Close()
		if w.fake.opened != w.fake.closed {
			t.Errorf("%d sessions opened, %d closed", w.fake.opened, w.fake.closed)
		}
	})
}

func TestFirstProbeDecidesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.fake.set(nil, true)
		_, d := w.build(t, exact())
		synctest.Wait()
		if d.State() != Unknown || d.Down() {
			t.Errorf("during its first probe it is %v, down %v", d.State(), d.Down())
		}
		w.metric(t, `gateway_dependency_up{dependency="db"} 1`, true)
		time.Sleep(time.Second)
		synctest.Wait()
		if !d.Down() {
			t.Error("not down after a first failed probe")
		}
		w.events.want(t, "db false no answer within 1s")
	})
}

func TestHangingBackendIsDownAfterItsTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s, d := w.build(t, exact())
		synctest.Wait()
		w.fake.set(nil, true)
		time.Sleep(7*time.Second - time.Nanosecond)
		if d.Down() {
			t.Error("down too early")
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if st := s.Status()[0]; !d.Down() || st.Reason != "no answer within 1s" || st.Latency != 1000 {
			t.Errorf("%+v", st)
		}
	})
}

func TestKeptSessionIsNotBlamedAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		o := exact()
		o.Fails = 1
		stale := true
		w.Registry.parse = func(*Options) (backend, error) {
			return backend{kind: Redis, open: func(ctx context.Context) (session, error) {
				w.fake.opened++
				f := &fake{}
				if stale { // well once, broken ever after
					stale = false
					return &wearing{fake: f}, nil
				}
				return f, nil
			}}, nil
		}
		_, d := w.build(t, o)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if d.Down() || w.fake.opened != 2 {
			t.Errorf("%v, %d sessions; want it connected by a second one", d.State(), w.fake.opened)
		}
		w.events.want(t)
	})
}

// wearing breaks after its first use.
type wearing struct {
	*fake
	used bool
}

func (w *wearing) ask(context.Context) error {
	if w.used {
		return errAway
	}
	w.used = true
	return nil
}

func TestLackOfResourcesHereSaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s, d := w.build(t, exact())
		synctest.Wait()
		w.fake.set(&net.OpError{Op: "dial", Err: os.NewSyscallError("socket", syscall.EMFILE)}, false)
		time.Sleep(time.Minute)
		if d.State() != Connected || s.Status()[0].Reason != "" {
			t.Errorf("%+v", s.Status()[0])
		}
	})
}

func TestProbesAreJitteredAndDenserWhileDown(t *testing.T) {
	o := defaults("redis://x")
	for range 1000 {
		if d := pace(&o, Connected); d < 1800*time.Millisecond || d > 2200*time.Millisecond {
			t.Fatalf("pace while up: %v", d)
		}
		if d := pace(&o, Disconnected); d < 600*time.Millisecond || d > 734*time.Millisecond {
			t.Fatalf("pace while down: %v", d)
		}
	}
	o.Interval, o.Jitter, o.Passes = 10*time.Millisecond, 100, 100
	if d := pace(&o, Disconnected); d < minPace {
		t.Errorf("pace %v", d)
	}
}

func TestUnchangedOptionsKeepTheProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.fake.set(errAway, false)
		first, d := w.build(t, exact())
		synctest.Wait()
		second, same := w.build(t, exact())
		if same != d {
			t.Fatal("a second set has another dependency")
		}
		first.Close()
		first.Close()
		n := w.fake.probes()
		time.Sleep(time.Minute)
		if w.fake.probes() == n {
			t.Error("the probe has stopped though a set needs it")
		}

		// A reload with another interval: the same question, another probe.
		o := exact()
		o.Interval = time.Hour
		third, changed := w.build(t, o)
		if changed == d || !changed.Down() || changed.Status().Since != d.Status().Since {
			t.Error("the new dependency does not know what the old one knew")
		}
		second.Close()
		synctest.Wait()
		n = w.fake.probes()
		time.Sleep(time.Minute)
		if w.fake.probes() != n {
			t.Error("the old probe goes on")
		}
		w.metric(t, `gateway_dependency_up{dependency="db"} 0`, true)
		w.events.want(t, "db false connection refused for ***")

		// Another question: nothing is known.
		o.Primary = true
		w.fake.set(nil, true)
		fourth, other := w.build(t, o)
		if other.State() != Unknown {
			t.Error("another question has an answer already")
		}
		third.Close()
		fourth.Close()
		w.metric(t, `gateway_dependency_up{dependency="db"} 1`, false)
		w.metric(t, `gateway_dependency_probe_seconds_sum{dependency="db"} 0`, false)
		if fourth.Lookup("none") != nil || (*Set)(nil).Lookup("db") != nil || (*Dependency)(nil).Down() || len((*Set)(nil).Status()) != 0 {
			t.Error("what does not exist is there")
		}
		(*Set)(nil).Close()
	})
}

func TestDependencyWithoutURLIsNotProbed(t *testing.T) {
	r := NewRegistry(RegistryOptions{})
	defer r.Close()
	s, err := r.Build(map[string]Options{"db": defaults("")})
	if err != nil {
		t.Fatal(err)
	}
	if d := s.Lookup("db"); d != nil || d.Down() || len(s.Status()) != 0 || len(problems(defaults(""))) != 0 {
		t.Errorf("%+v", s.Status())
	}
}

func TestReadinessDependsOnWhatIsToldTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		any, d := w.build(t, exact())
		o := exact()
		o.Ready = true
		needed, _ := w.build(t, o)
		synctest.Wait()
		if d.Failing() || !needed.Ready() || !(*Set)(nil).Ready() {
			t.Error("not ready though all is well")
		}
		w.fake.set(errAway, false)
		time.Sleep(o.Interval)
		synctest.Wait()
		if !d.Failing() || d.Down() || !needed.Ready() {
			t.Error("a first failed probe is not told, or believed too soon")
		}
		time.Sleep(2 * o.Interval)
		synctest.Wait()
		if !any.Ready() || needed.Ready() {
			t.Errorf("ready %v without the option, %v with it", any.Ready(), needed.Ready())
		}
	})
}

func TestWrongOptionsBeginNothing(t *testing.T) {
	r := NewRegistry(RegistryOptions{})
	defer r.Close()
	_, err := r.Build(map[string]Options{"a": defaults("redis://127.0.0.1:1"), "b": defaults("redis://:hunter2@h/x")})
	if err == nil || !strings.HasPrefix(err.Error(), "b: url: ") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
	if len(r.live) != 0 {
		t.Error("a probe has begun")
	}
}
