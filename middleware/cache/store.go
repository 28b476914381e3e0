package cache

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"gateway/internal/processor"
)

// store keeps entries within a number of bytes. It is divided into shards, each
// with a lock, memory and an index of its own; a lock is held for the time of
// a lookup, or of throwing out a few entries, but not while bytes are copied, and
// lookups on different processors do not meet (see lanes).
//
// A shard's memory is cut into segments with entries of any size; an entry that
// would take a large part of a segment gets one of its own. The slots of a
// segment's entries grow from its front, the entries' bytes from its end, so that
// who walks over slots or follows a chain touches few pages. Segments form two
// queues. New entries go to the window, a
// tenth of the memory. From its end they go on to the main queue if they are
// asked for more often than what would have to leave it (W-TinyLFU), so that a
// scan passes through the window alone. At the end of the main queue entries
// that were used since they came by last go round again (CLOCK).
//
// The index is a table of chains through the entries themselves. No memory here
// holds pointers or belongs to the Go heap.
type store struct {
	shards []shard
	seed   maphash.Seed
	shift  int
	// outdated tells what purges mean for an entry; nil without purges. Called
	// with the shard's lock.
	outdated func(e Entry) fate
	// floor is the sequence below which nothing may be stored any more: what
	// was purged since is forgotten.
	floor   atomic.Uint64
	largest int64 // bytes that an entry may have
}

// fate is what is to become of an entry.
type fate uint8

const (
	keep   fate = iota
	soften      // it counts as stale
	remove
)

// A slot is what is known of an entry in a segment.
const (
	slotNext    = 0  // u64 position of the next slot in the chain, 0 at the end
	slotHash    = 8  // u64
	slotBytes   = 16 // u32 how far behind the slot the entry's bytes begin
	slotSegment = 20 // u32
	slotDead    = 24 // i64 ns, when nobody needs it any more
	slotLen     = 32 // u32 bytes of the entry
	slotState   = 36 // u8
	slotUsed    = 37 // u8 uses since it came by last, at most 3
	slotSoft    = 38 // u8
	slotSize    = 40
)

const (
	slotEmpty   uint8 = iota // was removed
	slotLive                 // is in the index
	slotWriting              // is being filled
)

// segment is a piece of a shard's memory.
type segment struct {
	at, size int64 // in the region
	slots    int64 // bytes of slots, at the front
	bytes    int64 // bytes of entries, at the end
	live     int   // slots in the index
	index    uint32
	single   bool              // made for one entry
	main     bool              // in the main queue
	retired  bool              // not in a queue: is being emptied, or waits for its readers
	fresh    bool              // the system has no memory for most of it yet
	pins     processor.Counter // of who needs its memory; raised with the shard locked, or a lane of it
}

// room is for how many bytes of entries there is room, a slot for them counted.
func (g *segment) room() int64 { return g.size - g.slots - g.bytes - slotSize }

// add makes a slot for n bytes, for which there is room.
func (g *segment) add(n int64) (at uint64) {
	at = uint64(g.at + g.slots)
	g.slots += slotSize
	g.bytes += n
	return at
}

// pinned reports whether somebody needs the segment's memory; the shard is
// locked.
func (g *segment) pinned() bool { return g.pins.Value() != 0 }

// unpin takes a pin away; no lock is needed.
func (g *segment) unpin() { g.pins.Add(^uint64(0)) }

// end is the position behind the last slot.
func (g *segment) end() uint64 { return uint64(g.at + g.slots) }

type shard struct {
	lanes   lanes
	region  *region
	memory  []byte
	buckets []uint64
	// popularity is held, with a lane of the shard's, while the sketch and the
	// uses of entries are changed; who has locked the shard needs no more.
	popularity sync.Mutex
	sketch     sketch
	segments   []*segment // by index, nil for unused ones
	unused     []uint32
	window     queue
	main       queue
	spare      []*segment // empty ones, ready for use
	retired    []*segment // pinned ones
	budget     int64      // bytes for segments
	used       int64      // bytes of segments, retired ones too
	segment    int64      // usual size of a segment
	moving     bool       // somebody makes room
	stats      Stats
	_          [64]byte
}

// queue is segments in the order in which they were begun.
type queue struct {
	list   []*segment
	bytes  int64
	active *segment // is being filled, nil when there is none
}

// fits reports whether there is room for n bytes of an entry in the segment that is
// being filled.
func (q *queue) fits(n int64) bool { return q.active != nil && q.active.room() >= n }

