package upstream

// twoChoices draws two servers at random, in proportion to their weights, and
// takes the better one: "the power of two random choices" (Mitzenmacher). It
// costs the same for any number of servers, and gateways that do not know of
// each other do not all run to the same idle server.
//
// For p2c the better one is the one with fewer requests in flight in relation
// to its weight, for peak_ewma the one that costs less (see cost). Of two that
// are equal it is the one drawn first, hence idle servers get their shares by
// weight.
type twoChoices struct {
	sequence []member // each as often as its weight says
	members  int      // different ones
	peaked   bool     // for peak_ewma
}

func newTwoChoices(members []member, order []uint32, peaked bool) *twoChoices {
	c := &twoChoices{sequence: make([]member, len(order)), members: len(members), peaked: peaked}
	for i, index := range order {
		c.sequence[i] = members[index]
	}
	return c
}

// Pick takes the better one of two servers; if neither will do, the next one
// that can be taken.
func (c *twoChoices) Pick(tried Tried, _ uint64) (*Server, Verdict) {
	first, second := c.draw()
	a, b := &c.sequence[first], &c.sequence[second]
	m, n := a.origin.load.now(), b.origin.load.now()
	if tried.count == 0 || !tried.Has(a.Server) && !tried.Has(b.Server) {
		if c.worse(a, m, b, n) {
			a, b = b, a
		}
		if a.acquire() {
			return a.Server, Picked
		}
		if b.acquire() {
			return b.Server, Picked
		}
	}
	return c.walk(&tried, first)
}

// draw chooses two places of the sequence, of different servers if there is
// more than one. Servers of a very large weight may be drawn twice.
func (c *twoChoices) draw() (first, second int) {
	n := len(c.sequence)
	if n == 1 {
		return 0, 0
	}
	word := random()
	first, second = below(n, word<<32), below(n-1, word&^(1<<32-1))
	if second >= first {
		second++
	}
	for tries := 0; tries < 4 && c.members < n && c.sequence[first].Server == c.sequence[second].Server; tries++ {
		if second++; second == n {
			second = 0
		}
	}
	return first, second
}

// worse reports whether b is to be preferred to a, which was drawn first.
func (c *twoChoices) worse(a *member, inFlightA int64, b *member, inFlightB int64) bool {
	if c.peaked {
		return costlier(a, inFlightA, b, inFlightB)
	}
	return busier(a, inFlightA, b, inFlightB)
}

// walk takes the next server of the sequence that can be taken.
func (c *twoChoices) walk(tried *Tried, at int) (*Server, Verdict) {
	verdict := AllTried
	for range c.sequence {
		s := c.sequence[at].Server
		if !tried.Has(s) {
			if s.acquire() {
				return s, Picked
			}
			verdict = AllFull
		}
		if at++; at == len(c.sequence) {
			at = 0
		}
	}
	return nil, verdict
}
