package upstream

import (
	"fmt"
	"time"

	"gateway/internal/unit"
)

// HedgeDelay is after what time of silence another server is asked too. Its
// text is a duration ("50ms"), a percentile of the pool's latencies ("p90",
// "p95" or "p99"), or "off". The zero value is off.
type HedgeDelay struct {
	Time       time.Duration // 0 with Percentile, and when it is off
	Percentile int           // 90, 95 or 99, 0 without
}

// On reports whether anything is hedged.
func (d HedgeDelay) On() bool { return d != HedgeDelay{} }

// Bounds of a fixed delay.
const (
	minHedge = time.Millisecond
	maxHedge = time.Hour
)

// UnmarshalText reads a delay.
func (d *HedgeDelay) UnmarshalText(text []byte) error {
	*d = HedgeDelay{}
	s := string(text)
	if s == "off" {
		return nil
	}
	for _, p := range percentiles {
		if s == fmt.Sprintf("p%d", p) {
			d.Percentile = p
			return nil
		}
	}
	t, err := unit.ParseDuration(s)
	switch {
	case err != nil:
		return fmt.Errorf(`unexpected delay %q; want a duration such as "50ms", or "p90", "p95", "p99" or "off"`, s)
	case t < minHedge || t > maxHedge:
		return fmt.Errorf("%q is out of range; want %v to %v", s, minHedge, maxHedge)
	}
	d.Time = t
	return nil
}

// MarshalText is String.
func (d HedgeDelay) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String is the delay's text.
func (d HedgeDelay) String() string {
	switch {
	case d.Percentile > 0:
		return fmt.Sprintf("p%d", d.Percentile)
	case d.Time > 0:
		return unit.FormatDuration(d.Time)
	}
	return "off"
}

// Hedging tells that requests are going to be hedged after that delay, so that
// the pool keeps what it takes to know it.
func (p *Pool) Hedging(d HedgeDelay) {
	if d.Percentile > 0 {
		p.ledger.latencies.CompareAndSwap(nil, new(latencies))
	}
}

// HedgeAfter is the delay as it is now, 0 when it is off or not known yet.
// Allocates nothing, takes no lock.
func (p *Pool) HedgeAfter(d HedgeDelay) time.Duration {
	if d.Percentile == 0 {
		return d.Time
	}
	l := p.ledger.latencies.Load()
	if l == nil {
		return 0
	}
	if known := l.percentile(d.Percentile); known > 0 {
		return max(known, minHedge)
	}
	return 0
}

// Hedged counts a second attempt beside a slow one, by whether its response was
// used. slow is how long the first one had taken when it was given up for the
// second one, 0 if it was not: it would have taken longer, and not to count it
// would make the pool look faster the more is hedged.
func (p *Pool) Hedged(won bool, slow time.Duration) {
	i := 1
	if won {
		i = 0
	}
	p.ledger.hedges[i].Add(1)
	if l := p.ledger.latencies.Load(); l != nil && slow > 0 {
		l.observe(int64(slow), p.registry.now())
	}
}

// Hedges is how many second attempts were made whose response was used, and
// was not.
func (p *Pool) Hedges() (won, lost uint64) {
	return p.ledger.hedges[0].Load(), p.ledger.hedges[1].Load()
}
