package cache

// each calls f with every entry, one segment at a time under its shard's lock,
// and does what f says. Entries that are moved meanwhile may be left out.
func (s *store) each(f func(e Entry) fate) (changed int) {
	for i := range s.shards {
		d := &s.shards[i]
		for index := 0; ; index++ {
			d.lock()
			if index >= len(d.segments) {
				d.unlock()
				break
			}
			if g := d.segments[index]; g != nil && g.live > 0 {
				changed += d.eachIn(g, f)
			}
			d.unlock()
		}
	}
	return changed
}

func (d *shard) eachIn(g *segment, f func(e Entry) fate) (changed int) {
	for at := uint64(g.at); at < g.end() && g.live > 0; at += slotSize {
		if d.memory[at+slotState] != slotLive {
			continue
		}
		e := d.entry(at)
		switch f(e) {
		case remove:
			d.remove(at, d.before(at), EvictedPurged)
			changed++
		case soften:
			d.memory[at+slotSoft] = 1
			changed++
		}
	}
	return changed
}

// walk calls f with every entry that was not purged and the time of its death,
// without a lock: the bytes stay until f returns. It ends at the first error.
func (s *store) walk(f func(e Entry, dead int64) error) error {
	type item struct {
		e    Entry
		dead int64
	}
	var items []item
	for i := range s.shards {
		d := &s.shards[i]
		for index := 0; ; index++ {
			d.lock()
			if index >= len(d.segments) {
				d.unlock()
				break
			}
			g := d.segments[index]
			if g == nil || g.live == 0 {
				d.unlock()
				continue
			}
			items = items[:0]
			for at := uint64(g.at); at < g.end(); at += slotSize {
				if d.memory[at+slotState] != slotLive {
					continue
				}
				e, worst := d.entry(at), keep
				if s.outdated != nil {
					worst = s.outdated(e)
				}
				if worst != remove {
					e.soft = e.soft || worst == soften
					items = append(items, item{e, int64(d.u64(at + slotDead))})
				}
			}
			g.pins.Add(1)
			d.unlock()
			var err error
			for _, i := range items {
				if err = f(i.e, i.dead); err != nil {
					break
				}
			}
			g.unpin()
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// soften makes what has this key count as stale.
func (s *store) soften(hash uint64, key []byte) {
	d := s.shard(hash)
	d.lock()
	defer d.unlock()
	if at, _ := d.find(hash, key); at != 0 {
		d.memory[at+slotSoft] = 1
	}
}
