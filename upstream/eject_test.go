package upstream

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gateway/internal/mallocs"
)

// ejecting are options for n unchecked servers that are ejected by default.
func ejecting(n int) *Options {
	o := defaults()
	for i := range n {
		o.Servers = append(o.Servers, ServerOptions{Address: fmt.Sprintf("10.0.0.%d:80", i+1), Weight: 1})
	}
	o.Eject = DefaultEject()
	return o
}

// give ends a request to a server with a result; it reports whether the server
// could be picked.
func give(p *Pool, index int, results ...Result) bool {
	s := p.Servers()[index]
	for _, r := range results {
		var tried Tried
		for _, other := range p.Servers() {
			if other != s {
				tried.Add(other)
			}
		}
		picked, _ := p.Pick(&tried)
		if picked == nil {
			return false
		}
		picked.Done(r)
	}
	return true
}

var (
	good     = Result{Outcome: OK, Status: 200, Latency: 1e6}
	answer5x = Result{Outcome: OK, Status: 500, Latency: 1e6}
	refused  = Result{Outcome: ConnectRefused}
)

func several(n int, r Result) []Result {
	list := make([]Result, n)
	for i := range list {
		list[i] = r
	}
	return list
}

func TestFailuresInARowEject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		p := w.build("app", ejecting(3))
		defer p.Close()
		give(p, 0, refused, answer5x, Result{Outcome: TimedOut}, Result{Outcome: Reset}, good) // starts over
		give(p, 0, refused, answer5x, Result{Outcome: Stale}, Result{Outcome: TimedOut}, Result{Outcome: Cancelled}, Result{Outcome: Reset})
		w.expect(p, "10.0.0.1:80 10.0.0.2:80 10.0.0.3:80")
		give(p, 0, refused)
		w.expect(p, "(10.0.0.1:80) 10.0.0.2:80 10.0.0.3:80")
		st := p.Status().Servers[0]
		if st.State != "ejected" || st.EjectedFor != 30 || st.Ejections.Consecutive != 1 {
			t.Errorf("status %+v", st)
		}
		for range 10 {
			if s, _ := p.Pick(new(Tried)); s == p.Servers()[0] {
				t.Error("an ejected server was picked")
			}
		}
		w.pass(30 * time.Second)
		if got, want := strings.Join(w.flips, "; "), "app/10.0.0.1:80 out by consecutive for 30s; app/10.0.0.1:80 on trial"; got != want {
			t.Errorf("observer was told %q, want %q", got, want)
		}
	})
}

func TestShareOfFailuresEjects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		p := w.build("app", ejecting(2))
		defer p.Close()
		// Every other one fails: the twentieth request decides.
		for i := range 20 {
			if st := p.Status().Servers[0]; st.State == "ejected" {
				t.Fatalf("ejected after %d requests", i)
			}
			give(p, 0, []Result{good, answer5x}[i%2])
		}
		if st := p.Status().Servers[0]; st.State != "ejected" || st.Ejections.FailureRate != 1 {
			t.Errorf("after 10 of 20: %+v", st)
		}
		// A quarter is too few, however many they are.
		for range 100 {
			give(p, 1, good, good, good, answer5x)
		}
		w.expect(p, "(10.0.0.1:80) 10.0.0.2:80")
	})
}

// A busy server is not kept for what it did before.
func TestShareOfTheLatestRequestsEjects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		p := w.build("app", ejecting(2))
		defer p.Close()
		give(p, 0, several(1000, good)...)
		n := 0
		for p.Status().Servers[0].State != "ejected" && n < 1000 {
			give(p, 0, good, answer5x)
			n += 2
		}
		if st := p.Status().Servers[0]; n > 60 || st.Ejections.FailureRate != 1 {
			t.Errorf("after 1000 good ones every other one fails: %d requests, %+v", n, st)
		}
		// As many failures, but not of the latest requests within the window.
		give(p, 1, several(1000, good)...)
		for range 40 {
			give(p, 1, good, good, good, answer5x)
		}
		w.expect(p, "(10.0.0.1:80) 10.0.0.2:80")
	})
}

func TestOldResultsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		p := w.build("app", ejecting(2))
		defer p.Close()
		for range 100 {
			give(p, 0, good)
		}
		for range 20 { // one in a while: never 20 within the window
			give(p, 0, answer5x, good)
			w.pass(2 * time.Second)
		}
		w.expect(p, "10.0.0.1:80 10.0.0.2:80")
		for range 1000 {
			give(p, 0, good)
		}
		w.pass(20 * time.Second) // the good ones do not count any more
		for range 10 {
			give(p, 0, good, answer5x)
		}
		w.expect(p, "(10.0.0.1:80) 10.0.0.2:80")
	})
}

