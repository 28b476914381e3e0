package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// world is a registry whose name server and checks a test scripts. It runs
// within a synctest bubble, whose end proves that no goroutine is left.
type world struct {
	*Registry
	t   *testing.T
	log bytes.Buffer // read after synctest.Wait

	mu     sync.Mutex
	names  map[string][]string // addresses by host name; none: the lookup fails
	srv    map[string][]*net.SRV
	asked  map[string]int   // lookups by host name
	broken map[string]error // result of the checks of an address
	probes map[string]int   // checks by address
	flips  []string         // what the observer was told
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, names: map[string][]string{}, asked: map[string]int{}, broken: map[string]error{}, probes: map[string]int{}}
	w.Registry = NewRegistry(RegistryOptions{
		Log:      slog.New(slog.NewTextHandler(&w.log, nil)),
		Observer: w,
		Resolver: w,
	})
	w.Registry.now = func() int64 { return time.Now().UnixNano() } // follows the bubble's time
	w.Registry.probe = func(_ context.Context, o *origin) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.probes[o.name]++
		return w.broken[o.name]
	}
	return w
}

func (w *world) Flip(pool, server string, up bool, reason string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flips = append(w.flips, fmt.Sprintf("%s/%s %v %s", pool, server, up, reason))
}

func (w *world) Ejected(pool, server string, cause EjectCause, pause time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flips = append(w.flips, fmt.Sprintf("%s/%s out by %v for %v", pool, server, cause, pause))
}

func (w *world) Readmitted(pool, server string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flips = append(w.flips, fmt.Sprintf("%s/%s on trial", pool, server))
}

func (w *world) LookupNetIP(_ context.Context, network, host string) (addrs []netip.Addr, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked[host]++
	for _, a := range w.names[host] {
		addrs = append(addrs, netip.MustParseAddr(a))
	}
	if len(addrs) == 0 {
		return nil, errors.New("no such host " + host)
	}
	return addrs, nil
}

func (w *world) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked[service+proto+name]++
	if w.srv[name] == nil {
		return "", nil, errors.New("no such service " + name)
	}
	return name, w.srv[name], nil
}

// set changes the world under its lock.
func (w *world) set(change func()) {
	w.mu.Lock()
	change()
	w.mu.Unlock()
}

func (w *world) probed(address string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.probes[address]
}

func (w *world) lookups(host string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked[host]
}

func (w *world) build(name string, o *Options) *Pool {
	w.t.Helper()
	p, err := w.Build(context.Background(), name, o)
	if err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait()
	return p
}

// pass lets time go by.
func (w *world) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// addresses are the names of a pool's servers, those that can't be picked in
// brackets.
func addresses(p *Pool) string {
	var list []string
	for _, s := range p.Servers() {
		name := s.Name
		if !s.Usable() {
			name = "(" + name + ")"
		}
		list = append(list, name)
	}
	return strings.Join(list, " ")
}

func (w *world) expect(p *Pool, want string) {
	w.t.Helper()
	if got := addresses(p); got != want {
		w.t.Errorf("servers are %q, want %q", got, want)
	}
	if got := p.Status().Usable; got != strings.Count(want, ":")-strings.Count(want, "(") {
		w.t.Errorf("%d usable of %q", got, want)
	}
}

// checked are options with checks every second, without jitter.
func checked(servers ...string) *Options {
	o := defaults(servers...)
	o.Health = DefaultHealth()
	o.Health.Interval = time.Second
	o.Health.FastInterval = time.Second
	o.Health.Jitter = 0
	return o
}

func TestFirstCheckIsMadeAtOnceAndDecidesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		w.broken["10.0.0.2:80"] = errors.New("connection refused")
		p := w.build("app", checked("10.0.0.1:80", "10.0.0.2:80"))
		defer p.Close()
		w.expect(p, "10.0.0.1:80 (10.0.0.2:80)")
		status := p.Status().Servers
		if status[0].State != "up" || status[1].State != "down" || status[1].Reason != "connection refused" {
			t.Errorf("status %+v", status)
		}
		if w.probed("10.0.0.1:80") != 1 {
			t.Errorf("%d checks, want 1", w.probed("10.0.0.1:80"))
		}
	})
}

func TestServerIsUsableUntilItWasChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		w.Registry.probe = func(ctx context.Context, _ *origin) error {
			<-ctx.Done()
			return ctx.Err()
		}
		p := w.build("app", checked("10.0.0.1:80"))
		defer p.Close()
		w.expect(p, "10.0.0.1:80")
		if s := p.Status().Servers[0]; s.State != "unknown" {
			t.Errorf("state %q, want unknown", s.State)
		}
	})
}

func TestRiseAndFall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		p := w.build("app", checked("10.0.0.1:80", "10.0.0.2:80"))
		defer p.Close()
		failure := errors.New("status 503, want 200-399")
		before := p.set.Load()

		w.set(func() { w.broken["10.0.0.2:80"] = failure })
		w.pass(2 * time.Second)
		w.set(func() { delete(w.broken, "10.0.0.2:80") }) // two failures, then a pass: starts over
		w.pass(time.Second)
		w.set(func() { w.broken["10.0.0.2:80"] = failure })
		w.pass(2 * time.Second)
		w.expect(p, "10.0.0.1:80 10.0.0.2:80")
		if p.set.Load() != before {
			t.Error("the set was rebuilt without a flip")
		}
		w.pass(time.Second)
		w.expect(p, "10.0.0.1:80 (10.0.0.2:80)")
		for range 4 {
			if s, _ := p.Pick(new(Tried)); s.Name != "10.0.0.1:80" {
				t.Errorf("picked %s", s.Name)
			}
		}

		w.set(func() { delete(w.broken, "10.0.0.2:80") })
		w.pass(time.Second)
		w.set(func() { w.broken["10.0.0.2:80"] = failure })
		w.pass(time.Second)
		w.set(func() { delete(w.broken, "10.0.0.2:80") })
		w.pass(time.Second)
		w.expect(p, "10.0.0.1:80 (10.0.0.2:80)")
		w.pass(time.Second)
		w.expect(p, "10.0.0.1:80 10.0.0.2:80")

		if got, want := strings.Join(w.flips, "; "), "app/10.0.0.2:80 false status 503, want 200-399; app/10.0.0.2:80 true "; got != want {
			t.Errorf("observer was told %q, want %q", got, want)
		}
		if log := w.log.String(); strings.Count(log, "\n") != 2 || !strings.Contains(log, `reason="status 503, want 200-399"`) {
			t.Errorf("log:\n%s", log)
		}
	})
}

func TestChecksHurryWhileTheStateIsInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		o := checked("10.0.0.1:80")
		o.Health.Interval, o.Health.FastInterval = 4*time.Second, 0
		p := w.build("app", o)
		defer p.Close()
		at := func(moment time.Duration, checks int, state string) {
			t.Helper()
			if n, got := w.probed("10.0.0.1:80"), p.Status().Servers[0].State; n != checks || got != state {
				t.Errorf("after %v: %d checks, %s; want %d, %s", moment, n, got, checks, state)
			}
		}
		at(0, 1, "up")
		w.set(func() { w.broken["10.0.0.1:80"] = errors.New("down") })
		w.pass(4 * time.Second)
		at(4*time.Second, 2, "up")
		w.pass(2 * time.Second)
		at(6*time.Second, 4, "down")
		w.pass(10 * time.Second)
		at(16*time.Second, 14, "down")
		w.set(func() { delete(w.broken, "10.0.0.1:80") })
		w.pass(2 * time.Second) // in use again within the interval
		at(18*time.Second, 16, "up")
		w.pass(4 * time.Second)
		at(22*time.Second, 17, "up")
	})
}

func TestLocalTroubleSaysNothingAboutServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		w.broken["10.0.0.1:80"] = outOfDescriptors
		p := w.build("app", checked("10.0.0.1:80"))
		defer p.Close()
		w.pass(10 * time.Second)
		if s := p.Status().Servers[0]; s.State != "unknown" || s.Reason != "" {
			t.Errorf("out of descriptors: %+v", s)
		}
	})
}

func TestAllDownIsNoServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		w.broken["10.0.0.1:80"] = errors.New("down")
		p := w.build("app", checked("10.0.0.1:80"))
		defer p.Close()
		if s, verdict := p.Pick(new(Tried)); s != nil || verdict != NoServer {
			t.Errorf("%v, verdict %d; want NoServer", s, verdict)
		}
	})
}

func TestIntervalsVary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		o := checked("10.0.0.1:80")
		o.Health.Jitter = 10
		last, shortest, longest := time.Now(), time.Hour, time.Duration(0)
		first := true
		w.Registry.probe = func(context.Context, *origin) error {
			if pause := time.Since(last); !first {
				shortest, longest = min(shortest, pause), max(longest, pause)
			}
			first, last = false, time.Now()
			return nil
		}
		p := w.build("app", o)
		defer p.Close()
		w.pass(1000 * time.Second)
		if shortest < 900*time.Millisecond || longest > 1100*time.Millisecond || longest-shortest < 150*time.Millisecond {
			t.Errorf("intervals from %v to %v, want nearly 900 ms to 1.1 s", shortest, longest)
		}
	})
}

func TestPoolsShareOriginsAndChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		a := w.build("a", checked("10.0.0.1:80"))
		b := w.build("b", checked("10.0.0.1:80", "10.0.0.2:80"))
		other := checked("10.0.0.1:80")
		other.Health.Path = "/other"
		c := w.build("c", other)
		s, _ := a.Pick(new(Tried))
		if n := b.Servers()[0].InFlight(); n != 1 {
			t.Errorf("%d in flight seen by the other pool, want 1", n)
		}
		if n := c.Servers()[0].InFlight(); n != 0 {
			t.Errorf("%d in flight seen with another check, want 0", n)
		}
		if n := w.probed("10.0.0.1:80"); n != 2 {
			t.Errorf("%d checks, want one for each kind", n)
		}
		s.Done(Result{Outcome: TimedOut})
		if a.Status().Servers[0].Failures != 1 || b.Status().Servers[0].Failures != 0 {
			t.Error("results are not counted by pool")
		}
		a.Close()
		w.pass(time.Second)
		if n := w.probed("10.0.0.1:80"); n != 4 {
			t.Errorf("%d checks after one pool closed, want 4", n)
		}
		b.Close()
		c.Close()
		w.pass(5 * time.Second)
		if n := w.probed("10.0.0.1:80"); n != 4 {
			t.Errorf("%d checks after all pools closed, want 4", n)
		}
		if len(w.origins)+len(w.names)+len(w.ledgers)+len(w.pools) != 0 {
			t.Error("the registry still holds something")
		}
	})
}

func TestReloadKeepsWhatBothConfigurationsHave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		w.broken["10.0.0.2:80"] = errors.New("down")
		old := w.build("app", checked("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"))
		if err := w.SetOrder("app", "10.0.0.3:80", Drained); err != nil {
			t.Fatal(err)
		}
		s, _ := old.Pick(new(Tried))
		old.Retried(Reset)
		old.BudgetExhausted()
		budget, since := old.Budget, old.Status().Servers[1].Since

		w.pass(500 * time.Millisecond)
		o := checked("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80")
		o.Servers[0].Weight = 2
		o.Balance = "least_conn"
		p := w.build("app", o)
		if p == old {
			t.Fatal("same pool for other options")
		}
		old.Close()
		w.expect(p, "10.0.0.1:80 (10.0.0.2:80) (10.0.0.3:80) 10.0.0.4:80")
		if p.Servers()[0].InFlight() != 1 || p.Retries(Reset) != 1 || p.Exhausted() != 1 || p.Budget != budget {
			t.Error("load, counters or budget are lost")
		}
		if got := p.Status().Servers[1]; got.Since != since || got.Reason != "down" {
			t.Errorf("health is lost: %+v", got)
		}
		s.Done(Result{Outcome: OK, Status: 200, Latency: 8e6}) // picked before, ends after
		if got := p.Status().Servers[0]; got.InFlight != 0 || got.Requests != 1 || got.Latency != 8 {
			t.Errorf("end of a request from before: %+v", got)
		}
		if n := w.probed("10.0.0.1:80"); n != 1 {
			t.Errorf("%d checks; a known server is checked again at once", n)
		}
		// A closed pool can still be picked from.
		if s, _ := old.Pick(new(Tried)); s == nil || s.Name != "10.0.0.1:80" {
			t.Errorf("old pool gave %v", s)
		} else {
			s.Done(Result{Outcome: OK})
		}
		p.Close()
		if len(w.origins)+len(w.ledgers)+len(w.pools) != 0 {
			t.Error("the registry still holds something")
		}
	})
}

