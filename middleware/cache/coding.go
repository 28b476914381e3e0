package cache

import (
	"slices"
	"sync"
)

// Codings of a stored response are entries of their own, whose keys name the
// coding. They belong to a body, not to a key: once the response has another
// body they are not found any more. Their fields are those of the response,
// with Content-Encoding, Vary and the entity tag as whoever codes it says.

// appendCoding appends what makes a key that of a coding. Behind a key there
// would be a length, whose first byte is no letter, or a V.
func appendCoding(key []byte, coding string) []byte {
	return append(append(key, 'C'), coding...)
}

// Coded looks for the body of e, the lookup's entry, in a content coding. The
// entry that it returns has that body and no fields; the caller releases it. An
// empty body says that the coding does not make the body smaller: the plain one
// is to be sent. It allocates nothing once l has grown.
func (c *Cache) Coded(l *Lookup, e *Entry, coding string, now int64) (Entry, bool) {
	l.scratch = appendCoding(append(l.scratch[:0], e.key()...), coding)
	coded, found := c.store.lookup(c.store.hash(l.scratch), l.scratch, now, true)
	if found && coded.id() != e.id() {
		coded.Release()
		return Entry{}, false
	}
	return coded, found
}

// KeepCoded stores a coding of the body of e, the lookup's entry; an empty one
// says that it is of no use. It counts within the limit like any entry, and
// purges find it. False when there is no room for it. It allocates nothing once
// l has grown.
func (c *Cache) KeepCoded(l *Lookup, e *Entry, coding string, body []byte, now int64) bool {
	if _, _, partial := e.Partial(); partial {
		panic("BUG: a part of a response was coded")
	}
	b := appendCoding(append(l.scratch[:0], e.blob[:e.keyEnd()]...), coding)
	key := b[metaSize:]
	b = append(b, e.blob[e.keyEnd():e.tagsEnd()]...)
	l.scratch = b
	for _, at := range [...]int{atVaryLen, atHeadLen, atETag, atETagLen} {
		le.PutUint32(b[at:], 0)
	}
	le.PutUint32(b[atKeyLen:], uint32(len(key)))
	coded := Entry{blob: b}
	coded.sized(int64(len(body)))
	terms := e.Terms()
	// Validation can give the response a longer life.
	dead := terms.Dead() + 24*3600*second
	return c.store.put(c.store.hash(key), b, [][]byte{body}, dead, now)
}

// Coder makes the coded form of a body, which it may neither keep nor change;
// nothing when that is not smaller. It is called in the background, one call at
// a time for each cache, and what it returns is used until its next call.
type Coder func(body []byte) []byte

const maxCoding = 256 // bodies that wait to be coded

// coding is the bodies that are being coded, or wait for it.
type coding struct {
	mu      sync.Mutex
	jobs    map[codingKey]codingState
	queue   []codingJob
	working bool
	closed  bool
	done    sync.WaitGroup
}

// codingState is how a body is being coded.
type codingState struct {
	now  bool          // by a request; else in the background
	done chan struct{} // closed at the end of what a request does; made for the first who waits
}

type codingKey struct {
	id     uint64
	coding string
}

type codingJob struct {
	codingKey
	key  []byte
	code Coder
}

// CodeLater has the body of e coded once, in the background, for Coded to find.
// A body that waits already, or is being coded, is not coded again, and when too
// many wait this one does not; so that asking with each hit is right. It holds
// nothing of e. Without a Coder nothing happens.
func (c *Cache) CodeLater(e *Entry, name string, code Coder) {
	if _, _, partial := e.Partial(); partial || code == nil {
		return
	}
	k, d := codingKey{e.id(), name}, &c.coding
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, known := d.jobs[k]; known || d.closed || len(d.jobs) >= maxCoding {
		return
	}
	if d.jobs == nil {
		d.jobs = make(map[codingKey]codingState)
	}
	d.jobs[k] = codingState{}
	d.queue = append(d.queue, codingJob{k, slices.Clone(e.key()), code})
	if !d.working {
		d.working = true
		d.done.Go(c.codeAll)
	}
}

// BeginCoding is asked by who wants to code the body of e at once, because no
// coded form was found: mine says that nobody else does, and EndCoding must
// follow soon. Else done is closed when the one who does has ended; nil says that
// it is going to take longer.
func (c *Cache) BeginCoding(e *Entry, name string) (done <-chan struct{}, mine bool) {
	k, d := codingKey{e.id(), name}, &c.coding
	d.mu.Lock()
	defer d.mu.Unlock()
	if job, known := d.jobs[k]; known {
		if job.now && job.done == nil {
			job.done = make(chan struct{})
			d.jobs[k] = job
		}
		return job.done, false
	}
	if len(d.jobs) >= maxCoding {
		return nil, false
	}
	if d.jobs == nil {
		d.jobs = make(map[codingKey]codingState)
	}
	d.jobs[k] = codingState{now: true}
	return nil, true
}

// EndCoding ends what BeginCoding began, after the form was kept or not.
func (c *Cache) EndCoding(e *Entry, name string) {
	k, d := codingKey{e.id(), name}, &c.coding
	d.mu.Lock()
	defer d.mu.Unlock()
	if done := d.jobs[k].done; done != nil {
		close(done)
	}
	delete(d.jobs, k)
}

// codeAll codes what waits, and ends when nothing does.
func (c *Cache) codeAll() {
	d := &c.coding
	for {
		d.mu.Lock()
		if len(d.queue) == 0 || d.closed {
			d.working, d.queue = false, nil
			d.mu.Unlock()
			return
		}
		job := d.queue[0]
		d.queue = d.queue[1:]
		d.mu.Unlock()
		c.code(&job)
		d.mu.Lock()
		delete(d.jobs, job.codingKey)
		d.mu.Unlock()
	}
}

// code codes one body, if it is still stored.
func (c *Cache) code(job *codingJob) {
	now := c.clock()
	e, found := c.store.lookup(c.store.hash(job.key), job.key, now, false)
	defer e.Release()
	if !found || e.id() != job.id {
		return
	}
	var l Lookup
	if coded, found := c.Coded(&l, &e, job.coding, now); found {
		coded.Release() // who asked had looked before it was there
		return
	}
	c.KeepCoded(&l, &e, job.coding, job.code(e.Body()), now)
}

// close waits for the body that is being coded.
func (d *coding) close() {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.done.Wait()
}
