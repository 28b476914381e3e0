package upstream

import (
	"math/bits"
	"math/rand/v2"
)

// Picker chooses among the servers that it was built for: the usable ones of
// a pool at one time. Pick takes no lock, allocates nothing and counts the
// request in before it returns, so that the next pick sees it.
type Picker interface {
	// Pick chooses a server that is not in tried and has room; without one the
	// verdict is AllFull or AllTried. key is Intent.Key.
	Pick(tried Tried, key uint64) (*Server, Verdict)
}

// Intent is what a pick takes into account of a request besides the servers
// tried for it. The zero value is a request without anything of the kind.
type Intent struct {
	Key   uint64 // KeyHash of what the pool's HashKey names; 0: the request does not have it
	Token []byte // of the sticky session, as the client's cookie has it; nil without one. Borrowed for the pick
	Low   bool   // matters less than others: is refused sooner when the pool is overloaded
}

// Verdict says why a pick found a server, or none.
type Verdict uint8

const (
	Picked        Verdict = iota // the server counts one more request in flight; Done ends it
	NoServer                     // none is usable: down, drained, disabled, or the name is not known yet
	AllFull                      // each that is usable, and not tried yet, is at its limit, or others wait for one already
	AllTried                     // each that is usable has been tried
	Overloaded                   // the pool is at its limit of requests in flight (AdaptiveOptions)
	QueueFull                    // Wait: so many wait that this one can't
	QueueTimedOut                // Wait: no server became free in time
	WaitCancelled                // Wait: the context was done
	VerdictCount                 // number of values above
)

var verdictNames = [VerdictCount]string{
	Picked: "picked", NoServer: "no_server", AllFull: "all_full", AllTried: "all_tried", Overloaded: "overloaded",
	QueueFull: "queue_full", QueueTimedOut: "queue_timed_out", WaitCancelled: "wait_cancelled",
}

// String is the verdict's name in metrics and logs.
func (v Verdict) String() string {
	if v < VerdictCount {
		return verdictNames[v]
	}
	return "unknown"
}

// Waits reports whether Wait may still find a server after a pick with this
// verdict.
func (v Verdict) Waits() bool { return v == AllFull || v == Overloaded }

// member is a server among those that a picker chooses from.
type member struct {
	*Server
	share int64 // its weight as it is now, slow start included; in relation to the other members'
}

// newPicker is the picker of a pool's policy, nil without members.
func (p *Pool) newPicker(members []member) Picker {
	if len(members) == 0 {
		return nil
	}
	balance := p.Options.Balance
	if balance == "hash" {
		return newMaglev(members, p.ledger)
	}
	weights := make([]int, len(members))
	for i, m := range members {
		weights[i] = int(m.share)
	}
	order := sequence(weights)
	// turn is the pool's counter of picks; it outlives the picker, so that a
	// change of the set does not begin with the first server each time.
	turn := &p.ledger.turn
	switch balance {
	case "round_robin", "":
		return newRoundRobin(members, order, turn)
	case "least_conn":
		return &leastConn{members: members, order: order, turn: turn}
	case "p2c":
		return newTwoChoices(members, order, false)
	case "peak_ewma":
		return newTwoChoices(members, order, true)
	}
	panic("BUG: no picker for balance " + balance)
}

// busier reports whether a member with so many requests in flight is busier
// than another one.
//
// The heavier of the two counts in whole rounds: with three times the share,
// three requests weigh as much as one. So two idle servers are equal whatever
// their weights, and whoever breaks ties by weight gives idle servers their
// shares. (By requests + 1 in relation to weight, the lightest of some idle
// servers would never be taken, by requests in relation to weight it would
// always be taken as soon as all others have one request each.)
func busier(a *member, inFlightA int64, b *member, inFlightB int64) bool {
	if a.share == b.share {
		return inFlightA > inFlightB
	}
	return rounds(a, inFlightA, b) > rounds(b, inFlightB, a)
}

// rounds is the number of requests in flight to a member, in rounds of what it
// gets for one request to the other one.
func rounds(m *member, inFlight int64, other *member) int64 {
	if m.share <= other.share {
		return inFlight
	}
	return inFlight * other.share / m.share
}

// below is a number from 0 to n-1, made of a random word.
func below(n int, word uint64) int {
	hi, _ := bits.Mul64(word, uint64(n))
	return int(hi)
}

func random() uint64 { return rand.Uint64() }

// MaxAttempts is the largest number of attempts for a request.
const MaxAttempts = 8

// Tried is the set of servers that were tried for a request. The zero value is
// empty. It is small and is passed by value.
type Tried struct {
	ids   [MaxAttempts]uint32
	count int
}

// Add puts a server into the set. A server whose address vanished and came
// back is still the same one as long as some pool kept it.
func (t *Tried) Add(s *Server) {
	if t.count == len(t.ids) {
		panic("BUG: more than MaxAttempts servers tried for a request")
	}
	t.ids[t.count] = s.origin.id
	t.count++
}

// Has reports whether a server is in the set.
func (t *Tried) Has(s *Server) bool {
	for i := range t.count {
		if t.ids[i] == s.origin.id {
			return true
		}
	}
	return false
}
