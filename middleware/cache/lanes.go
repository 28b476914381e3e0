package cache

import (
	"sync"

	"gateway/internal/processor"
)

// lanes are the lock of a shard. Who looks for an entry locks the lane of the
// processor that he runs on, and changes nothing but that lane: what he has to
// say about the entry is noted there. Who changes the shard locks all lanes, and
// reads all notes first. So hits on several processors do not meet, and the
// price is paid where something is stored or removed.
type lanes []lane

// lane is one processor's, of whole cache lines.
type lane struct {
	mu    sync.Mutex
	count int64
	notes [maxNotes]note
}

// maxNotes is how many notes a lane takes before they are read.
const maxNotes = 31

// note says that a key was asked for, and what slot was found, 0 for none.
type note struct{ hash, at uint64 }

func newLanes() lanes { return make(lanes, processor.Count) }

// enter locks the lane of the caller's processor.
func (l lanes) enter() *lane {
	mine := &l[processor.Current()]
	mine.mu.Lock()
	return mine
}

// leave unlocks the lane.
func (l *lane) leave() { l.mu.Unlock() }

// note makes a note in the lane, which the caller has entered. When that is full,
// its notes are read.
func (d *shard) note(l *lane, hash, at uint64) {
	l.notes[l.count] = note{hash, at}
	if l.count++; l.count == maxNotes {
		d.popularity.Lock() // of several who read theirs
		d.read(l)
		d.popularity.Unlock()
	}
}

// read does what a lane's notes say. Nothing has changed since they were written:
// who changes the shard reads them first.
func (d *shard) read(l *lane) {
	for _, n := range l.notes[:l.count] {
		d.noted(n)
	}
	l.count = 0
}

// lock makes the caller alone in the shard.
func (d *shard) lock() {
	for i := range d.lanes {
		d.lanes[i].mu.Lock()
	}
	for i := range d.lanes {
		d.read(&d.lanes[i])
	}
}

func (d *shard) unlock() {
	for i := range d.lanes {
		d.lanes[i].mu.Unlock()
	}
}

// noted does what a note says.
func (d *shard) noted(n note) {
	d.sketch.note(n.hash, d.stats.Entries)
	if n.at == 0 {
		return
	}
	if used := &d.memory[n.at+slotUsed]; *used < 3 {
		*used++
	}
}
