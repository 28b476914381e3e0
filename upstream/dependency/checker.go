package dependency

import (
	"math/rand/v2"
	"time"
)

// State is what the probes say of a dependency.
type State uint32

// The states of a dependency.
const (
	Unknown      State = iota // not probed yet; counts as up
	Connected                 // up
	Disconnected              // down
)

// String is the state's name in status and logs.
func (s State) String() string {
	return [...]string{"unknown", "connected", "disconnected"}[s]
}

// checker turns results of probes into a state. The first result decides
// alone; then it takes so many that contradict the present state, in a row.
type checker struct {
	state  State
	streak int // results in a row that contradict state
}

func (c *checker) next(o *Options, passed bool) State {
	seen, needed := Disconnected, o.Fails
	if passed {
		seen, needed = Connected, o.Passes
	}
	if seen == c.state {
		c.streak = 0
		return c.state
	}
	if c.streak++; c.state == Unknown || c.streak >= needed {
		c.state, c.streak = seen, 0
	}
	return c.state
}

// minPace is the time between the beginnings of two probes at least.
const minPace = 10 * time.Millisecond

// pace is the time between the beginnings of two probes. While the backend is
// away they are so dense that the passes it takes fit into one interval, and
// one more for the wait until the first of them.
func pace(o *Options, s State) time.Duration {
	d := o.Interval
	if s == Disconnected {
		d /= time.Duration(o.Passes + 1)
	}
	share := o.Jitter.Fraction() * (2*rand.Float64() - 1)
	return max(time.Duration(float64(d)*(1+share)), minPace)
}

// hurried is the time between two probes while somebody is in doubt.
func hurried(o *Options) time.Duration { return max(o.Interval/10, minPace) }
