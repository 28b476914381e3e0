package upstream

import (
	"strings"
	"testing"
	"testing/synctest"
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
