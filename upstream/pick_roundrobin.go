package upstream

import "sync/atomic"

// roundRobin walks along a precomputed sequence. Concurrent picks take
// different places of it, so that the shares are exact.
type roundRobin struct {
	sequence []*Server
	turn     *atomic.Uint64
}

func newRoundRobin(members []member, order []uint32, turn *atomic.Uint64) *roundRobin {
	r := &roundRobin{sequence: make([]*Server, len(order)), turn: turn}
	for i, index := range order {
		r.sequence[i] = members[index].Server
	}
	return r
}

// Pick takes the server whose turn it is, or the next one of the sequence that
// can be taken. A request that was tried already has had its turn: if it took
// another one, each request that fails would send the next one to the server
// that it failed at, in a pool of two.
func (r *roundRobin) Pick(tried Tried, _ uint64) (*Server, Verdict) {
	at := 0
	if len(r.sequence) > 1 { // else nobody needs to know whose turn it is
		at = int(turnOf(&tried, r.turn) % uint64(len(r.sequence)))
	}
	verdict := AllTried
	for range r.sequence {
		s := r.sequence[at]
		if !tried.Has(s) {
			if s.acquire() {
				return s, Picked
			}
			verdict = AllFull
		}
		if at++; at == len(r.sequence) {
			at = 0
		}
	}
	return nil, verdict
}

// turnOf is the next turn, which a request takes when it is picked for the
// first time.
func turnOf(tried *Tried, turn *atomic.Uint64) uint64 {
	if tried.count > 0 {
		return turn.Load()
	}
	return turn.Add(1) - 1
}
