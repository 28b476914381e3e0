package cache

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gateway/internal/mallocs"
)

// sound reports what is wrong with a shard that nobody uses.
func sound(t *testing.T, d *shard) {
	t.Helper()
	d.lock()
	defer d.unlock()
	d.reap()
	chained := make(map[uint64]bool)
	for i := range d.buckets {
		for at := d.buckets[i]; at != 0; at = d.u64(at + slotNext) {
			if chained[at] || d.memory[at+slotState] != slotLive {
				t.Fatalf("slot %d is in the index twice, or in state %d", at, d.memory[at+slotState])
			}
			chained[at] = true
		}
	}
	var used, entries int64
	for _, g := range d.segments {
		if g == nil {
			continue
		}
		spare := false
		for _, other := range d.spare {
			spare = spare || other == g
		}
		if spare {
			continue
		}
		used += g.size
		live := 0
		for at := uint64(g.at); at < g.end(); at += slotSize {
			if d.memory[at+slotState] == slotLive {
				live++
				if !chained[at] {
					t.Errorf("slot %d is not in the index", at)
				}
			}
		}
		entries += int64(live)
		if live != g.live || g.pinned() || g.retired {
			t.Errorf("segment %d: %d slots of %d, pinned %v, retired %v", g.index, live, g.live, g.pinned(), g.retired)
		}
	}
	if entries != d.stats.Entries || int(entries) != len(chained) || used != d.used || d.moving || len(d.retired) > 0 {
		t.Errorf("%d entries, %d in the index, %d counted; %d bytes, %d counted; moving %v, %d retired",
			entries, len(chained), d.stats.Entries, used, d.used, d.moving, len(d.retired))
	}
	if d.window.bytes+d.main.bytes != used {
		t.Errorf("%d bytes in the queues, %d in all", d.window.bytes+d.main.bytes, used)
	}
}

// While entries are moved to make room they are found, whole, and by purges too; the
// memory stays within its bounds.
func TestEntriesAreFoundWhileTheyMove(t *testing.T) {
	const limit = 2 << 20
	s := openStore(t, limit)
	d := &s.shards[0]
	var sequence, purging, forgotten atomic.Uint64
	s.outdated = func(e Entry) fate {
		if e.sequence() < purging.Load() {
			return remove
		}
		return keep
	}
	until := time.Now().Add(2 * time.Second)
	var work sync.WaitGroup
	for id := range uint64(4) {
		work.Go(func() {
			r := rand.New(rand.NewPCG(id, 11))
			popular := rand.NewZipf(r, 1.1, 1, 3000)
			body := make([]byte, 20_000)
			var head []byte
			held := make([]Entry, 0, 50) // so that segments wait for their readers
			for n := 0; time.Now().Before(until) && !t.Failed(); n++ {
				k := popular.Uint64()
				size := int(k * 7919 % 3000)
				if k%200 == 150 { // has a segment of its own
					size = len(body)
				}
				head = block(head, k)
				key := (&Entry{blob: head}).key()
				hash := s.hash(key)
				purged := forgotten.Load()
				e, found := s.lookup(hash, key, epoch, true)
				if !found {
					le.PutUint64(head[atSequence:], sequence.Load())
					for i := range body[:size] {
						body[i] = byte(k)
					}
					s.put(hash, head, [][]byte{body[:size]}, epoch+1, epoch)
					continue
				}
				if e.sequence() < purged {
					t.Errorf("key %d: purge %d left an entry of %d", k, purged, e.sequence())
				}
				b := e.blob[len(head):]
				if len(b) != size {
					t.Errorf("key %d: %d bytes, want %d", k, len(b), size)
				}
				for i, c := range b {
					if c != byte(k) {
						t.Errorf("key %d: byte %d is %d", k, i, c)
						break
					}
				}
				if held = append(held, e); len(held) == cap(held) {
					for i := range held {
						held[i].Release()
					}
					held = held[:0]
				}
				if n%50 == 0 {
					s.removeKey(hash, key, EvictedPurged)
				}
			}
			for i := range held {
				held[i].Release()
			}
		})
	}
	for time.Now().Before(until) && !t.Failed() {
		// As Cache.sweep does it.
		n := sequence.Add(1)
		purging.Store(n)
		s.each(s.outdated)
		s.floor.Store(n)
		purging.Store(0)
		forgotten.Store(n)
		for range 200 {
			d.lock()
			if spare := int64(len(d.spare)) * d.segment; d.used+spare > d.budget+slackSegments*d.segment {
				t.Errorf("%d bytes and %d spare ones of %d", d.used, spare, d.budget)
			}
			d.unlock()
			time.Sleep(20 * time.Microsecond)
		}
	}
	work.Wait()
	sound(t, d)
	if n := s.stats(); n.Evictions[EvictedForSpace] == 0 || n.Bytes > limit {
		t.Errorf("%+v", n)
	}
}

