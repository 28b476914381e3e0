package ratelimit

import "math/bits"

// Moments and debts are counted in units of 1/16 ns since the process began:
// fine enough for 100,000,000 tokens a second to within 0.5 %, and good for 18
// years. A bucket's debt is the time that it needs to be full again.
const unitsPerNano = 16

func units(ns int64) uint64 { return uint64(max(ns, 0)) * unitsPerNano }

// nanos is the time in ns, rounded up.
func nanos(u uint64) int64 { return int64((u + unitsPerNano - 1) / unitsPerNano) }

// A bucket's word is the moment at which it will be full, shifted left by one,
// and the parity of the scale that it was written in. The zero word is a full
// bucket in every scale.
const (
	parityBit = 1
	reserved  = ^uint64(0) // the slot is being given to another key
)

// scale is the rate of a policy as buckets see it. A changed rate makes a new
// scale of the other parity, under which words of the former one are read with
// their debt converted: the number of tokens that are missing stays.
type scale struct {
	parity  uint64
	cost    uint64 // units a token: T
	window  uint64 // units: the largest debt, burst·T
	former  uint64 // cost in the scale before this one
	changed uint64 // when this scale came
}

// newScale is the scale for a token each so many units, and a burst.
func newScale(cost, window uint64) *scale {
	return &scale{cost: cost, window: window, former: cost}
}

// next is the scale that follows at a moment.
func (s *scale) next(cost, window, now uint64) *scale {
	return &scale{parity: s.parity ^ parityBit, cost: cost, window: window, former: s.cost, changed: now}
}

// debt is what the bucket lacks now, in units.
func (s *scale) debt(word, now uint64) uint64 {
	full := s.full(word)
	if full <= now {
		return 0
	}
	return full - now
}

// full is the moment of a word in this scale.
func (s *scale) full(word uint64) uint64 {
	full := word >> 1
	if word&parityBit == s.parity || full <= s.changed {
		return full
	}
	hi, lo := bits.Mul64(full-s.changed, s.cost)
	const most = uint64(1) << 61
	if hi >= s.former {
		return s.changed + most
	}
	converted, _ := bits.Div64(hi, lo, s.former)
	return s.changed + min(converted, most)
}

// word is the word for a debt at a moment.
func (s *scale) word(debt, now uint64) uint64 { return (now+debt)<<1 | s.parity }

// Verdict is what a store decided.
type Verdict struct {
	Allowed bool
	// Wait is, for a denial, how long until the same question would be
	// answered with yes if nobody else asked; for an allowed request with
	// delay, how long it has to wait. In ns.
	Wait int64
	// Left is the number of tokens that remain.
	Left int64
	// Reset is how long until the bucket is full again, in ns.
	Reset int64

	source   source
	overflow bool // the bucket is one that keys share
}

// source is where a decision was made: a label of metrics.
type source uint8

const (
	fromLocal source = iota
	fromLease
	fromStrict
	fromFallback
	sourceCount
)

var sourceNames = [sourceCount]string{"local", "redis", "redis-strict", "fallback"}

// judge decides about a charge, and about a wait of at most slack, in units. A
// denial returns the word of before.
func (s *scale) judge(word, now, charge, slack uint64) (next uint64, v Verdict) {
	debt := s.debt(word, now)
	after := debt + charge
	if after > s.window+slack {
		v = s.verdict(debt)
		v.Wait = nanos(after - s.window)
		return word, v
	}
	v = s.verdict(after)
	v.Allowed = true
	if after > s.window {
		v.Wait = nanos(after - s.window)
	}
	return s.word(after, now), v
}

// verdict describes a bucket with a debt.
func (s *scale) verdict(debt uint64) (v Verdict) {
	if debt < s.window {
		v.Left = int64((s.window - debt) / s.cost)
	}
	v.Reset = nanos(debt)
	return v
}