const (
	maxShards      = 64
	shardBytes     = 16 << 20 // a shard has at least this much, if there is more than one
	usualSegment   = 256 << 10
	leastSegment   = 16 << 10
	bytesPerBucket = 512 // of the index, a chain for each so many bytes
	slackSegments  = 3   // beyond the budget: spare ones, and two that are begun while room is made
)

// newStore makes a store that uses at most limit bytes.
func newStore(limit int64) (*store, error) {
	n := 1
	for n < maxShards && limit/int64(2*n) >= shardBytes {
		n *= 2
	}
	s := &store{shards: make([]shard, n), seed: maphash.MakeSeed(), shift: 64 - bits.Len(uint(n-1))}
	each := limit / int64(n)
	for i := range s.shards {
		if err := s.shards[i].open(each); err != nil {
			_ = s.close()
			return nil, err
		}
	}
	s.largest = s.shards[0].budget / 4
	return s, nil
}

func (d *shard) open(limit int64) error {
	d.lanes = newLanes()
	d.segment = pages(min(max(limit/64, leastSegment), usualSegment))
	buckets := int64(1) << bits.Len64(uint64(limit/bytesPerBucket-1))
	if buckets > limit/bytesPerBucket*3/2 {
		buckets /= 2
	}
	words := buckets
	blocks := words / blockWords
	overhead := pages(8*(buckets+words) + 2*blocks)
	var err error
	if d.region, err = newRegion(2*limit + overhead); err != nil {
		// Without more addresses than memory large entries may find no place.
		if d.region, err = newRegion(limit + overhead); err != nil {
			return err
		}
	}
	d.memory = d.region.memory
	at, _ := d.region.take(overhead)
	table := unsafe.Slice((*uint64)(unsafe.Pointer(&d.memory[at])), buckets+words)
	d.buckets, d.sketch.words = table[:buckets:buckets], table[buckets:]
	d.sketch.halved = unsafe.Slice((*uint16)(unsafe.Pointer(&d.memory[at+8*(buckets+words)])), blocks)
	d.budget = limit - overhead - slackSegments*d.segment
	d.stats.Capacity = limit
	d.stats.Bytes = overhead
	if d.budget < 8*d.segment {
		return fmt.Errorf("reserve memory for the cache: %d bytes are too few", limit)
	}
	// Position 0 is the end of a chain, so that no slot may be there; the
	// table is.
	return nil
}

// close gives the memory back. Nobody may hold an entry.
func (s *store) close() error {
	var first error
	for i := range s.shards {
		d := &s.shards[i]
		d.lock()
		if d.region != nil && d.region.memory != nil {
			if err := d.region.close(); err != nil && first == nil {
				first = err
			}
			d.memory, d.buckets = nil, nil
		}
		d.unlock()
	}
	return first
}

func (s *store) hash(key []byte) uint64 { return maphash.Bytes(s.seed, key) }

func (s *store) shard(hash uint64) *shard {
	if len(s.shards) == 1 {
		return &s.shards[0]
	}
	return &s.shards[hash>>s.shift]
}

func (d *shard) bucket(hash uint64) *uint64 { return &d.buckets[hash&uint64(len(d.buckets)-1)] }

func (d *shard) u64(at uint64) uint64 { return binary.LittleEndian.Uint64(d.memory[at:]) }
func (d *shard) u32(at uint64) uint32 { return binary.LittleEndian.Uint32(d.memory[at:]) }
func (d *shard) set64(at, v uint64)   { binary.LittleEndian.PutUint64(d.memory[at:], v) }
func (d *shard) set32(at uint64, v uint32) {
	binary.LittleEndian.PutUint32(d.memory[at:], v)
}

func (d *shard) entry(at uint64) Entry {
	return Entry{blob: d.bytes(at), soft: d.memory[at+slotSoft] != 0}
}

// bytes are those of a slot's entry.
func (d *shard) bytes(at uint64) []byte {
	from := at + uint64(d.u32(at+slotBytes))
	to := from + uint64(d.u32(at+slotLen))
	return d.memory[from:to:to]
}

// find looks for the slot of a key; 0 when there is none. before is the
// position that refers to it, 0 for the bucket.
func (d *shard) find(hash uint64, key []byte) (at, before uint64) {
	for at = *d.bucket(hash); at != 0; before, at = at, d.u64(at+slotNext) {
		if d.u64(at+slotHash) == hash {
			if e := d.entry(at); bytes.Equal(e.key(), key) {
				return at, before
			}
		}
	}
	return 0, 0
}

