// Package accesslog writes a line about each request, away from the hot path.
//
// Log encodes a record and leaves the line in memory; one goroutine writes what
// has gathered in few system calls. The memory is bounded: when the output is
// slow or broken, lines are dropped and counted, and no request ever waits.
package accesslog

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// meanLine is how long lines may be on average, in bytes, to fill the queue by
// number rather than by size.
const meanLine = 1024

// fullBatch is the size in bytes from which a batch is written at once.
const fullBatch = 64 << 10

// Logger writes records. A nil Logger writes nothing. It is safe for use by
// several goroutines.
type Logger struct {
	text     bool
	query    bool
	sample   uint64 // records with a hash below are written; 1<<32 for all
	maxLines int
	maxBytes int

	mu      sync.Mutex // held for copies in memory only
	pending []byte     // whole lines that wait
	lines   int        // in pending
	writing int        // lines that the writer has taken
	taken   int        // bytes that the writer has taken
	next    *output    // to be used from now on, nil for no change
	closed  bool

	wake  chan struct{} // lines wait or something has changed
	hurry chan struct{} // do not wait for more lines, nor for a retry
	done  chan struct{} // closed when the writer has ended

	dropped  atomic.Uint64
	failures atomic.Uint64

	name   string // of the output
	writer writer
}

// New opens the output and starts the writer. It returns nil, a Logger that
// writes nothing, when the output is "off". When writing begins to fail, the
// writer calls warn with the error, and with nil once it works again; warn may
// be nil.
func New(o Options, warn func(error)) (*Logger, error) {
	if o.Output == "off" || o.Output == "" {
		return nil, nil
	}
	out, err := open(o.Output)
	if err != nil {
		return nil, err
	}
	if warn == nil {
		warn = func(error) {}
	}
	queue := max(o.Queue, 1)
	l := &Logger{
		text:     o.Format == "text",
		query:    o.Query,
		sample:   uint64(o.Sample.Fraction() * (1 << 32)),
		maxLines: queue,
		maxBytes: queue * meanLine,
		wake:     make(chan struct{}, 1),
		hurry:    make(chan struct{}, 1),
		done:     make(chan struct{}),
		name:     o.Output,
		writer:   writer{out: out, warn: warn},
	}
	go l.run()
	return l, nil
}

// lineBuffers hold lines that are being encoded.
var lineBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 1024); return &b }}

// Log writes the record sooner or later, or drops it. Nothing of it is kept. It
// allocates nothing, does not wait for the output, and after Close drops
// everything.
func (l *Logger) Log(r *Record) {
	if l == nil || !l.wants(r) {
		return
	}
	buffer := lineBuffers.Get().(*[]byte)
	line := (*buffer)[:0]
	if l.text {
		line = l.appendTextLine(line, r)
	} else {
		line = l.appendJSONLine(line, r)
	}
	l.enqueue(line)
	*buffer = line
	lineBuffers.Put(buffer)
}

// wants decides whether the record belongs to the sample.
func (l *Logger) wants(r *Record) bool {
	if l.sample == 1<<32 || r.Status >= 500 || r.Failed {
		return true
	}
	return hash(r) < l.sample
}

// hash is a number below 1<<32 that depends on the request id alone: FNV-1a of
// 64 bits, of which the upper half and the lower are combined by exclusive or.
// A record without an id is taken by its time.
func hash(r *Record) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range r.ID {
		h = (h ^ uint64(c)) * 1099511628211
	}
	if len(r.ID) == 0 {
		h = (h ^ uint64(r.Start)) * 0x9E3779B97F4A7C15
	}
	return (h>>32 ^ h) & (1<<32 - 1)
}

// enqueue copies a line to the queue.
func (l *Logger) enqueue(line []byte) {
	l.mu.Lock()
	before := len(l.pending)
	if l.closed || l.lines+l.writing >= l.maxLines || before+l.taken+len(line) > l.maxBytes {
		l.mu.Unlock()
		l.dropped.Add(1)
		return
	}
	after := before + len(line)
	if after > cap(l.pending) {
		// Doubled here: append would copy a large buffer many times in a burst.
		grown := make([]byte, before, max(after, min(2*after, l.maxBytes), fullBatch))
		copy(grown, l.pending)
		l.pending = grown
	}
	l.pending = append(l.pending, line...)
	l.lines++
	l.mu.Unlock()
	// The writer is woken once a batch, not for every line.
	if before == 0 {
		signal(l.wake)
	}
	if before < fullBatch && after >= fullBatch {
		signal(l.hurry)
	}
}

// signal leaves a token in a channel that holds one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Dropped is the number of records that were meant to be written and were not:
// the queue was full, or the output failed when closing.
func (l *Logger) Dropped() uint64 {
	if l == nil {
		return 0
	}
	return l.dropped.Load()
}

// Failures is the number of writes that failed.
func (l *Logger) Failures() uint64 {
	if l == nil {
		return 0
	}
	return l.failures.Load()
}

// Reopen opens the file at the path of the output anew, after the old one was
// moved away; lines that are not written yet go there. On an error the old file
// stays in use. For standard streams it does nothing.
func (l *Logger) Reopen() error {
	if l == nil || l.name == "stdout" || l.name == "stderr" {
		return nil
	}
	fresh, err := open(l.name)
	if err != nil {
		return err
	}
	l.mu.Lock()
	unused := fresh
	if !l.closed {
		unused, l.next = l.next, fresh // perhaps one from a call just before
	}
	l.mu.Unlock()
	if unused != nil {
		unused.file.Close()
	}
	signal(l.wake)
	signal(l.hurry)
	return nil
}

// Close writes what waits and closes the output. It returns an error if that
// failed, or is not done within the time given; an output that fails is not
// tried again, and what it did not take counts as dropped. Records that come
// later are dropped.
func (l *Logger) Close(within time.Duration) error {
	if l == nil {
		return nil
	}
	before := l.dropped.Load()
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	signal(l.wake)
	signal(l.hurry)
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-l.done:
		if n := l.dropped.Load() - before; n > 0 {
			return fmt.Errorf("close access log: %d lines could not be written", n)
		}
		return nil
	case <-timer.C:
		l.mu.Lock()
		n := l.lines + l.writing
		l.mu.Unlock()
		return fmt.Errorf("close access log: %d lines were not written within %v", n, within)
	}
}
