package proxy

import (
	"sync"

	"gateway/exchange"
	"gateway/upstream"
)

// fills are the responses that are being received apart from the request that
// asked for them, so that they can be ended with the gateway.
type fills struct {
	mu      sync.Mutex // never held across I/O
	closed  bool
	calls   map[*upstream.Call]struct{}
	running sync.WaitGroup
}

// start receives on a goroutine of its own. At most one for each request whose
// client has not left, and those receive until their time is over.
func (s *fills) start(p *fill) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls == nil {
		s.calls = make(map[*upstream.Call]struct{})
	}
	s.calls[p.call] = struct{}{}
	if s.closed {
		p.call.Cancel()
	}
	s.running.Add(1)
	go func() {
		defer s.running.Done()
		call := p.call
		p.run(func() {
			s.mu.Lock()
			delete(s.calls, call)
			s.mu.Unlock()
		})
	}()
}

// close ends them all and waits.
func (s *fills) close() {
	s.mu.Lock()
	s.closed = true
	for call := range s.calls {
		call.Cancel()
	}
	s.mu.Unlock()
	s.running.Wait()
}

// failures are the errors that flights fail with, by reason, so that those who
// wait are answered like the one who asked.
var failures = func() (list [exchange.ReasonCount]error) {
	for r := range list {
		list[r] = &flightError{exchange.Reason(r)}
	}
	return list
}()

type flightError struct{ reason exchange.Reason }

func (e *flightError) Error() string { return e.reason.String() }

// errorOfFlight is what a flight fails with. Done stands for an error of the
// origin's own.
func errorOfFlight(r exchange.Reason) error { return failures[r] }

// reasonOfFlight is the answer to those who waited; false when they are to ask
// for themselves.
func reasonOfFlight(err error) (exchange.Reason, bool) {
	if f, ok := err.(*flightError); ok && f.reason != exchange.Done {
		return f.reason, true
	}
	return 0, false
}