// lookup finds an entry and pins it: the caller releases it. asked counts the
// question towards what is kept. It allocates nothing.
func (s *store) lookup(hash uint64, key []byte, now int64, asked bool) (e Entry, found bool) {
	d := s.shard(hash)
	l := d.lanes.enter()
	at, _ := d.find(hash, key)
	if at != 0 {
		e = d.entry(at)
		if worst, _ := s.verdict(d, at, e, now); worst == remove || worst == soften && !e.soft {
			l.leave()
			return s.settle(hash, key, now, asked)
		}
		d.pin(&e, at)
	}
	if asked {
		d.note(l, hash, at)
	}
	l.leave()
	return e, at != 0
}

// settle is lookup where something about the entry has to be changed.
func (s *store) settle(hash uint64, key []byte, now int64, asked bool) (e Entry, found bool) {
	d := s.shard(hash)
	d.lock()
	defer d.unlock()
	at, before := d.find(hash, key)
	if at == 0 {
		if asked {
			d.noted(note{hash, 0})
		}
		return Entry{}, false
	}
	e = d.entry(at)
	worst, cause := s.verdict(d, at, e, now)
	if worst == remove {
		if asked {
			d.noted(note{hash, 0})
		}
		d.remove(at, before, cause)
		return Entry{}, false
	}
	if worst == soften {
		d.memory[at+slotSoft], e.soft = 1, true
	}
	if asked {
		d.noted(note{hash, at})
	}
	d.pin(&e, at)
	return e, true
}

// verdict is what is to become of an entry that was asked for, and why.
func (s *store) verdict(d *shard, at uint64, e Entry, now int64) (worst fate, cause EvictionCause) {
	if now >= int64(d.u64(at+slotDead)) {
		return remove, EvictedExpired
	}
	if s.outdated == nil {
		return keep, 0
	}
	return s.outdated(e), EvictedPurged
}

// pin keeps the entry's memory until it is released.
func (d *shard) pin(e *Entry, at uint64) {
	e.at = d.segments[d.u32(at+slotSegment)]
	e.at.pins.Add(1)
}

// put stores an entry: its bytes, and then the pieces of its body. It replaces
// what has the same key. False when there is no room for it or a purge came in
// between.
func (s *store) put(hash uint64, head []byte, body [][]byte, dead, now int64) bool {
	n := int64(len(head))
	for _, piece := range body {
		n += int64(len(piece))
	}
	if n > s.largest {
		return false
	}
	key := (&Entry{blob: head}).key()
	d := s.shard(hash)
	d.lock()
	old, _ := d.find(hash, key)
	toMain := old != 0 && d.segments[d.u32(old+slotSegment)].main
	at, g := d.reserve(s, n, toMain, now)
	if g == nil {
		d.stats.Evictions[EvictionRefused]++
		d.unlock()
		return false
	}
	d.set64(at+slotHash, hash)
	d.set64(at+slotDead, uint64(dead))
	d.memory[at+slotState] = slotWriting
	d.memory[at+slotUsed] = 0
	d.memory[at+slotSoft] = 0
	to, fresh := d.bytes(at), g.fresh
	g.pins.Add(1)
	d.unlock()

	// Nobody else looks at these bytes, and the pin keeps them from being
	// used for something else.
	if !fresh || !fill(to, head, body) {
		copied := copy(to, head)
		for _, piece := range body {
			copied += copy(to[copied:], piece)
		}
	}

	d.lock()
	defer d.unlock()
	g.unpin()
	e := Entry{blob: head} // the same; what was stored need not be touched
	worst := keep
	if s.outdated != nil {
		worst = s.outdated(e)
	}
	// The floor comes second: it is raised before purges are forgotten.
	if g.retired || worst == remove || e.sequence() < s.floor.Load() {
		d.memory[at+slotState] = slotEmpty
		if !g.retired && g.live == 0 {
			d.drop(g)
		}
		d.stats.Evictions[EvictionRefused]++
		return false
	}
	if old, before := d.find(hash, key); old != 0 {
		d.memory[at+slotUsed] = d.memory[old+slotUsed]
		d.remove(old, before, EvictedReplaced)
	}
	bucket := d.bucket(hash)
	d.set64(at+slotNext, *bucket)
	*bucket = at
	if worst == soften {
		d.memory[at+slotSoft] = 1
	}
	d.memory[at+slotState] = slotLive
	g.live++
	d.stats.Entries++
	return true
}

// remove takes a slot out of the index.
func (d *shard) remove(at, before uint64, cause EvictionCause) {
	d.unlink(at, before)
	d.memory[at+slotState] = slotEmpty
	d.stats.Entries--
	d.stats.Evictions[cause]++
	g := d.segments[d.u32(at+slotSegment)]
	if g.live--; g.live == 0 && !g.retired && g != d.window.active && g != d.main.active {
		d.drop(g)
	}
}

