package cache

// windowShare is the window's share of the memory: one in so many bytes.
const windowShare = 10

// room makes room for n bytes of segments; false when readers hold too much.
func (d *shard) room(s *store, n, now int64) bool {
	if len(d.retired) > 0 {
		d.reap()
	}
	// Segments that go round again free nothing: after a few of them the next
	// is thrown out whole. Each turn ends with one segment less somewhere.
	for turn := 0; d.used+n > d.budget; turn++ {
		share := d.budget / windowShare
		switch most := d.budget - share; {
		case len(d.window.list) > 0 && d.main.bytes+d.window.list[0].size <= most:
			d.graduate()
			turn--
		case len(d.window.list) > 0 && (d.main.bytes <= most || len(d.main.list) == 0):
			d.evict(s, d.window.list[0], now, turn >= 16)
		case len(d.main.list) > 0:
			d.evict(s, d.main.list[0], now, turn >= 4)
		default:
			return false
		}
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

// evict empties a segment: entries that deserve it go to the main queue.
func (d *shard) evict(s *store, g *segment, now int64, all bool) {
	wasMain := g.main
	d.leave(g)
	var rival rival
	if !wasMain {
		rival.begin(d)
	}
	moved := false // a single entry took its segment along
	for at := uint64(g.at); at < g.end(); at += slotSize {
		if d.memory[at+slotState] != slotLive {
			continue
		}
		cause := EvictedForSpace
		stays := false
		// What moves could escape a walk that is under way.
		worst := keep
		if s.outdated != nil {
			if worst = s.outdated(d.entry(at)); worst == soften {
				d.memory[at+slotSoft] = 1
			}
		}
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
		if stays && g.single {
			moved = true
			break
		}
		if !stays || !d.save(at, g) {
			d.unlink(at, d.before(at))
			d.memory[at+slotState] = slotEmpty
			d.stats.Entries--
			d.stats.Evictions[cause]++
			g.live--
		}
	}
	if moved {
		g.main = true
		d.main.list = append(d.main.list, g)
		d.main.bytes += g.size
		return
	}
	if g.pinned() {
		g.retired = true
		d.retired = append(d.retired, g)
		return
	}
	d.free(g)
}

// save copies an entry to the main queue's segment. There is room for a segment
// more than the budget allows, until the one that is being emptied is free; that
// can take a while if it is being read.
func (d *shard) save(at uint64, from *segment) bool {
	b := d.bytes(at)
	n := int64(len(b))
	q := &d.main
	if q.active == nil || q.active.room() < padded(n) {
		if d.used > d.budget {
			return false
		}
		if q.active = d.begin(q, d.segment, true); q.active == nil {
			return false
		}
	}
	g := q.active
	to := d.slot(g, n)
	copy(d.bytes(to), b)
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
	from.live--
	g.live++
	return true
}

// rival walks over the entries that leave the main queue next, to compare those
// that want in with them.
type rival struct {
	segment *segment
	at      uint64
}

func (r *rival) begin(d *shard) {
	if len(d.main.list) > 0 {
		r.segment = d.main.list[0]
		r.at = uint64(r.segment.at)
	}
}

// next is how often the next rival was asked for; 0 when there is none. Who was
// used lately goes round again and is no rival, unless all are like that.
func (r *rival) next(d *shard) (asked uint64) {
	g := r.segment
	if g == nil || g.live == 0 {
		return 0
	}
	for range 64 {
		if r.at >= g.end() {
			r.at = uint64(g.at)
		}
		at := r.at
		r.at += slotSize
		if d.memory[at+slotState] == slotLive {
			asked = d.sketch.estimate(d.u64(at + slotHash))
			if d.memory[at+slotUsed] == 0 {
				break
			}
		}
	}
	return asked
}
