package cache

// windowShare is the window's share of the memory: one in so many bytes.
const windowShare = 10

// stepSlots is how many slots of a segment are looked at before others may use
// the shard again.
const stepSlots = 16

// room makes room for n bytes of segments; false when readers hold too much. The
// shard is not locked all the time: whoever comes in between finds all entries that
// stay. Waiting for who makes room already could take long, for he may have to wait
// himself: there is a segment more for who comes meanwhile, and who needs yet another
// one throws out the oldest whole.
func (d *shard) room(s *store, n, now int64) bool {
	if d.moving {
		return d.empty(s, n, d.budget+d.segment, now, true)
	}
	d.moving = true
	ok := d.empty(s, n, d.budget, now, false)
	d.moving = false
	return ok
}

// empty empties segments until n bytes more are at most so many.
func (d *shard) empty(s *store, n, most, now int64, all bool) bool {
	d.reap()
	// Segments that go round again free nothing: after a few of them the next
	// is thrown out whole. Each turn ends with one segment less somewhere.
	for turn := 0; d.used+n > most; turn++ {
		main := d.budget - d.budget/windowShare
		switch {
		case len(d.window.list) > 0 && d.main.bytes+d.window.list[0].size <= main:
			d.graduate()
			turn--
		case len(d.window.list) > 0 && (d.main.bytes <= main || len(d.main.list) == 0):
			d.evict(s, d.window.list[0], now, all || turn >= 16)
		case len(d.main.list) > 0:
			d.evict(s, d.main.list[0], now, all || turn >= 4)
		default:
			return false
		}
		d.reap()
	}
	return true
}

// graduate makes the window's oldest segment the main queue's newest: as long
// as there is room in that, nothing has to be chosen.
func (d *shard) graduate() {
	g := d.window.list[0]
	d.leave(g)
	g.main = true
	d.main.list = append(d.main.list, g)
	d.main.bytes += g.size
}

// evict empties a segment: entries that deserve it go to the main queue. Every few
// slots it lets others use the shard.
func (d *shard) evict(s *store, g *segment, now int64, all bool) {
	wasMain := g.main
	d.leave(g)
	g.retired = true
	var rival rival
	var m move
	seen := 0
	for at := uint64(g.at); at < g.end(); at += slotSize {
		if seen++; seen%stepSlots == 0 {
			d.carry(s, &m)
		}
		if d.memory[at+slotState] != slotLive {
			continue
		}
		cause := EvictedForSpace
		stays := false
		worst := s.purged(d, at)
		switch {
		case now >= int64(d.u64(at+slotDead)):
			cause = EvictedExpired
		case worst == remove:
			cause = EvictedPurged
		case all:
		case wasMain:
			if used := &d.memory[at+slotUsed]; *used > 0 {
				*used--
				stays = true
			}
		default:
			stays = d.sketch.estimate(d.u64(at+slotHash)) > rival.next(d)
		}
		if stays && g.single { // takes its segment along
			g.retired = false
			g.main = true
			d.main.list = append(d.main.list, g)
			d.main.bytes += g.size
			return
		}
		if !stays || !d.save(at, &m) {
			d.remove(at, d.before(at), cause)
		}
	}
	d.carry(s, &m)
	if g.pinned() {
		d.retired = append(d.retired, g)
		return
	}
	d.free(g)
}

// purged is what purges mean for a slot's entry; a soft one is done.
func (s *store) purged(d *shard, at uint64) fate {
	if s.outdated == nil {
		return keep
	}
	worst := s.outdated(d.entry(at))
	if worst == soften {
		d.memory[at+slotSoft] = 1
	}
	return worst
}

// rival walks over the entries that leave the main queue next, to compare those
// that want in with them.
type rival struct {
	segment *segment
	at      uint64
}

// next is how often the next rival was asked for; 0 when there is none. Who was
// used lately goes round again and is no rival, unless all are like that.
func (r *rival) next(d *shard) uint64 {
	if len(d.main.list) == 0 || d.main.list[0].live == 0 {
		return 0
	}
	g := d.main.list[0]
	if g != r.segment {
		r.segment, r.at = g, uint64(g.at)
	}
	last := uint64(0)
	for range 64 {
		if r.at >= g.end() {
			r.at = uint64(g.at)
		}
		at := r.at
		r.at += slotSize
		if d.memory[at+slotState] != slotLive {
			continue
		}
		if last = at; d.memory[at+slotUsed] == 0 {
			break
		}
	}
	if last == 0 {
		return 0
	}
	return d.sketch.estimate(d.u64(last + slotHash))
}
