package upstream

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// queued are options for servers of one request at a time, and a queue.
func queued(places int, servers ...string) *Options {
	o := defaults(servers...)
	o.MaxConnections, o.Queue, o.QueueTimeout = 1, places, time.Second
	return o
}

// line collects what those who wait got, in order.
type line struct {
	mu  sync.Mutex
	got []string
	all sync.WaitGroup
}

// join waits in a goroutine of its own, in line when it returns.
func (l *line) join(ctx context.Context, p *Pool, who string, tried Tried, in Intent) {
	l.all.Go(func() {
		s, verdict := p.Wait(ctx, &tried, in)
		text := who + " " + verdict.String()
		if s != nil {
			text = who + " " + s.Name
		}
		l.mu.Lock()
		l.got = append(l.got, text)
		l.mu.Unlock()
	})
	synctest.Wait()
}

func (l *line) expect(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if got := strings.Join(l.got, ", "); got != strings.Join(want, ", ") {
		t.Errorf("got %q, want %q", got, strings.Join(want, ", "))
	}
	l.got = nil
}

func TestLongestWaitingIsServedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		p := w.build("app", queued(3, "10.0.0.1:80"))
		defer p.Close()
		ctx := context.Background()
		s, _ := p.Pick(new(Tried))
		var l line
		l.join(ctx, p, "1st", Tried{}, Intent{})
		l.join(ctx, p, "2nd", Tried{}, Intent{})
		l.join(ctx, p, "3rd", Tried{}, Intent{})
		l.join(ctx, p, "4th", Tried{}, Intent{})
		l.expect(t, "4th queue_full")
		s.Done(good)
		if s, verdict := p.Pick(new(Tried)); s != nil || verdict != AllFull {
			t.Errorf("overtaken: %v", verdict)
		}
		l.expect(t, "1st 10.0.0.1:80")
		s.Done(good) // the first one's
		l.expect(t, "2nd 10.0.0.1:80")
		s.Done(good)
		l.expect(t, "3rd 10.0.0.1:80")
		if got, want := p.QueueStats(), (QueueStats{0, 3, 1, 0}); got != want {
			t.Errorf("stats %+v, want %+v", got, want)
		}
		s.Done(good)
		l.all.Wait()
		if s.InFlight() != 0 || !picked(p) {
			t.Error("something is left in flight")
		}
	})
}

func TestWaitingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		p := w.build("app", queued(10, "10.0.0.1:80"))
		defer p.Close()
		s, _ := p.Pick(new(Tried))
		var l line
		ctx, cancel := context.WithCancel(context.Background())
		began := time.Now()
		l.join(ctx, p, "a", Tried{}, Intent{})
		l.join(context.Background(), p, "b", Tried{}, Intent{})
		cancel()
		l.expect(t, "a wait_cancelled")
		l.all.Wait()
		if time.Since(began) != time.Second {
			t.Errorf("waited %v, want 1s", time.Since(began))
		}
		l.expect(t, "b queue_timed_out")

		// Nothing left to wait for: told at once.
		l.join(context.Background(), p, "c", Tried{}, Intent{})
		if err := w.SetOrder("app", "10.0.0.1:80", Drained); err != nil {
			t.Fatal(err)
		}
		l.expect(t, "c no_server")
		l.join(context.Background(), p, "d", Tried{}, Intent{})
		l.expect(t, "d no_server")
		s.Done(good)
		if n := p.ledger.queue.waiting.Load(); n != 0 {
			t.Errorf("%d still wait", n)
		}
	})
}

func TestOneThatHasTriedLetsOthersGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		p := w.build("app", queued(10, "10.0.0.1:80", "10.0.0.2:80"))
		defer p.Close()
		a, _ := p.Pick(new(Tried))
		b, _ := p.Pick(new(Tried))
		var tried Tried
		tried.Add(a)
		var l line
		l.join(context.Background(), p, "tried", tried, Intent{})
		l.join(context.Background(), p, "new", Tried{}, Intent{})
		a.Done(good)
		l.expect(t, "new 10.0.0.1:80")
		b.Done(good)
		l.expect(t, "tried 10.0.0.2:80")
		a.Done(good)
		b.Done(good)
	})
}

func TestPoolsOfOneServerServeEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		waits := w.build("a", queued(10, "10.0.0.1:80"))
		defer waits.Close()
		other := w.build("b", defaults("10.0.0.1:80"))
		s, _ := other.Pick(new(Tried))
		var l line
		l.join(context.Background(), waits, "a", Tried{}, Intent{})
		l.expect(t)
		s.Done(good)
		l.expect(t, "a 10.0.0.1:80")
		waits.Servers()[0].Done(good)
		other.Close()
		if waits.Servers()[0].origin.queues.Load() == nil {
			t.Error("the queue is forgotten with the other pool")
		}
	})
}

func TestUnimportantRequestsGetHalfOfTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		p := w.build("app", queued(2, "10.0.0.1:80"))
		defer p.Close()
		s, _ := p.Pick(new(Tried))
		var l line
		l.join(context.Background(), p, "a", Tried{}, Intent{Low: true})
		l.join(context.Background(), p, "b", Tried{}, Intent{Low: true})
		l.expect(t, "b queue_full")
		l.join(context.Background(), p, "c", Tried{}, Intent{})
		l.join(context.Background(), p, "d", Tried{}, Intent{})
		l.expect(t, "d queue_full")
		s.Done(good)
		s.Done(good)
		s.Done(good)
		l.all.Wait()
	})
}

func TestReloadKeepsTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		old := w.build("app", queued(10, "10.0.0.1:80"))
		s, _ := old.Pick(new(Tried))
		var l line
		l.join(context.Background(), old, "old", Tried{}, Intent{})
		o := queued(20, "10.0.0.1:80")
		p := w.build("app", o)
		old.Close()
		l.join(context.Background(), p, "new", Tried{}, Intent{})
		s.Done(good)
		l.expect(t, "old 10.0.0.1:80")
		s.Done(good)
		l.expect(t, "new 10.0.0.1:80")
		s.Done(good)
		p.Close()
	})
}

func TestQueueUnderConcurrency(t *testing.T) {
	o := weighted("round_robin", 1, 1)
	o.MaxConnections, o.Queue, o.QueueTimeout = 2, 1000, 10*time.Second
	p := build(t, o)
	var served atomic.Int64
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			for range 500 {
				s, verdict := p.Pick(new(Tried))
				if s == nil && verdict.Waits() {
					s, verdict = p.Wait(context.Background(), new(Tried), Intent{})
				}
				if s == nil {
					t.Errorf("verdict %v", verdict)
					return
				}
				if s.InFlight() > 2 {
					t.Errorf("%d in flight", s.InFlight())
				}
				served.Add(1)
				s.Done(good)
			}
		})
	}
	all.Wait()
	if served.Load() != 32*500 || p.QueueStats().Waiting != 0 || p.QueueStats().TimedOut != 0 {
		t.Errorf("served %d, %+v", served.Load(), p.QueueStats())
	}
}

// Whoever matters less stands behind those who matter more.
func TestUnimportantRequestsStandBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		p := w.build("app", queued(10, "10.0.0.1:80"))
		defer p.Close()
		held, _ := p.Pick(new(Tried))
		var l line
		l.join(t.Context(), p, "a", Tried{}, Intent{Low: true})
		l.join(t.Context(), p, "b", Tried{}, Intent{})
		l.join(t.Context(), p, "c", Tried{}, Intent{Low: true})
		l.join(t.Context(), p, "d", Tried{}, Intent{})
		held.Done(good)
		l.expect(t, "b 10.0.0.1:80")
		for _, want := range []string{"d 10.0.0.1:80", "a 10.0.0.1:80", "c 10.0.0.1:80"} {
			p.Servers()[0].Done(good)
			l.expect(t, want)
		}
		p.Servers()[0].Done(good)
	})
}
