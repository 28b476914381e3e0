package upstream

import (
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"gateway/internal/clock"
	"gateway/internal/unit"
)

// EjectOptions say when servers that fail requests are taken out of use
// (Envoy's outlier detection), and for how long.
type EjectOptions struct {
	// On is set by any value but false.
	On bool `toml:"-"`

	// So many failures in a row eject a server.
	Consecutive int `toml:"consecutive" default:"5" min:"1" max:"1000"`

	// A server is ejected when at least this share of its requests within the
	// window failed, if there were enough of them; or of the latest 80 of these:
	// a busy server that begins to fail is not kept for what it did before.
	Failures unit.Percent `toml:"failures" default:"30%"`

	// Requests within the window that it takes for the share to count.
	Requests int `toml:"requests" default:"20" min:"1" max:"1000000"`

	// The window in which requests and failures are counted.
	Window time.Duration `toml:"window" default:"10s" min:"100ms" max:"1h"`

	// An ejection lasts so long, the second one twice as long, the third one
	// three times, and so on. It begins anew when the server has been well for
	// max_time.
	Time time.Duration `toml:"time" default:"30s" min:"10ms" max:"24h"`

	// No ejection lasts longer.
	MaxTime time.Duration `toml:"max_time" default:"5m" min:"10ms" max:"24h"`

	// No more than this share of the pool's servers is ejected at the same
	// time, and never the last one.
	MaxEjected unit.Percent `toml:"max_ejected" default:"50%"`
}

// DefaultEject is what "eject = true" asks for.
func DefaultEject() EjectOptions {
	return EjectOptions{
		On:          true,
		Consecutive: 5,
		Failures:    30,
		Requests:    20,
		Window:      10 * time.Second,
		Time:        30 * time.Second,
		MaxTime:     5 * time.Minute,
		MaxEjected:  50,
	}
}

// UnmarshalTOML reads true or false. It takes any table for true: the
// configuration reads its keys.
func (o *EjectOptions) UnmarshalTOML(v any) error {
	switch v {
	case false:
		*o = EjectOptions{}
		return nil
	case true, "true": // the latter as the tag of the default has it
		*o = DefaultEject()
		return nil
	}
	if _, ok := v.(map[string]any); ok {
		*o = DefaultEject()
		return nil
	}
	return unexpectedSwitch(v, "{ consecutive = 5 }")
}

// unexpectedSwitch is the error for a value that is neither a switch nor a
// table.
func unexpectedSwitch(v any, example string) error {
	if s, ok := v.(string); ok {
		return fmt.Errorf("unexpected %q; want true, false or a table such as %s", s, example)
	}
	return fmt.Errorf("unexpected %v; want true, false or a table such as %s", v, example)
}

// EjectCause is why a server was ejected.
type EjectCause uint8

const (
	EjectedInARow   EjectCause = iota // Consecutive failures
	EjectedByRate                     // Failures of Requests
	EjectedOnTrial                    // the first request after an ejection failed
	EjectCauseCount                   // number of values above
)

var ejectCauseNames = [EjectCauseCount]string{
	EjectedInARow: "consecutive", EjectedByRate: "failure_rate", EjectedOnTrial: "trial",
}

// String is the cause's name in metrics and logs.
func (c EjectCause) String() string {
	if c < EjectCauseCount {
		return ejectCauseNames[c]
	}
	return "unknown"
}

// EjectionObserver is an Observer that is told of ejections too. Its methods
// are called by whoever ends a request, and must not block.
type EjectionObserver interface {
	// Ejected tells that a server is out of use for so long.
	Ejected(pool, server string, cause EjectCause, pause time.Duration)
	// Readmitted tells that an ejection is over: the server is on trial.
	Readmitted(pool, server string)
}

// After an ejection a server is on trial: it gets one request at a time until
// the first one tells whether it is well.
const (
	noTrial       uint32 = iota
	trialOpen            // the next request is the trial
	trialUnderWay        // nobody else gets the server until it ended
)

// ejected reports whether the server is ejected.
func (t *tally) ejected() bool { return t.until.Load() != 0 }

