package upstream

import (
	"math/bits"
	"slices"
	"strings"
)

// maglev maps keys to servers by a table that each server fills in its own
// order, taking turns by weight (Eisenbud et al., "Maglev", NSDI 2016, section
// 3.4): shares are even to about a percent, a lookup is one load, and when a
// server comes or goes, hardly more keys move than have to. The table depends
// on names and weights alone, so that all gateways agree.
//
// Load is bounded (Mirrokni et al., "Consistent Hashing with Bounded Loads"):
// a server has at most 1.25 times its share of the pool's requests in flight,
// and what is beyond that goes to the servers that follow in the table.
type maglev struct {
	members []member
	total   int64    // of their shares
	table   []uint16 // indices of members
	ledger  *ledger  // whose requests in flight are shared out
}

const (
	maglevSize = 65_537  // entries: a prime, a hundred times the servers of a large pool
	maxMembers = 1 << 16 // further ones get nothing; there are fewer entries to share out than that anyway
	maxProbes  = 64      // entries that a pick looks at before it asks all servers in turn
)

func newMaglev(members []member, l *ledger) *maglev {
	members = slices.Clone(members)
	slices.SortFunc(members, func(a, b member) int { return strings.Compare(a.Name, b.Name) })
	if len(members) > maxMembers {
		members = members[:maxMembers]
	}
	g := &maglev{members: members, table: make([]uint16, maglevSize), ledger: l}
	type order struct{ next, step uint64 } // a walk through the table
	orders := make([]order, len(members))
	heaviest := int64(0)
	for i, m := range members {
		g.total += m.share
		heaviest = max(heaviest, m.share)
		h := KeyHash([]byte(m.Name))
		orders[i] = order{h % maglevSize, mix(h+1)%(maglevSize-1) + 1}
	}
	// In each round the heaviest take one entry, others only when their share
	// of the rounds so far is a whole entry more than they have.
	taken := make([]bool, maglevSize)
	credit := make([]int64, len(members))
	for filled := 0; ; {
		for i := range members {
			if credit[i] += members[i].share; credit[i] < heaviest {
				continue
			}
			credit[i] -= heaviest
			o := &orders[i]
			for taken[o.next] {
				o.next = (o.next + o.step) % maglevSize
			}
			taken[o.next] = true
			g.table[o.next] = uint16(i)
			if filled++; filled == maglevSize {
				return g
			}
		}
	}
}

// Pick takes the server of the key, or the next one that has room. Without a
// key it begins anywhere.
func (g *maglev) Pick(tried Tried, key uint64) (*Server, Verdict) {
	if key == 0 {
		key = random()
	}
	inFlight := g.ledger.inFlight.Load() // this request included
	slot := g.slot(key)
	for range maxProbes {
		m := &g.members[g.table[slot]]
		if !tried.Has(m.Server) && m.acquireWithin(g.bound(m.share, inFlight)) {
			return m.Server, Picked
		}
		if slot++; slot == maglevSize {
			slot = 0
		}
	}
	return g.walk(&tried, int(g.table[slot]), inFlight)
}

// slot is where a key begins in the table.
func (g *maglev) slot(key uint64) int {
	hi, _ := bits.Mul64(mix(key), maglevSize)
	return int(hi)
}

// bound is how many requests a member of that share may have in flight, of so
// many of the pool: the smallest whole number that is not below 1.25 times its
// part.
func (g *maglev) bound(share, inFlight int64) int64 {
	n := 4 * g.total
	return (5*share*inFlight + n - 1) / n
}

// walk takes the next member that has room, then one that is over its bound but
// below its limit: one that was tried can hold what others may not take.
func (g *maglev) walk(tried *Tried, start int, inFlight int64) (*Server, Verdict) {
	verdict := AllTried
	for _, bounded := range [...]bool{true, false} {
		at := start
		for range g.members {
			m := &g.members[at]
			if !tried.Has(m.Server) {
				if bounded && m.acquireWithin(g.bound(m.share, inFlight)) || !bounded && m.acquire() {
					return m.Server, Picked
				}
				verdict = AllFull
			}
			if at++; at == len(g.members) {
				at = 0
			}
		}
	}
	return nil, verdict
}

// acquireWithin counts a request in if that leaves no more than bound of this
// pool's requests in flight to the server, and it has room.
func (s *Server) acquireWithin(bound int64) bool {
	active := &s.tally.active
	for {
		n := active.Load()
		if n >= bound {
			return false
		}
		if active.CompareAndSwap(n, n+1) {
			break
		}
	}
	if !s.admit() {
		active.Add(-1)
		return false
	}
	return true
}

// KeyHash hashes a request's key for Intent.Key. It is never 0, and the same
// in all gateways (FNV-1a, then mixed). Allocates nothing.
func KeyHash(key []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, b := range key {
		h = (h ^ uint64(b)) * 1099511628211
	}
	if h = mix(h); h == 0 {
		return 1
	}
	return h
}

// mix spreads all bits of a word over all bits of the result (the finalizer of
// MurmurHash3).
func mix(h uint64) uint64 {
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
