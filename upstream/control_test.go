package upstream

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestWeightIsSetUntilTheServerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		options := func() *Options { return defaults("127.0.0.1:80", "127.0.0.2:80", "127.0.0.3:80") }
		old := w.build("app", options())
		if err := w.SetWeight("app", "127.0.0.1:80", 5); err != nil {
			t.Fatal(err)
		}
		if got := picks(t, old, 7, false); got != "aabacaa" {
			t.Errorf("picks %s, want aabacaa", got)
		}
		if st := old.Status().Servers[0]; st.Weight != 5 || !st.WeightSet {
			t.Errorf("status %+v", st)
		}
		o := options()
		o.MaxIdle = 7 // another pool
		p := w.build("app", o)
		old.Close()
		if got := picks(t, p, 7, false); strings.Count(got, "a") != 5 {
			t.Errorf("picks %s after a reload, want five a", got)
		}
		if err := w.SetWeight("app", "127.0.0.1:80", 0); err != nil {
			t.Fatal(err)
		}
		if got := picks(t, p, 6, false); strings.Count(got, "a") != 2 {
			t.Errorf("picks %s, want two a", got)
		}
		p.Close()

		p = w.build("app", options())
		defer p.Close()
		for name, c := range map[string]struct {
			pool, server string
			weight       int
		}{
			"out of range":     {"app", "127.0.0.1:80", 1001},
			"-1 is out":        {"app", "127.0.0.1:80", -1},
			"unknown upstream": {"x", "127.0.0.1:80", 1},
			"unknown server":   {"app", "x", 1},
		} {
			if err := w.SetWeight(c.pool, c.server, c.weight); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%v, want %q", err, name)
			}
		}
	})
}

func TestDisabledServerIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		order := func(pool, server string, o Order) {
			t.Helper()
			if err := w.SetOrder(pool, server, o); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		// checks tells how many there are of 10.0.0.1 in so many seconds.
		checks := func(seconds int) int {
			before := w.probed("10.0.0.1:80")
			w.pass(time.Duration(seconds) * time.Second)
			return w.probed("10.0.0.1:80") - before
		}
		options := checked("10.0.0.1:80", "10.0.0.2:80")
		options.SlowStart = 10 * time.Second
		p := w.build("app", options)
		order("app", "10.0.0.1:80", Drained)
		w.expect(p, "(10.0.0.1:80) 10.0.0.2:80")
		if n := checks(5); n != 5 {
			t.Errorf("%d checks of a drained server in 5 s", n)
		}
		order("app", "10.0.0.1:80", Disabled)
		w.expect(p, "(10.0.0.1:80) 10.0.0.2:80")
		if st := p.Status().Servers[0]; st.State != "disabled" {
			t.Errorf("state %q", st.State)
		}
		if n := checks(60); n != 0 {
			t.Errorf("%d checks of a disabled server", n)
		}

		// A reload keeps the order, also when the server is checked otherwise.
		other := *options
		other.Health.Path = "/other"
		next := w.build("app", &other)
		p.Close()
		p = next
		w.expect(p, "(10.0.0.1:80) 10.0.0.2:80")
		if n := checks(5); n != 0 {
			t.Errorf("%d checks of a disabled server after a reload", n)
		}

		// Another pool that reaches it in the same way has it checked.
		second := w.build("second", &other)
		if n := checks(5); n < 5 {
			t.Errorf("%d checks in 5 s for the pool that has it enabled", n)
		}
		w.expect(p, "(10.0.0.1:80) 10.0.0.2:80")
		w.expect(second, "10.0.0.1:80 10.0.0.2:80")
		second.Close()
		if n := checks(5); n != 0 {
			t.Errorf("%d checks after that pool was closed", n)
		}

		// Back in use it is checked at once, the first result decides, and it
		// starts slowly.
		before := w.probed("10.0.0.1:80")
		order("app", "10.0.0.1:80", Enabled)
		if n := w.probed("10.0.0.1:80") - before; n != 1 {
			t.Errorf("%d checks at once", n)
		}
		w.expect(p, "10.0.0.1:80 10.0.0.2:80")
		if st := p.Status().Servers[0]; st.State != "up" || st.Share != rampBegin {
			t.Errorf("status %+v, want slow start at its beginning", st)
		}
		order("app", "10.0.0.1:80", Disabled)
		w.set(func() { w.broken["10.0.0.1:80"] = errors.New("gone") })
		order("app", "10.0.0.1:80", Enabled)
		w.expect(p, "(10.0.0.1:80) 10.0.0.2:80")
		if st := p.Status().Servers[0]; st.State != "down" {
			t.Errorf("after a check that failed: %+v", st)
		}
		p.Close()
		if len(w.origins)+len(w.ledgers)+len(w.pools) != 0 {
			t.Error("the registry still holds something")
		}
	})
}
