package cache

// move is entries that go to the main queue, and the slots that wait for them.
type move struct {
	n        int
	from, to [stepSlots]uint64
}

// save finds room for an entry in the main queue, and adds it to the move. There is
// room for a segment more than room gives to others, until the one that is being
// emptied is free; that can take a while if it is being read.
func (d *shard) save(at uint64, m *move) bool {
	n := int64(d.u32(at + slotLen))
	q := &d.main
	if !q.fits(padded(n)) {
		if d.used > d.budget+d.segment {
			return false
		}
		if q.active = d.begin(q, d.segment, true); q.active == nil {
			return false
		}
	}
	to := d.slot(q.active, n)
	d.memory[to+slotState] = slotWriting
	q.active.pins.Add(1)
	m.from[m.n], m.to[m.n] = at, to
	m.n++
	return true
}

// carry copies the bytes of a move while others use the shard. Nobody else frees
// the segment that they come from, and those that they go to are pinned.
func (d *shard) carry(s *store, m *move) {
	d.unlock()
	for i, from := range m.from[:m.n] {
		copy(d.bytes(m.to[i]), d.bytes(from))
	}
	d.lock()
	for i, from := range m.from[:m.n] {
		d.arrive(s, from, m.to[i])
	}
	m.n = 0
}

// arrive puts the copy of an entry into the index in place of the entry.
func (d *shard) arrive(s *store, at, to uint64) {
	g := d.segments[d.u32(to+slotSegment)]
	g.unpin()
	d.memory[to+slotState] = slotEmpty
	if d.memory[at+slotState] != slotLive {
		return // was removed meanwhile
	}
	// A walk that is under way may have left the copy out and not have come to the
	// entry.
	if s.purged(d, at) == remove {
		d.remove(at, d.before(at), EvictedPurged)
		return
	}
	if g.retired {
		d.remove(at, d.before(at), EvictedForSpace)
		return
	}
	for _, field := range [...]uint64{slotNext, slotHash, slotDead} {
		d.set64(to+field, d.u64(at+field))
	}
	copy(d.memory[to+slotState:to+slotSize], d.memory[at+slotState:])
	if before := d.before(at); before != 0 {
		d.set64(before+slotNext, to)
	} else {
		*d.bucket(d.u64(at + slotHash)) = to
	}
	d.memory[at+slotState] = slotEmpty
	d.segments[d.u32(at+slotSegment)].live--
	g.live++
}
