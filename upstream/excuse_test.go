package upstream

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gateway/internal/clock"
)

// backend is something that all servers of a pool share, and when it was known
// last to be well.
type backend struct {
	failing atomic.Bool
	well    atomic.Int64
}

func (b *backend) excuse(p *Pool) {
	p.Excuse(b.failing.Load, func(since int64) bool { return b.well.Load() <= since })
}

func (b *backend) isWell() {
	b.failing.Store(false)
	b.well.Store(clock.Mono())
}

// Before anybody knows whether the backend is well, answers do not eject.
func TestEjectionWaitsForTheBackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		p := w.build("app", ejecting(2))
		defer p.Close()
		var b backend
		b.isWell()
		b.excuse(p)
		w.pass(time.Millisecond)

		// It turns out to be away: nothing of this counts later.
		give(p, 0, several(100, answer5x)...)
		give(p, 1, several(4, answer5x)...)
		w.expect(p, "10.0.0.1:80 10.0.0.2:80")
		b.failing.Store(true)
		give(p, 0, several(100, answer5x)...)
		give(p, 1, answer5x)
		b.isWell()
		w.pass(time.Millisecond)
		give(p, 0, several(4, answer5x)...)
		give(p, 1, several(4, answer5x)...)
		w.expect(p, "10.0.0.1:80 10.0.0.2:80")

		// It turns out to be well: the next failure is one too many.
		give(p, 0, several(100, answer5x)...)
		w.expect(p, "10.0.0.1:80 10.0.0.2:80")
		w.pass(time.Millisecond)
		b.isWell()
		give(p, 0, answer5x)
		w.expect(p, "(10.0.0.1:80) 10.0.0.2:80")

		// Nor does it matter to those who do not even answer.
		w.pass(time.Second)
		give(p, 0, several(5, refused)...)
		w.pass(30 * time.Second)
		give(p, 0, answer5x) // the trial waits too
		w.expect(p, "10.0.0.1:80 10.0.0.2:80")
		give(p, 0, refused)
		w.expect(p, "(10.0.0.1:80) 10.0.0.2:80")
	})
}

func TestChecksWaitForTheBackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		o := checked("10.0.0.1:80", "10.0.0.2:80")
		p := w.build("app", o)
		defer p.Close()
		var b backend
		b.isWell()
		b.excuse(p)
		w.pass(time.Millisecond)
		down := errors.New("status 503")

		w.set(func() { w.broken["10.0.0.1:80"] = down })
		w.pass(time.Minute) // nobody finds out
		w.expect(p, "10.0.0.1:80 10.0.0.2:80")
		b.failing.Store(true)
		w.pass(time.Minute)
		w.expect(p, "10.0.0.1:80 10.0.0.2:80")
		b.isWell()
		for last := w.probed("10.0.0.1:80") + o.Health.Fails; w.probed("10.0.0.1:80") < last; {
			w.expect(p, "10.0.0.1:80 10.0.0.2:80") // those before do not count
			b.isWell()
			w.pass(time.Millisecond)
		}
		w.pass(time.Millisecond)
		w.expect(p, "10.0.0.1:80 10.0.0.2:80") // the backend may have gone since
		b.isWell()
		w.pass(doubtPause)
		// Well it is, but what has failed may tell of an outage that nobody saw.
		for last := w.probed("10.0.0.1:80") + o.Health.Fails; w.probed("10.0.0.1:80") < last; {
			w.expect(p, "10.0.0.1:80 10.0.0.2:80")
			b.isWell()
			w.pass(time.Millisecond)
		}
		w.pass(time.Millisecond)
		b.isWell()
		w.pass(doubtPause)
		w.expect(p, "(10.0.0.1:80) 10.0.0.2:80")

		w.set(func() { w.broken["10.0.0.2:80"] = unreachable{down} })
		w.pass(o.Health.Interval * time.Duration(o.Health.Fails))
		w.expect(p, "(10.0.0.1:80) (10.0.0.2:80)")
	})
}

// An outage of the backend that is over before anybody has found out takes
// nothing out of use.
func TestChecksDoNotRememberAnOutageThatNobodySaw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		o := checked("10.0.0.1:80", "10.0.0.2:80")
		p := w.build("app", o)
		defer p.Close()
		var b backend
		b.excuse(p)
		b.isWell()
		w.pass(time.Millisecond)
		for range 5 {
			w.set(func() { w.broken["10.0.0.1:80"] = errors.New("status 503") })
			w.pass(o.Health.Interval * time.Duration(o.Health.Fails))
			// The backend is back, and a probe says so; the server's answer is
			// a moment old and does not.
			b.isWell()
			w.pass(doubtPause)
			w.expect(p, "10.0.0.1:80 10.0.0.2:80")
			w.set(func() { delete(w.broken, "10.0.0.1:80") })
			w.pass(o.Health.Interval)
			w.expect(p, "10.0.0.1:80 10.0.0.2:80")
		}
	})
}