// judge makes of a result what it says about the server. failed is whether it
// is held against it. Costs a good result two loads.
func (s *Server) judge(r Result, failed bool, now int64) {
	t := s.tally
	switch {
	case failed:
		if r.Outcome == OK && s.pool.excused() {
			t.forgiven.Add(1)                                    // something that all servers share is out of order
			if t.streak.Load() != 0 || t.suspected.Load() != 0 { // so it was when the first ones failed
				t.suspected.Store(0)
				t.streak.Store(0)
				t.window.begin(now, t)
			}
			t.trial.CompareAndSwap(trialUnderWay, trialOpen)
			return
		}
		s.failed(r, now)
	case r.Outcome == OK:
		if t.streak.Load() != 0 {
			t.streak.Store(0)
		}
		if t.trial.Load() != noTrial && !t.ejected() {
			s.pool.passed(s, now)
		}
	default: // says nothing
		if t.trial.Load() != noTrial {
			t.trial.CompareAndSwap(trialUnderWay, trialOpen)
		}
	}
}

// failed counts a failure and ejects the server if that is one too many.
func (s *Server) failed(r Result, now int64) {
	t, o := s.tally, &s.pool.Options.Eject
	if t.ejected() {
		return // from before, or while ejections are ignored
	}
	streak := t.streak.Add(1)
	requests, failures := t.window.since(t)
	dense := t.window.dense(now, t, o)
	var cause EjectCause
	switch {
	case t.trial.Load() != noTrial:
		cause = EjectedOnTrial
	case streak >= int32(o.Consecutive):
		cause = EjectedInARow
	case requests >= uint64(o.Requests) && float64(failures) >= o.Failures.Fraction()*float64(requests), dense:
		cause = EjectedByRate
	default:
		return
	}
	if r.Outcome == OK && s.doubtful() {
		t.trial.CompareAndSwap(trialUnderWay, trialOpen)
		return
	}
	s.pool.eject(s, cause, now)
}

// doubtful reports whether answers may be the fault of something that all
// servers share, although nothing is known of that yet. The next failures ask
// again.
func (s *Server) doubtful() bool {
	since, now := s.tally.suspected.Load(), clock.Mono()
	if since == 0 || now-since > int64(s.pool.Options.Eject.Window) {
		since = now
		s.tally.suspected.Store(since)
	}
	if s.pool.doubtful(since) {
		return true
	}
	s.tally.suspected.Store(0)
	return false
}

// eject takes a server out of use, unless too many of the pool would be.
func (p *Pool) eject(s *Server, cause EjectCause, now int64) {
	if !p.expel(s, cause, now) {
		return
	}
	for _, other := range p.registry.named(p.Name) {
		other.refresh()
	}
}

// expel is the part of eject that is done under the locks.
func (p *Pool) expel(s *Server, cause EjectCause, now int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	l, t, o := p.ledger, s.tally, &p.Options.Eject
	l.ejecting.Lock()
	defer l.ejecting.Unlock()
	if p.closed || t.ejected() || !s.inRotation() {
		// The pool that took over judges for itself, and a server that gets
		// nothing needs no ejection. A trial stays open.
		t.trial.CompareAndSwap(trialUnderWay, trialOpen)
		return false
	}
	t.streak.Store(0) // if the server is spared, it is not asked again for each failure
	t.window.begin(now, t)
	rotation, ejected := 0, 1
	for _, other := range p.Servers() {
		if other.inRotation() {
			rotation++
			if other.tally.ejected() {
				ejected++
			}
		}
	}
	if ejected >= rotation || float64(ejected) > o.MaxEjected.Fraction()*float64(rotation)+rounding {
		t.trial.Store(noTrial)
		return false
	}
	if t.returned != 0 && now-t.returned >= int64(o.MaxTime) {
		t.times = 0
	}
	t.times++
	pause := min(o.MaxTime, o.Time*time.Duration(min(t.times, maxTimes)))
	t.until.Store(now + int64(pause))
	t.trial.Store(noTrial)
	t.ejections[cause].Add(1)
	r := p.registry
	r.log.Warn("server is ejected", "upstream", p.Name, "server", s.Name, "cause", cause.String(), "for", pause.String())
	if r.ejections != nil {
		r.ejections.Ejected(p.Name, s.Name, cause, pause)
	}
	return true
}

// maxTimes keeps the product of an ejection's time from overflowing.
const maxTimes = 1 << 14

// readmit puts a server on trial whose ejection is over. The caller holds p.mu.
func (p *Pool) readmit(s *Server, now int64) {
	t := s.tally
	if until := t.until.Load(); until == 0 || now < until && p.ejects {
		return
	}
	if p.endEjection(s, now) && p.ejects {
		t.trial.Store(trialOpen)
	}
}