func TestMakingRoomAllocatesNothing(t *testing.T) {
	s := openStore(t, 2<<20)
	r := rand.New(rand.NewPCG(1, 11))
	popular := rand.NewZipf(r, 1.1, 1, 20_000)
	body := [][]byte{make([]byte, 500)}
	head := block(nil, 0)
	play := func() {
		head = block(head, popular.Uint64())
		key := (&Entry{blob: head}).key()
		hash := s.hash(key)
		if e, found := s.lookup(hash, key, epoch, true); found {
			e.Release()
			return
		}
		s.put(hash, head, body, epoch+1, epoch)
	}
	for range 50_000 {
		play()
	}
	before := s.stats().Evictions[EvictedForSpace]
	mallocs.None(t, "put", 10_000, play)
	if s.stats().Evictions[EvictedForSpace] == before {
		t.Error("nothing had to go")
	}
}

// What happens to an entry while it is on its way happens to it.
func TestEntriesThatChangeWhileTheyMove(t *testing.T) {
	f := func(name string, want bool, meanwhile func(s *store, d *shard, at, to uint64)) {
		t.Helper()
		s := openStore(t, 1<<20)
		d := &s.shards[0]
		head := block(nil, 1)
		key := (&Entry{blob: head}).key()
		hash := s.hash(key)
		s.put(hash, head, [][]byte{[]byte("still here")}, epoch+1, epoch)
		d.lock()
		at, _ := d.find(hash, key)
		from := d.segments[d.u32(at+slotSegment)]
		d.leave(from)
		from.retired = true // as evict leaves it
		var m move
		if !d.save(at, &m) {
			t.Fatal("there was no room for it")
		}
		to := m.to[0]
		d.unlock()
		meanwhile(s, d, at, to)
		d.lock()
		d.carry(s, &m)
		if from.live != 0 {
			t.Errorf("%s: the entry is still in its old place", name)
		}
		d.retired = append(d.retired, from)
		d.unlock()
		s.outdated = nil // purges are forgotten when their walk is over
		e, found := s.lookup(hash, key, epoch, false)
		if found != want {
			t.Errorf("%s: found is %v", name, found)
		}
		if found {
			if b := string(e.blob[len(head):]); b != "still here" && b != "new" {
				t.Errorf("%s: %q", name, b)
			}
			e.Release()
		}
		sound(t, d)
	}
	again := func(s *store, body string) {
		head := block(nil, 1)
		s.put(s.hash((&Entry{blob: head}).key()), head, [][]byte{[]byte(body)}, epoch+1, epoch)
	}
	f("nothing", true, func(*store, *shard, uint64, uint64) {})
	f("removed", false, func(s *store, d *shard, at, _ uint64) {
		key := d.entry(at)
		s.removeKey(s.hash(key.key()), key.key(), EvictedPurged)
	})
	f("replaced", true, func(s *store, _ *shard, _, _ uint64) { again(s, "new") })
	f("purged, by a walk that is not there yet", false, func(s *store, _ *shard, _, _ uint64) {
		s.outdated = func(Entry) fate { return remove }
	})
	f("purged, by a walk that is over", false, func(s *store, _ *shard, _, _ uint64) {
		s.each(func(Entry) fate { return remove })
	})
	f("used", true, func(_ *store, d *shard, at, _ uint64) { d.memory[at+slotUsed] = 3 })
	f("its new place is gone", false, func(_ *store, d *shard, _, to uint64) {
		d.lock()
		d.drop(d.segments[d.u32(to+slotSegment)])
		d.unlock()
	})
}

// An entry for which there is no room within the bounds does not move, and goes.
func TestEntriesDoNotMoveBeyondTheBounds(t *testing.T) {
	for _, over := range []int64{0, 1} {
		s := openStore(t, 1<<20)
		d := &s.shards[0]
		head := block(nil, 1)
		hash := s.hash((&Entry{blob: head}).key())
		s.put(hash, head, [][]byte{[]byte("body")}, epoch+1, epoch)
		d.lock()
		at, _ := d.find(hash, (&Entry{blob: head}).key())
		used := d.used
		d.used = d.budget + d.segment + over // as when readers hold what was thrown out
		var m move
		if saved := d.save(at, &m); saved != (over == 0) {
			t.Errorf("%d bytes beyond the bound: saved is %v", over, saved)
		}
		d.used += used - (d.budget + d.segment + over)
		d.carry(s, &m)
		d.unlock()
		sound(t, d)
	}
}