func TestEjectionsGrowAndEndOnTrial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		o := ejecting(2)
		o.Eject.MaxTime = 80 * time.Second
		p := w.build("app", o)
		defer p.Close()
		give(p, 0, several(5, refused)...)
		for _, pause := range []time.Duration{30, 60, 80, 80} {
			w.pass(pause*time.Second - time.Second)
			w.expect(p, "(10.0.0.1:80) 10.0.0.2:80")
			w.pass(time.Second)
			w.expect(p, "10.0.0.1:80 10.0.0.2:80")
			// One request at a time until one ended.
			trial := pickOnly(p, 0)
			if trial == nil || pickOnly(p, 0) != nil {
				t.Fatal("the trial is not one request")
			}
			if state := p.Status().Servers[0].State; state != "trial" {
				t.Errorf("state %q, want trial", state)
			}
			trial.Done(Result{Outcome: Cancelled}) // says nothing
			trial = pickOnly(p, 0)
			if trial == nil {
				t.Fatal("no second trial after one that said nothing")
			}
			trial.Done(refused)
		}
		w.expect(p, "(10.0.0.1:80) 10.0.0.2:80")
		if n := p.Servers()[0].Ejections(EjectedOnTrial); n != 4 {
			t.Errorf("%d ejections on trial, want 4", n)
		}
		w.pass(80 * time.Second)
		give(p, 0, good)
		for range 2 {
			if pickOnly(p, 0) == nil {
				t.Error("not in use after a trial that passed")
			}
		}
		w.pass(80 * time.Second) // well for long enough: begins anew
		give(p, 0, several(5, refused)...)
		if st := p.Status().Servers[0]; st.EjectedFor != 30 {
			t.Errorf("ejected for %v s, want 30", st.EjectedFor)
		}
	})
}

// pickOnly is a request in flight to a server, nil if it can't be picked.
func pickOnly(p *Pool, index int) *Server {
	var tried Tried
	for i, s := range p.Servers() {
		if i != index {
			tried.Add(s)
		}
	}
	s, _ := p.Pick(&tried)
	return s
}

func TestAtMostHalfIsEjectedAndNeverTheLast(t *testing.T) {
	for n, want := range []int{0, 0, 1, 1, 2, 2, 3} {
		if n == 0 {
			continue
		}
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			defer w.Close()
			p := w.build("app", ejecting(n))
			defer p.Close()
			for i := range n {
				give(p, i, several(20, refused)...)
			}
			if got := n - p.Status().Usable; got != want {
				t.Errorf("%d of %d ejected, want %d", got, n, want)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		o := ejecting(3)
		o.Eject.MaxEjected = 100
		p := w.build("app", o)
		defer p.Close()
		for i := range 3 {
			give(p, i, several(20, refused)...)
		}
		if p.Status().Servers[2].State == "ejected" {
			t.Error("the last server is ejected")
		}
	})
}

func TestPanicIgnoresEjections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		o := ejecting(4)
		o.Health = DefaultHealth()
		p := w.build("app", o)
		defer p.Close()
		give(p, 0, several(5, refused)...)
		give(p, 1, several(5, refused)...)
		w.expect(p, "(10.0.0.1:80) (10.0.0.2:80) 10.0.0.3:80 10.0.0.4:80")
		w.set(func() { w.broken["10.0.0.4:80"] = errors.New("down") })
		w.pass(10 * time.Second)
		// Two of the three that pass their checks are ejected: that is more
		// than half. The one that fails them is not used whatever happens.
		w.expect(p, "10.0.0.1:80 10.0.0.2:80 10.0.0.3:80 (10.0.0.4:80)")
		if !p.Status().Panic {
			t.Error("status says nothing of the panic")
		}
		w.set(func() { delete(w.broken, "10.0.0.4:80") })
		w.pass(10 * time.Second)
		w.expect(p, "(10.0.0.1:80) (10.0.0.2:80) 10.0.0.3:80 10.0.0.4:80")
		if log := w.log.String(); strings.Count(log, "all are used again") != 1 || strings.Count(log, "left out again") != 1 {
			t.Errorf("log:\n%s", log)
		}
	})
}

func TestExcusedAnswersDoNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		p := w.build("app", ejecting(2))
		defer p.Close()
		excused := true
		p.Excuse(func() bool { return excused }, nil)
		give(p, 0, several(100, answer5x)...)
		w.expect(p, "10.0.0.1:80 10.0.0.2:80")
		excused = false
		give(p, 0, several(4, answer5x)...)
		w.expect(p, "10.0.0.1:80 10.0.0.2:80")
		excused = true
		give(p, 0, several(1, refused)...) // no connection is no answer
		w.expect(p, "(10.0.0.1:80) 10.0.0.2:80")
	})
}

func TestEjectionOutlivesAReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		old := w.build("app", ejecting(2))
		give(old, 0, several(5, refused)...)
		w.pass(10 * time.Second)
		o := ejecting(2)
		o.Balance = "p2c"
		p := w.build("app", o)
		old.Close()
		w.expect(p, "(10.0.0.1:80) 10.0.0.2:80")
		w.pass(20 * time.Second)
		w.expect(p, "10.0.0.1:80 10.0.0.2:80")

		// A trial that ends when its pool is closed, or its server drained,
		// makes way for another.
		trial := pickOnly(p, 0)
		o = ejecting(2)
		o.Balance = "hash"
		next := w.build("app", o)
		p.Close()
		p = next
		trial.Done(refused)
		if trial = pickOnly(p, 0); trial == nil {
			t.Fatal("no trial after a reload")
		}
		for _, o := range []Order{Drained, Enabled} {
			if err := w.SetOrder("app", trial.Name, o); err != nil {
				t.Fatal(err)
			}
			if o == Drained {
				trial.Done(refused)
			}
		}
		if trial = pickOnly(p, 0); trial == nil {
			t.Fatal("no trial after the server was drained")
		}
		trial.Done(Result{Outcome: Cancelled})

		// A reload that turns ejections off ends the trial.
		none := ejecting(2)
		none.Eject = EjectOptions{}
		last := w.build("app", none)
		p.Close()
		defer last.Close()
		for range 3 {
			give(last, 0, refused)
		}
		for range 2 {
			if pickOnly(last, 0) == nil {
				t.Error("still on trial")
			}
		}
	})
}

func TestPassedChecksEndAnEjection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		o := ejecting(2)
		o.Health = DefaultHealth()
		p := w.build("app", o)
		defer p.Close()
		w.set(func() { w.broken["10.0.0.1:80"] = errors.New("down") })
		give(p, 0, several(5, refused)...)
		w.pass(5 * time.Second)
		w.set(func() { delete(w.broken, "10.0.0.1:80") })
		w.pass(2 * time.Second)
		w.expect(p, "10.0.0.1:80 10.0.0.2:80")
	})
}

func TestSlowStartRamps(t *testing.T) {
	for _, balance := range []string{"round_robin", "least_conn", "p2c", "peak_ewma", "hash"} {
		t.Run(balance, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				defer w.Close()
				o := checked("127.0.0.1:80", "127.0.0.2:80")
				o.Balance, o.SlowStart = balance, 100*time.Second
				p := w.build("app", o)
				defer p.Close()
				w.set(func() { w.broken["127.0.0.2:80"] = errors.New("down") })
				w.pass(3 * time.Second)
				w.expect(p, "127.0.0.1:80 (127.0.0.2:80)")
				w.set(func() { delete(w.broken, "127.0.0.2:80") })
				w.pass(2*time.Second + time.Millisecond)
				share := func() float64 {
					const n = 20_000
					return float64(strings.Count(picks(t, p, n, false), "b")) / n
				}
				for _, part := range []float64{0.10, 0.10, 0.20, 0.30, 0.40, 0.50, 0.60, 0.70, 0.80, 0.90, 1, 1} {
					got, want := share(), part/(1+part)
					if got < want-0.025 || got > want+0.025 {
						t.Errorf("with %v of its weight the server gets %.3f, want %.3f", part, got, want)
					}
					w.pass(10 * time.Second)
				}
				if st := p.Status().Servers[1]; st.Share != 0 {
					t.Errorf("slow start does not end: %+v", st)
				}
			})
		})
	}
}

func TestNothingRampsAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		o := checked("127.0.0.1:80", "127.0.0.2:80", "127.0.0.3:80")
		o.Servers[0].Weight, o.SlowStart = 5, time.Minute
		p := w.build("app", o)
		defer p.Close()
		if got := picks(t, p, 7, false); got != "aabacaa" {
			t.Errorf("picks %s, want aabacaa", got)
		}
	})
}

func TestJudgingAllocatesNothing(t *testing.T) {
	o := weighted("round_robin", 1, 1, 1)
	o.Eject = DefaultEject()
	p := build(t, o)
	n := 0
	mallocs.None(t, t.Name(), 20_000, func() {
		s, _ := p.Pick(new(Tried))
		if n++; n%5 == 0 {
			s.Done(answer5x)
		} else {
			s.Done(good)
		}
	})
}