func (d *shard) unlink(at, before uint64) {
	next := d.u64(at + slotNext)
	if before != 0 {
		d.set64(before+slotNext, next)
	} else {
		*d.bucket(d.u64(at + slotHash)) = next
	}
}

// before is the slot that refers to one that is in the index, 0 for the bucket.
func (d *shard) before(at uint64) uint64 {
	before := uint64(0)
	for i := *d.bucket(d.u64(at + slotHash)); i != at; i = d.u64(i + slotNext) {
		before = i
	}
	return before
}

// reserve finds room for an entry of n bytes, and makes its slot; nil when there
// is none. When room has to be made the shard is not locked all the time.
func (d *shard) reserve(s *store, n int64, toMain bool, now int64) (at uint64, g *segment) {
	q := &d.window
	if toMain {
		q = &d.main
	}
	size := padded(n)
	single := slotSize+size > d.segment/8
	if !single && q.fits(size) {
		return d.slot(q.active, n), q.active
	}
	if single {
		whole := pages(slotSize + size)
		if !d.room(s, whole, now) {
			return 0, nil
		}
		if g = d.begin(q, whole, toMain); g == nil {
			return 0, nil
		}
		g.single = true
		return d.slot(g, n), g
	}
	if !d.room(s, d.segment, now) {
		return 0, nil
	}
	// Others may have begun a segment meanwhile, and making room may begin one in
	// the main queue.
	if !q.fits(size) {
		if q.active = d.begin(q, d.segment, toMain); q.active == nil {
			return 0, nil
		}
	}
	return d.slot(q.active, n), q.active
}

// padded is how many bytes n bytes of an entry take.
func padded(n int64) int64 { return (n + 7) &^ 7 }

// slot makes the slot of n bytes in a segment that has room for them.
func (d *shard) slot(g *segment, n int64) (at uint64) {
	at = g.add(padded(n))
	d.set32(at+slotBytes, uint32(uint64(g.at+g.size-g.bytes)-at))
	d.set32(at+slotSegment, g.index)
	d.set32(at+slotLen, uint32(n))
	return at
}

// begin makes a segment at the end of a queue, nil when the region has no piece
// that is large enough.
func (d *shard) begin(q *queue, size int64, main bool) *segment {
	var g *segment
	if n := len(d.spare); size == d.segment && n > 0 {
		g, d.spare = d.spare[n-1], d.spare[:n-1]
		*g = segment{at: g.at, size: size, index: g.index, pins: g.pins}
	} else {
		at, ok := d.region.take(size)
		if !ok {
			return nil
		}
		g = &segment{at: at, size: size, fresh: true, pins: processor.NewCounter()}
		if n := len(d.unused); n > 0 {
			g.index, d.unused = d.unused[n-1], d.unused[:n-1]
			d.segments[g.index] = g
		} else {
			g.index = uint32(len(d.segments))
			d.segments = append(d.segments, g)
		}
	}
	g.main = main
	d.used += size
	d.stats.Bytes += size
	q.list = append(q.list, g)
	q.bytes += size
	return g
}

// leave takes a segment out of its queue.
func (d *shard) leave(g *segment) {
	q := &d.window
	if g.main {
		q = &d.main
	}
	i := slices.Index(q.list, g)
	q.list = slices.Delete(q.list, i, i+1)
	q.bytes -= g.size
	if q.active == g {
		q.active = nil
	}
}

// drop takes a segment without live slots out of its queue and frees it, as
// soon as nobody reads or writes it.
func (d *shard) drop(g *segment) {
	d.leave(g)
	if g.pinned() {
		g.retired = true
		d.retired = append(d.retired, g)
		return
	}
	d.free(g)
}

func (d *shard) free(g *segment) {
	d.used -= g.size
	d.stats.Bytes -= g.size
	if g.size == d.segment && len(d.spare) < slackSegments-1 {
		d.spare = append(d.spare, g)
		return
	}
	d.region.give(g.at, g.size)
	d.segments[g.index] = nil
	d.unused = append(d.unused, g.index)
}

// reap frees the segments whose readers have gone.
func (d *shard) reap() {
	d.retired = slices.DeleteFunc(d.retired, func(g *segment) bool {
		if g.pinned() {
			return false
		}
		d.free(g)
		return true
	})
}

// removeKey removes what has this key, if there is anything.
func (s *store) removeKey(hash uint64, key []byte, cause EvictionCause) bool {
	d := s.shard(hash)
	d.lock()
	defer d.unlock()
	at, before := d.find(hash, key)
	if at == 0 {
		return false
	}
	d.remove(at, before, cause)
	return true
}