// endEjection reports whether there was one to end.
func (p *Pool) endEjection(s *Server, now int64) bool {
	l, t := p.ledger, s.tally
	l.ejecting.Lock()
	defer l.ejecting.Unlock()
	if !t.ejected() {
		return false
	}
	t.returned = now
	t.streak.Store(0)
	t.window.begin(now, t)
	t.peak.forget()
	t.ramp.Store(now)
	t.until.Store(0)
	r := p.registry
	r.log.Info("server's ejection is over", "upstream", p.Name, "server", s.Name)
	if r.ejections != nil {
		r.ejections.Readmitted(p.Name, s.Name)
	}
	return true
}

// passed ends the trial of a server: from now on it gets its share, slowly at
// first.
func (p *Pool) passed(s *Server, now int64) {
	if s.tally.trial.Swap(noTrial) == noTrial {
		return
	}
	s.tally.ramp.Store(now)
	for _, other := range p.registry.named(p.Name) {
		other.refresh()
	}
}

// recovered begins slow start for a server whose active checks passed again.
func (p *Pool) recovered(o *origin) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.registry.now()
	for _, s := range p.Servers() {
		if s.origin == o {
			p.startSlowly(s, now)
		}
	}
}

// renew begins slow start for a server that an operator puts back in use.
func (p *Pool) renew(s *Server) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.startSlowly(s, p.registry.now())
}

// startSlowly begins slow start for a server. Whatever it was ejected for
// belongs to the past. The caller holds p.mu.
func (p *Pool) startSlowly(s *Server, now int64) {
	p.endEjection(s, now)
	s.tally.trial.Store(noTrial)
	s.tally.peak.forget()
	s.tally.ramp.Store(now)
}

// Ejections is how often the server was ejected for that cause.
func (s *Server) Ejections(c EjectCause) uint64 { return s.tally.ejections[c].Load() }

// window counts requests and failures over the last time, in two halves: what
// it covers is between half and all of its length. It takes differences of what
// is counted anyway, so that a good result costs no more than a look at the
// time.
type window struct {
	began   atomic.Int64 // the present half; clock of the registry
	last    mark         // when the last half began
	present mark         // when the present half began

	// The latest failures, in a ring: when each was, and how many requests there
	// had been.
	count atomic.Uint32
	ring  [latest]struct {
		requests atomic.Uint64
		at       atomic.Int64
	}
}

// latest is the number of requests of which a share of failures ejects however
// many there were before. Of fewer, a share below the limit would often look
// like one above it.
const latest = 80

// mark is the totals at one moment.
type mark struct{ requests, failures atomic.Uint64 }

// roll begins another half if it is time to.
func (w *window) roll(now int64, length time.Duration, t *tally) {
	began := w.began.Load()
	if now-began < int64(length)/2 || !w.began.CompareAndSwap(began, now) {
		return
	}
	requests, failures := t.judged()
	if now-began < int64(length) {
		w.last.requests.Store(w.present.requests.Load())
		w.last.failures.Store(w.present.failures.Load())
	} else { // nothing was counted for a while
		w.last.requests.Store(requests)
		w.last.failures.Store(failures)
	}
	w.present.requests.Store(requests)
	w.present.failures.Store(failures)
}

// begin forgets everything up to now.
func (w *window) begin(now int64, t *tally) {
	requests, failures := t.judged()
	w.last.requests.Store(requests)
	w.last.failures.Store(failures)
	w.present.requests.Store(requests)
	w.present.failures.Store(failures)
	w.began.Store(now)
	w.count.Store(0)
}

// dense takes another failure, and reports whether the share of failures among
// the latest requests is too large. Of failures at the same moment one may be
// lost.
func (w *window) dense(now int64, t *tally, o *EjectOptions) bool {
	if o.Requests > latest {
		return false
	}
	share := o.Failures.Fraction()
	n := max(uint32(math.Ceil(share*latest-rounding)), 1) // failures that are too many
	requests, _ := t.judged()
	i := w.count.Add(1) - 1
	slot := &w.ring[i%n]
	before, at := slot.requests.Swap(requests), slot.at.Swap(now)
	return i >= n && requests-before <= latest && now-at <= int64(o.Window)
}

// since is what was counted within the window.
func (w *window) since(t *tally) (requests, failures uint64) {
	before, failed := w.last.requests.Load(), w.last.failures.Load()
	requests, failures = t.judged()
	if requests < before || failures < failed {
		return 0, 0 // counters are read one after the other, while others count
	}
	return requests - before, failures - failed
}

// judged is the number of results that say something about the server, and of
// those that are held against it.
func (t *tally) judged() (requests, failures uint64) {
	forgiven := t.forgiven.Load() // first: it is counted last
	failures = t.failures()
	requests = t.ended(OK) + failures - t.serverErrors.Load()
	return requests, failures - forgiven
}
