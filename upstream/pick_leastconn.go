package upstream

import "sync/atomic"

// maxCompared bounds how many servers a pick compares. Of more servers it sees
// another part each time: the exact least of a thousand costs microseconds and
// is hardly better than the least of some.
const maxCompared = 32

// leastConn takes the server with the fewest requests in flight in relation
// to its weight, of all if there are maxCompared at most, of so many that
// follow each other otherwise.
type leastConn struct {
	members []member
	order   []uint32 // where the search begins: of equal servers the first one found wins
	turn    *atomic.Uint64
}

// Pick takes the least loaded server. Equal ones take turns by weight.
func (l *leastConn) Pick(tried Tried, _ uint64) (*Server, Verdict) {
	start := int(l.order[turnOf(&tried, l.turn)%uint64(len(l.order))])
	for {
		best, verdict := l.least(&tried, start)
		// When somebody else took the last place meanwhile, look again: he
		// made progress, and a full server is not found a second time.
		if best == nil || best.acquire() {
			return best, verdict
		}
	}
}

// least goes on beyond maxCompared servers only until it has found one.
func (l *leastConn) least(tried *Tried, start int) (*Server, Verdict) {
	var best *member
	var load int64
	verdict := AllTried
	for i, at := 0, start; i < len(l.members) && (i < maxCompared || best == nil); i++ {
		m := &l.members[at]
		if at++; at == len(l.members) {
			at = 0
		}
		if tried.count > 0 && tried.Has(m.Server) {
			continue
		}
		n := m.origin.load.now()
		if best != nil && !busier(best, load, m, n) {
			continue // whether it has room makes no difference
		}
		if m.full(n) {
			if best == nil {
				verdict = AllFull
			}
			continue
		}
		best, load, verdict = m, n, Picked
	}
	if best == nil {
		return nil, verdict
	}
	return best.Server, verdict
}