func TestUnchangedOptionsGiveTheSamePool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		first := w.build("app", checked("10.0.0.1:80"))
		second := w.build("app", checked("10.0.0.1:80"))
		if first != second {
			t.Fatal("another pool for the same options")
		}
		first.Close()
		w.set(func() { w.broken["10.0.0.1:80"] = errors.New("down") })
		w.pass(3 * time.Second)
		w.expect(second, "(10.0.0.1:80)")
		second.Close()
		if w.build("app", checked("10.0.0.1:80")) == first {
			t.Error("a closed pool came back")
		}
	})
}

// TestPicksGoOnWhileEverythingChanges is for the race detector.
func TestPicksGoOnWhileEverythingChanges(t *testing.T) {
	w := newWorld(t)
	defer w.Close()
	var fails atomic.Bool
	w.Registry.probe = func(_ context.Context, o *origin) error {
		if o.name == "10.0.0.1:80" && fails.Load() {
			return errors.New("down")
		}
		return nil
	}
	options := func(i int) *Options {
		o := checked("10.0.0.1:80", "10.0.0.2:80", fmt.Sprintf("10.0.1.%d:80", i%3))
		o.Health.Interval, o.Health.Fails, o.Health.Passes = time.Millisecond, 1, 1
		o.Balance = policies[i%len(policies)]
		o.MaxConnections = 4
		o.Eject, o.SlowStart = DefaultEject(), 20*time.Millisecond
		o.Eject.Time = time.Millisecond
		o.Queue, o.QueueTimeout = i%2*10, 10*time.Millisecond
		return o
	}
	first, err := w.Build(context.Background(), "app", options(0))
	if err != nil {
		t.Fatal(err)
	}
	var pool atomic.Pointer[Pool]
	pool.Store(first)
	var done atomic.Bool
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for !done.Load() {
				var tried Tried
				for {
					s, verdict := pool.Load().Pick(&tried)
					if s == nil {
						if verdict == NoServer {
							t.Error("no server although two are never down")
						}
						break
					}
					tried.Add(s)
					runtime.Gosched()
					if s.Name == "10.0.0.2:80" {
						s.Done(Result{Outcome: Reset})
					} else {
						s.Done(Result{Outcome: OK, Status: 200, Latency: 1e6})
					}
					if tried.count == 3 {
						break
					}
				}
			}
		})
	}
	for i := range 100 {
		fails.Store(i%2 == 1)
		next, err := w.Build(context.Background(), "app", options(i))
		if err != nil {
			t.Fatal(err)
		}
		if err := w.SetOrder("app", "10.0.0.2:80", []Order{Enabled, Drained, Enabled, Disabled}[i%4]); err != nil {
			t.Fatal(err)
		}
		pool.Swap(next).Close()
		next.Status()
	}
	done.Store(true)
	wait.Wait()
	for _, s := range pool.Load().Servers() {
		if s.InFlight() != 0 {
			t.Errorf("%s: %d left in flight", s.Name, s.InFlight())
		}
	}
	pool.Load().Close()
	w.Registry.mu.Lock()
	defer w.Registry.mu.Unlock()
	if len(w.origins)+len(w.ledgers)+len(w.pools) != 0 {
		t.Error("the registry still holds something")
	}
}

func TestDrainedServerGetsNothingNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		p := w.build("app", defaults("10.0.0.1:80", "10.0.0.2:80"))
		defer p.Close()
		if err := w.SetOrder("app", "10.0.0.1:80", Drained); err != nil {
			t.Fatal(err)
		}
		w.expect(p, "(10.0.0.1:80) 10.0.0.2:80")
		if state := p.Status().Servers[0].State; state != "drained" {
			t.Errorf("state %q, want drained", state)
		}
		if err := w.SetOrder("app", "10.0.0.1:80", Enabled); err != nil {
			t.Fatal(err)
		}
		w.expect(p, "10.0.0.1:80 10.0.0.2:80")

		if err := w.SetOrder("nope", "10.0.0.1:80", Drained); err == nil || err.Error() != `unknown upstream "nope"` {
			t.Errorf("unknown pool: %v", err)
		}
		if err := w.SetOrder("app", "x", Drained); err == nil || err.Error() != `unknown server "x" in upstream "app"; want one of 10.0.0.1:80, 10.0.0.2:80` {
			t.Errorf("unknown server: %v", err)
		}
	})
}

func TestBuildReportsBadOptions(t *testing.T) {
	w := newWorld(t)
	defer w.Close()
	for _, c := range []struct {
		change func(*Options)
		want   string
	}{
		{func(o *Options) { o.Servers[0].Address = "a" }, "servers[0]: missing port"},
		{func(o *Options) { o.TLS.CA = "/nowhere/ca.pem" }, "tls.ca: read certificates: open /nowhere/ca.pem"},
		{func(o *Options) { o.TLS.CA = "registry_test.go" }, `tls.ca: no certificate in "registry_test.go"`},
		{func(o *Options) { o.TLS.Cert, o.TLS.Key = "/nowhere/a.pem", "/nowhere/a.key" }, "tls.cert: read certificate: open /nowhere/a.pem"},
		{func(o *Options) { o.TLS.Cert, o.TLS.Key = "registry_test.go", "/nowhere/a.key" }, "tls.key: read key: open /nowhere/a.key"},
		{func(o *Options) { o.TLS.Cert, o.TLS.Key = "registry_test.go", "registry.go" }, `tls.cert: use "registry_test.go" with key "registry.go"`},
	} {
		o := defaults("https://10.0.0.1:443")
		c.change(o)
		if _, err := w.Build(context.Background(), "app", o); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%v; want %s", err, c.want)
		}
	}
	if len(w.pools)+len(w.origins) != 0 {
		t.Error("a failed build left something behind")
	}
}

func TestOutcomesHeldAgainstAServer(t *testing.T) {
	p := build(t, weighted("round_robin", 1))
	s := p.Servers()[0]
	for o := range OutcomeCount {
		before := s.tally.failures()
		p.Pick(new(Tried))
		s.Done(Result{Outcome: o, Status: 200})
		blamed := s.tally.failures() > before
		switch o {
		case OK, NoResources, Cancelled, UploadFailed, Stale:
			if blamed {
				t.Errorf("%v is held against the server", o)
			}
		default:
			if !blamed {
				t.Errorf("%v is not held against the server", o)
			}
		}
		if s.Outcomes(o) != 1 {
			t.Errorf("%v counted %d times", o, s.Outcomes(o))
		}
	}
	p.Pick(new(Tried))
	s.Done(Result{Outcome: OK, Status: 502})
	if st := p.Status().Servers[0]; s.ServerErrors() != 1 || st.Requests != uint64(OutcomeCount)+1 || st.InFlight != 0 {
		t.Errorf("after a 502: %d server errors, %+v", s.ServerErrors(), st)
	}
}

func TestLatencyIsAMovingAverage(t *testing.T) {
	p := build(t, weighted("round_robin", 1))
	s := p.Servers()[0]
	report := func(ns int64) float64 {
		p.Pick(new(Tried))
		s.Done(Result{Outcome: OK, Status: 200, Latency: ns})
		return p.Status().Servers[0].Latency
	}
	if got := report(16e6); got != 16 {
		t.Errorf("after one of 16 ms: %v", got)
	}
	if got := report(24e6); got != 17 {
		t.Errorf("after another of 24 ms: %v, want 17", got)
	}
	for range 100 {
		report(100e6)
	}
	if got := report(100e6); got < 99 || got > 100 {
		t.Errorf("after many of 100 ms: %v", got)
	}
}
