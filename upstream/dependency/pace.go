package dependency

import (
	"math/rand/v2"
	"time"
)

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
