package upstream

import (
	"fmt"
	"slices"
	"strings"
)

// What operators decide while the gateway runs. It is lost on a restart, and
// lasts over reloads for as long as the pool has a server of that name.

// Drain takes a server of a pool out of use, or puts it back: drained, it gets
// no new requests and those in flight go on. The error says which names are
// known.
func (r *Registry) Drain(pool, server string, drained bool) error {
	err := r.control(pool, server, func(s *Server) { s.tally.drained.Store(drained) })
	if err != nil {
		return err
	}
	if drained {
		r.log.Info("server is drained", "upstream", pool, "server", server)
	} else {
		r.log.Info("server is in use again", "upstream", pool, "server", server)
	}
	return nil
}

// MaxWeight is the largest weight that SetWeight takes.
const MaxWeight = 1000

// SetWeight gives a server of a pool another weight, 1 to MaxWeight; 0 gives it
// the configured one again. The error says which names are known.
func (r *Registry) SetWeight(pool, server string, weight int) error {
	if weight < 0 || weight > MaxWeight {
		return fmt.Errorf("weight %d is out of range; want 1 to %d, or 0 for the configured one", weight, MaxWeight)
	}
	err := r.control(pool, server, func(s *Server) { s.tally.weight.Store(int32(weight)) })
	if err != nil {
		return err
	}
	r.log.Info("weight is set", "upstream", pool, "server", server, "weight", weight)
	return nil
}

// control changes a server of all pools of a name; during a reload there are
// two.
func (r *Registry) control(pool, server string, change func(*Server)) error {
	pools := r.named(pool)
	if len(pools) == 0 {
		return fmt.Errorf("unknown upstream %q", pool)
	}
	var known []string
	found := false
	for _, p := range pools {
		for _, s := range p.Servers() {
			known = append(known, s.Name)
			if s.Name == server {
				found = true
				change(s)
			}
		}
	}
	if !found {
		slices.Sort(known)
		return fmt.Errorf("unknown server %q in upstream %q; want one of %s", server, pool, strings.Join(slices.Compact(known), ", "))
	}
	for _, p := range pools {
		p.refresh()
	}
	return nil
}
