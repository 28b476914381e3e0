package accesslog

import (
	"bytes"
	"time"
)

const (
	gather   = 20 * time.Millisecond // that lines may wait for others to be written with
	firstTry = 50 * time.Millisecond // until a failed write is tried again
	lastTry  = 2 * time.Second       // the same after several failures
	patience = 100                   // batches that hardly use a large buffer before it is given up
)

// writer is what belongs to the writing goroutine alone.
type writer struct {
	out     *output
	spare   []byte // buffer of the last batch
	slack   int    // batches in a row that hardly used their large buffers
	warn    func(error)
	failing bool // warn has been told
}

// run writes batches until the logger is closed and everything is written.
func (l *Logger) run() {
	defer close(l.done)
	pause := time.NewTimer(time.Hour)
	defer pause.Stop()
	for {
		<-l.wake
		pause.Reset(gather)
		select {
		case <-pause.C:
		case <-l.hurry:
		}
		batch, closed := l.take()
		l.swap()
		written := l.write(batch)
		l.dropped.Add(uint64(bytes.Count(batch[written:], []byte{'\n'})))
		l.give(batch)
		if closed {
			l.writer.out.file.Close()
			return
		}
	}
}

// take takes the lines that wait. After a true closed there will be no more.
func (l *Logger) take() (batch []byte, closed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	batch, l.pending = l.pending, l.writer.spare[:0]
	l.writing, l.lines = l.lines, 0
	l.taken = len(batch)
	return batch, l.closed
}

// give gives the room of a batch back to the queue. The buffers that a burst
// has left large are dropped when they have been of little use for a while.
func (l *Logger) give(batch []byte) {
	w := &l.writer
	w.spare = batch
	if large := cap(batch) >= 4*fullBatch; large && len(batch) > cap(batch)/4 {
		w.slack = 0
	} else if large {
		if w.slack++; w.slack > patience {
			w.spare = nil
		}
	}
	l.mu.Lock()
	l.writing, l.taken = 0, 0
	l.mu.Unlock()
}

// write writes a batch, however long it takes, and returns the number of bytes
// written. It ends early only when the output fails while the logger is closed.
func (l *Logger) write(batch []byte) (at int) {
	w := &l.writer
	for wait := firstTry; at < len(batch); {
		n, err := w.out.file.Write(batch[at:])
		at += n
		if err == nil {
			w.tell(nil)
			continue
		}
		l.failures.Add(1)
		w.tell(err)
		if l.givesUp() {
			return at
		}
		if n > 0 {
			wait = firstTry
		}
		retry := time.NewTimer(wait)
		select {
		case <-retry.C:
		case <-l.hurry: // another file, or closed, or a full batch more: one try too many does no harm
		}
		retry.Stop()
		wait = min(2*wait, lastTry)
		if l.swap() || w.use(w.out.renewed()) {
			// The old file may end in a piece of a line; the new one gets all of it.
			at = bytes.LastIndexByte(batch[:at], '\n') + 1
		}
	}
	return at
}

// givesUp reports whether a failed write is final: nobody is going to repair
// the output of a gateway that ends.
func (l *Logger) givesUp() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// swap changes over to the output that Reopen has opened, if any.
func (l *Logger) swap() bool {
	l.mu.Lock()
	fresh := l.next
	l.next = nil
	l.mu.Unlock()
	return l.writer.use(fresh)
}

// use replaces the output, unless fresh is nil.
func (w *writer) use(fresh *output) bool {
	if fresh == nil {
		return false
	}
	w.out.file.Close()
	w.out = fresh
	return true
}

// tell warns of the first failure and of the first success after it.
func (w *writer) tell(err error) {
	if failing := err != nil; failing != w.failing {
		w.failing = failing
		w.warn(err)
	}
}
