package dependency

import (
	"testing"
	"testing/synctest"
	"time"

	"gateway/internal/clock"
)

func TestDoubtIsSettledSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		o := exact()
		_, d := w.build(t, o)
		if !d.Doubtful(clock.Mono()) {
			t.Error("no doubt before the first probe")
		}
		synctest.Wait()
		time.Sleep(time.Second)
		before, since := w.fake.probes(), clock.Mono()
		if d.Doubtful(since - int64(2*time.Second)) {
			t.Error("in doubt about a time before the last probe")
		}
		synctest.Wait()
		if n := w.fake.probes() - before; n != 0 {
			t.Errorf("%d probes without doubt", n)
		}
		for range 2 {
			if !d.Doubtful(since) {
				t.Error("no doubt about a time after the last probe")
			}
		}
		synctest.Wait()
		if n := w.fake.probes() - before; n != 1 || d.Doubtful(since-1) {
			t.Errorf("%d probes; want one at once", n)
		}

		// However often it is asked, the backend is not flooded.
		before = w.fake.probes()
		for range 2000 {
			d.Doubtful(clock.Mono())
			time.Sleep(time.Millisecond)
		}
		if n := w.fake.probes() - before; n < 8 || n > 11 {
			t.Errorf("%d probes in one interval; want ten", n)
		}

		w.fake.set(errAway, false)
		since = clock.Mono()
		d.Doubtful(since)
		time.Sleep(o.Interval)
		synctest.Wait()
		if !d.Doubtful(since) || !d.Failing() {
			t.Error("a probe that failed says that the backend is well")
		}
		if (*Dependency)(nil).Doubtful(since) || (*Dependency)(nil).Failing() {
			t.Error("in doubt about a dependency that is not probed")
		}
	})
}
