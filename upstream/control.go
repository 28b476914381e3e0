package upstream

import (
	"fmt"
	"slices"
	"strings"
)

// What operators decide while the gateway runs. It is lost on a restart, and
// lasts over reloads for as long as the pool has a server of that name.

// Order is what an operator decided about a server.
type Order uint32

const (
	// Enabled is the absence of another order.
	Enabled Order = iota

	// Drained: no new requests, those of sticky sessions included. What is in
	// flight ends, the server is checked as before, and its connections are
	// kept: it is back at once.
	Drained

	// Disabled: drained, and left alone. It is not checked, its idle
	// connections are closed, and those in use when they become idle. Back in
	// use it is checked at once, and starts slowly.
	Disabled
)

// String is the order's name in status, logs and the admin API.
func (o Order) String() string {
	return [...]string{"enabled", "drained", "disabled"}[o]
}

// SetOrder drains, disables or enables a server of a pool. Checks and
// connections of an address end when it is disabled in all pools that reach it
// in the same way. The error says which names are known.
func (r *Registry) SetOrder(pool, server string, o Order) error {
	err := r.control(pool, server, func(s *Server) {
		if Order(s.tally.order.Swap(uint32(o))) == Disabled && o != Disabled {
			s.pool.renew(s)
		}
	})
	if err != nil {
		return err
	}
	r.log.Info("server is "+o.String(), "upstream", pool, "server", server)
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
	var changed []*Server
	for _, p := range pools {
		for _, s := range p.Servers() {
			known = append(known, s.Name)
			if s.Name == server {
				changed = append(changed, s)
				change(s)
			}
		}
	}
	if changed == nil {
		slices.Sort(known)
		return fmt.Errorf("unknown server %q in upstream %q; want one of %s", server, pool, strings.Join(slices.Compact(known), ", "))
	}
	for _, p := range pools {
		p.refresh()
	}
	r.mu.Lock()
	left := r.attend(changed)
	r.mu.Unlock()
	closeIdle(left)
	return nil
}
