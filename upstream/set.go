package upstream

import "time"

// set is the servers at one time. Immutable.
type set struct {
	servers []*Server          // all, in configured order, addresses of a name sorted
	usable  int                // of them
	panics  bool               // so many are ejected that ejections are ignored
	primary Picker             // among the usable ones that are no backups, nil without any
	backup  Picker             // among the usable backups, nil without any
	tokens  map[string]*Server // those that are picked from first, by token; nil without sticky sessions
}

// publish replaces the set: by the servers' health, ejections, administrative
// state and weights at this moment. When one of them is going to change with
// time, it sees to it that the set follows. The caller holds p.mu.
func (p *Pool) publish(servers []*Server) {
	now := p.registry.now()
	rotation, ejected := 0, 0
	for _, s := range servers {
		p.readmit(s, now)
		if s.inRotation() {
			rotation++
			if s.tally.ejected() {
				ejected++
			}
		}
	}
	next := &set{servers: servers, panics: 2*ejected > rotation}
	if p.sticky != nil {
		next.tokens = make(map[string]*Server, len(servers))
	}
	var primaries, backups []member
	later := int64(0) // when the set changes next, 0 for never
	sooner := func(at int64) {
		if later == 0 || at < later {
			later = at
		}
	}
	for _, s := range servers {
		if until := s.tally.until.Load(); until != 0 {
			sooner(until)
			if !next.panics {
				continue
			}
		}
		if !s.inRotation() {
			continue
		}
		part, changes := s.tally.part(now, p.Options.SlowStart)
		if changes != 0 {
			sooner(changes)
		}
		m := member{s, int64(s.weight()) * part}
		if s.Backup {
			backups = append(backups, m)
		} else {
			primaries = append(primaries, m)
		}
	}
	if next.tokens != nil {
		sticky := primaries
		if len(sticky) == 0 {
			sticky = backups
		}
		for _, m := range sticky {
			next.tokens[m.token] = m.Server
		}
	}
	next.usable = len(primaries) + len(backups)
	next.primary = p.newPicker(primaries)
	next.backup = p.newPicker(backups)
	if before := p.set.Load().panics; next.panics != before {
		p.tellPanic(next.panics, ejected, rotation)
	}
	p.set.Store(next)
	p.schedule(later, now)
	p.ledger.queue.freed() // perhaps there is room now, or nothing left to wait for
}

// schedule has the set replaced at a moment, never if it is 0. The caller holds
// p.mu.
func (p *Pool) schedule(at, now int64) {
	if p.timer != nil {
		p.timer.Stop()
	}
	if at == 0 || p.registry.ctx.Err() != nil {
		return
	}
	pause := max(time.Duration(at-now), time.Millisecond)
	if p.timer == nil {
		p.timer = time.AfterFunc(pause, p.refresh)
	} else {
		p.timer.Reset(pause)
	}
}

func (p *Pool) tellPanic(on bool, ejected, rotation int) {
	if on {
		p.registry.log.Warn("more than half of the servers are ejected: all are used again", "upstream", p.Name, "ejected", ejected, "servers", rotation)
	} else {
		p.registry.log.Info("ejected servers are left out again", "upstream", p.Name, "ejected", ejected, "servers", rotation)
	}
}

// whole is the part of its weight that a server has which is not in slow start.
// Parts are percentages.
const (
	whole     = 100
	rampBegin = 10 // part that slow start begins with
	rampSteps = 20 // in which the part grows to the whole
)

// part is the part of its weight that a server has at a moment, and when that
// changes, 0 for never: weight × max(10 %, t/window) in steps (Envoy's slow
// start with aggression 1).
func (t *tally) part(now int64, window time.Duration) (part, changes int64) {
	began := t.ramp.Load()
	if began == 0 || window <= 0 {
		return whole, 0
	}
	step := int64(window) / rampSteps
	if step == 0 || now-began >= int64(window) {
		return whole, 0
	}
	steps := max((now-began)/step, 0)
	part = steps * whole / rampSteps
	if part < rampBegin {
		steps = rampBegin * rampSteps / whole
		part = rampBegin
	}
	return min(part, whole), began + (steps+1)*step
}
