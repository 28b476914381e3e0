package ratelimit

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

const (
	groupSize     = 8
	stripeCount   = 64
	overflowCount = 256
)

// table holds buckets by the 64-bit hash of their key, in a fixed number of
// slots. A key may be in the eight slots of either of two groups.
//
// Keys are told apart by that hash alone. It is keyed with a random seed that
// nobody outside the process can learn, so that collisions cannot be aimed;
// two keys that collide by chance (one pair in 2⁶⁴; with ten million keys,
// three tables in a million have such a pair) share a bucket.
//
// Who finds its key takes no lock: it reads the word, then the key again, and
// swaps the word if it has not changed. The words of a slot only grow (but for
// refunds), so a slot that was given to another key in between has another
// word. Only a key that is not in the table takes a lock, its stripe's, so that
// it gets one slot and not two. The slot that it gets is, in this order,
//
//   - one whose bucket is full, which is what a new key has: nothing is lost;
//   - the one with the smallest debt of those that could give a token now:
//     its key gets that debt for free when it comes back, and by then must
//     have seen the whole neighbourhood filled with keys of greater debt;
//   - none: sixteen keys that are being limited are never forgotten for a new
//     one. It shares one of 256 overflow buckets with others in its place, so
//     that an attack with many keys gets no more than 256 keys' worth.
//
// A sticky table, of which nothing may be forgotten, leaves out the second.
type table struct {
	groups   []group
	scale    atomic.Pointer[scale]
	sticky   bool
	overflow [overflowCount]atomic.Uint64
	stripes  [stripeCount]stripe
}

// group is two cache lines, one with keys and one with words.
type group struct {
	keys  [groupSize]atomic.Uint64 // 0: never used
	words [groupSize]atomic.Uint64
}

type stripe struct {
	sync.Mutex
	_ [56]byte
}

// newTable makes a table for so many keys: a third more slots than keys, 21
// bytes a key. The memory is used only as far as keys fill it.
func newTable(maxKeys int, s *scale) *table {
	t := &table{groups: make([]group, groupCount(maxKeys))}
	t.scale.Store(s)
	return t
}

func groupCount(maxKeys int) int { return (maxKeys + maxKeys/3 + groupSize - 1) / groupSize }

// first and second are the groups of a key.
func (t *table) first(hash uint64) int {
	i, _ := bits.Mul64(hash, uint64(len(t.groups)))
	return int(i)
}

func (t *table) second(hash uint64) int {
	i, _ := bits.Mul64(bits.RotateLeft64(hash, 32)*0x9E3779B97F4A7C15, uint64(len(t.groups)))
	return int(i)
}

// find is the slot of a key, nil when it has none.
func (t *table) find(hash uint64) (g *group, slot int) {
	g = &t.groups[t.first(hash)]
	for i := range g.keys {
		if g.keys[i].Load() == hash {
			return g, i
		}
	}
	g = &t.groups[t.second(hash)]
	for i := range g.keys {
		if g.keys[i].Load() == hash {
			return g, i
		}
	}
	return nil, 0
}

// read is the key's slot and its word; ok is false when the slot belongs, or
// is being given, to another.
func (t *table) read(hash uint64) (g *group, slot int, word uint64, ok bool) {
	g, slot = t.find(hash)
	if g == nil {
		return nil, 0, 0, false
	}
	word = g.words[slot].Load()
	return g, slot, word, word != reserved && g.keys[slot].Load() == hash
}

// take decides about a charge, in units, of the key with this hash, which is
// not 0. It allocates nothing, and takes no lock for a key that is known.
func (t *table) take(hash, now, charge, slack uint64) Verdict {
	for {
		s := t.scale.Load()
		g, slot, word, ok := t.read(hash)
		if !ok {
			if v, done := t.insert(hash, now, charge, slack); done {
				return v
			}
			continue
		}
		if word&parityBit != s.parity && t.scale.Load() != s {
			continue
		}
		next, v := s.judge(word, now, charge, slack)
		if !v.Allowed || g.words[slot].CompareAndSwap(word, next) {
			if v.Allowed && t.sticky && g.keys[slot].Load() != hash {
				// Words of a sticky table fall too: another's place was taken.
				t.lower(&g.words[slot], now, charge)
				continue
			}
			return v
		}
	}
}

// peek is take without effect.
func (t *table) peek(hash, now, charge, slack uint64) Verdict {
	_, _, word, ok := t.read(hash)
	if !ok {
		word = 0
	}
	_, v := t.scale.Load().judge(word, now, charge, slack)
	return v
}

// insert takes for a key that is not in the table; done is false when it is
// there now.
func (t *table) insert(hash, now, charge, slack uint64) (v Verdict, done bool) {
	first := t.first(hash)
	lock := &t.stripes[first%stripeCount]
	lock.Lock()
	defer lock.Unlock()
	if g, _ := t.find(hash); g != nil {
		return v, false // under the lock nobody else can be about to give it a slot
	}
	s := t.scale.Load()
	next, v := s.judge(0, now, charge, slack)
	if !v.Allowed {
		return v, true
	}
	if t.claim(hash, now, s, next) {
		return v, true
	}
	return t.share(hash, now, charge, slack), true
}

// claim gives the key a slot with a word, if there is one to be had. The
// stripe of the key's first group is locked.
func (t *table) claim(hash, now uint64, s *scale, word uint64) bool {
	neighbours := [2]*group{&t.groups[t.first(hash)], &t.groups[t.second(hash)]}
	for range 4 { // slots change hands meanwhile, those of the second group under another lock
		var best *group
		var at int
		var old uint64
		least := ^uint64(0)
		for _, g := range neighbours {
			for i := range g.words {
				w := g.words[i].Load()
				if w == reserved {
					continue
				}
				debt := s.debt(w, now)
				if debt >= least || debt > 0 && (t.sticky || debt+s.cost > s.window) {
					continue
				}
				best, at, old, least = g, i, w, debt
				if debt == 0 {
					break
				}
			}
			if least == 0 {
				break
			}
		}
		if best == nil {
			return false
		}
		if best.words[at].CompareAndSwap(old, reserved) {
			best.keys[at].Store(hash)
			best.words[at].Store(word)
			return true
		}
	}
	return false
}

// share takes from an overflow bucket.
func (t *table) share(hash, now, charge, slack uint64) Verdict {
	w := &t.overflow[hash%overflowCount]
	for {
		word := w.Load()
		next, v := t.scale.Load().judge(word, now, charge, slack)
		v.overflow = true
		if !v.Allowed || w.CompareAndSwap(word, next) {
			return v
		}
	}
}

// refund gives back a charge that was taken, unless the key was forgotten
// meanwhile.
func (t *table) refund(hash, now, charge uint64, overflow bool) {
	if overflow {
		t.lower(&t.overflow[hash%overflowCount], now, charge)
		return
	}
	for {
		g, slot, word, ok := t.read(hash)
		if !ok || g.words[slot].CompareAndSwap(word, t.lowered(word, now, charge)) {
			return
		}
	}
}

func (t *table) lower(w *atomic.Uint64, now, charge uint64) {
	for {
		word := w.Load()
		if w.CompareAndSwap(word, t.lowered(word, now, charge)) {
			return
		}
	}
}

func (t *table) lowered(word, now, charge uint64) uint64 {
	s := t.scale.Load()
	debt := s.debt(word, now)
	return s.word(debt-min(debt, charge), now)
}

// debt is what the key's bucket lacks.
func (t *table) debt(hash, now uint64) uint64 {
	_, _, word, ok := t.read(hash)
	if !ok {
		return 0
	}
	return t.scale.Load().debt(word, now)
}

// put gives the key's bucket a debt, or forgets about it when there is no room.
func (t *table) put(hash, now, debt uint64) {
	s := t.scale.Load()
	next := s.word(debt, now)
	for {
		g, slot, word, ok := t.read(hash)
		if !ok {
			break
		}
		if g.words[slot].CompareAndSwap(word, next) {
			return
		}
	}
	if debt == 0 {
		return
	}
	lock := &t.stripes[t.first(hash)%stripeCount]
	lock.Lock()
	defer lock.Unlock()
	if g, _ := t.find(hash); g == nil {
		t.claim(hash, now, s, next)
	}
}

// rescale changes the rate and the burst. Buckets keep the number of tokens
// that they lack. One caller at a time; decisions go on meanwhile.
func (t *table) rescale(cost, window, now uint64) {
	s := t.scale.Load()
	if s.cost == cost {
		same := *s
		same.window = window
		t.scale.Store(&same)
		return
	}
	next := s.next(cost, window, now)
	t.scale.Store(next)
	// A word of the scale before the former one would be misread: none may be
	// left when the next change comes.
	rewrite := func(w *atomic.Uint64) {
		for {
			word := w.Load()
			if word == 0 || word == reserved || word&parityBit == next.parity ||
				w.CompareAndSwap(word, next.full(word)<<1|next.parity) {
				return
			}
		}
	}
	for i := range t.groups {
		for j := range t.groups[i].words {
			rewrite(&t.groups[i].words[j])
		}
	}
	for i := range t.overflow {
		rewrite(&t.overflow[i])
	}
}

// inherit takes over the buckets of another table, which has the same scale.
func (t *table) inherit(from *table, now uint64) {
	s := from.scale.Load()
	for i := range from.groups {
		g := &from.groups[i]
		for j := range g.keys {
			word := g.words[j].Load()
			if hash := g.keys[j].Load(); hash != 0 && word != reserved && s.debt(word, now) > 0 {
				t.put(hash, now, s.debt(word, now))
			}
		}
	}
	for i := range from.overflow {
		t.overflow[i].Store(from.overflow[i].Load())
	}
}

// keys is how many keys have a bucket that is not full: counted, in a table of
// more than two million slots estimated from so many.
func (t *table) keys(now uint64) int {
	s := t.scale.Load()
	const most = 1 << 18
	step := (len(t.groups) + most - 1) / most
	used, seen := 0, 0
	for i := 0; i < len(t.groups); i += step {
		for j := range t.groups[i].words {
			if w := t.groups[i].words[j].Load(); w != 0 && w != reserved && s.debt(w, now) > 0 {
				used++
			}
		}
		seen++
	}
	return int(float64(used) * float64(len(t.groups)) / float64(max(seen, 1)))
}
