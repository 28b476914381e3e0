package cache

import (
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"gateway/wire"
)

// Flight is a request to the origin whose response others wait for, and which
// is stored if it may be. One goroutine at a time drives it: Response, then
// Write for each piece and Finish, or Whole; or NotModified; or at any time
// Fail. Each flight ends with Finish, Whole, NotModified or Fail, or Pass
// releases it early.
type Flight struct {
	c        *Cache
	shard    *flightShard
	next     *Flight // in the shard, of the same hash
	policy   *Policy
	name     []byte // in the shard
	nameHash uint64
	key      []byte // of what is stored, without variant
	variant  []byte // scratch: the key with variant
	asked    Asked
	request  wire.Header // the fields that the client sent
	fields   []byte      // their memory
	blob     []byte      // that of the head
	sequence uint64
	// generation is the last shared purge that was known when the flight began.
	generation uint64
	tier       *Tier // nil without one
	recall     bool  // the tier may have the answer
	hash       uint64
	doomed     atomic.Bool // changed or purged by URL since

	mu      sync.Mutex
	phase   phase
	over    bool // nobody drives it any more
	shared  bool // others than its driver have a part in it
	head    Entry
	terms   Terms
	storing bool
	alone   bool // it is stored, but of use for the leader's client only
	reason  NoStoreReason
	chunks  [][]byte // the body from base on; what is in them never changes
	base    int64
	end     int64 // bytes of the body so far
	held    int64 // bytes of chunks
	length  int64 // of the whole body, -1 unknown
	trailer []byte
	err     error
	readers []*Reader
	orphan  func()        // gives the request up when nobody waits any more; nil while its client is there
	space   chan struct{} // a reader has gone on
}

type phase uint8

const (
	phaseAsking  phase = iota // no head yet
	phaseSharing              // readers may have the head and what there is of the body
	phaseStoring              // the whole body is being stored: look again soon
	phaseAgain                // over; look again
	phaseAlone                // not for others
	phaseDone                 // the body is complete
	phaseFailed
)

// Role is what a request does about a miss.
type Role uint8

const (
	Lead  Role = iota // ask the origin and tell the others
	Wait              // for the leader
	Alone             // ask the origin; nobody shares the answer
	Again             // look up again: somebody has just stored it
)

var (
	// ErrUnwanted is what Write returns when nobody reads and nothing is stored.
	ErrUnwanted = errors.New("nobody wants the response")
	// ErrSlowReader ends a reader that kept the others waiting.
	ErrSlowReader = errors.New("read too slowly of a shared response")
)

const (
	flightShards = 64
	maxReaders   = 1 << 14 // of a flight; others go their own ways
	maxChunk     = 64 << 10
	minChunk     = 4 << 10
	maxPause     = 5 * time.Minute // in a body; the leader's own time limits are shorter
	windowBytes  = 256 << 10       // how far behind readers may be when nothing is stored
)

// Response tells the flight what the origin answers, without its body: it is
// shared and stored if RFC 9111 allows it, and waiters go their own ways if not.
// length is the body's, -1 if it is not known. o.Header is not kept.
func (f *Flight) Response(o *Origin, length int64) NoStoreReason {
	f.mu.Lock()
	f.shared = true // the body may be left to somebody else
	f.mu.Unlock()
	return f.respond(o, length)
}

func (f *Flight) respond(o *Origin, length int64) NoStoreReason {
	terms, reason := f.policy.Judge(&f.asked, o)
	var head Entry
	if reason == Storable && length > f.limit() {
		reason = TooLarge
	}
	if reason == Storable && o.Status == 206 && length >= 0 {
		// What is said to be there and is not can be given to nobody.
		if r, _ := contentRange(o.Header); r.Last-r.First+1 != length {
			reason = BadRange
		}
	}
	if reason == Storable {
		if head, reason = f.draft(f.blob, o, &terms, f.c.ids.Add(1)); reason == Storable {
			f.blob = head.blob
		}
	}
	share := reason == Storable && sharable(&terms)
	if share {
		f.remember(0)
	} else if !reason.personal() { // else others may get something that can be shared
		f.remember(o.Received + f.c.uncacheable.Load())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reason, f.terms, f.length = reason, terms, length
	if reason != Storable {
		if f.phase == phaseAsking {
			f.phase = phaseAlone
		}
		f.wakeAll()
		return reason
	}
	if head.flags()&flagPartial != 0 {
		if length < 0 {
			f.length = head.BodyLen()
		}
	}
	if length >= 0 && head.flags()&flagPartial == 0 {
		head.sized(length)
	}
	f.head, f.storing, f.phase = head, true, phaseSharing
	if !share {
		f.phase, f.alone = phaseAlone, true
	}
	f.wakeAll()
	return Storable
}

// sharable reports whether a response that has just come could serve anybody
// else without validation. If not, waiters would find themselves one behind the
// other.
func sharable(t *Terms) bool {
	q := RequestControl{MaxAge: unset, MaxStale: unset, MinFresh: unset, StaleIfError: unset}
	return t.May(&q, t.Received, false) == UseFresh
}

func (f *Flight) limit() int64 {
	most := f.c.maxObject.Load()
	if n := f.policy.MaxObject; n > 0 && n < most {
		return n
	}
	return most
}

// draft makes the head of the entry, with the variant in its key, in memory that
// it is given, or in memory of its own when that is too little.
func (f *Flight) draft(memory []byte, o *Origin, t *Terms, id uint64) (Entry, NoStoreReason) {
	var vary []byte
	key := f.key
	if f.policy.ignore&ignoreVary == 0 {
		vary = appendVary(nil, o.Header)
	}
	if len(vary) > 0 {
		key = append(f.variant[:0], key...)
		key = appendGeneration(key, f.c.generation(f.hash, key, o.Received))
		key = appendVariant(key, vary, &f.request)
		f.variant = key
	}
	return f.policy.draft(memory, key, len(f.key), vary, o, t, id, f.sequence, f.generation)
}

// Whole is Response, Write and Finish for a body that is complete already.
func (f *Flight) Whole(o *Origin, body []byte) NoStoreReason {
	reason := f.respond(o, int64(len(body)))
	if reason != Storable {
		f.leave(phaseAlone, nil)
		return reason
	}
	f.mu.Lock()
	alone := len(f.readers) == 0
	if alone && f.phase == phaseSharing {
		f.phase = phaseStoring
	}
	f.mu.Unlock()
	if !alone {
		if err := f.Write(body); err != nil {
			f.Fail(err)
			return Truncated
		}
		return f.Finish(nil)
	}
	reason = f.keepAs(&f.head, [][]byte{body}, int64(len(body)), o.Received)
	f.leave(phaseAgain, nil)
	return reason
}

// Finish ends a complete response and stores it. trailer may be nil; it is
// passed on and not stored.
func (f *Flight) Finish(trailer []byte) NoStoreReason {
	f.mu.Lock()
	storing, reason := f.storing, f.reason
	if storing && f.length >= 0 && f.end != f.length {
		f.mu.Unlock()
		f.Fail(io.ErrUnexpectedEOF)
		return Truncated
	}
	f.trailer = slices.Clone(trailer)
	chunks, head := f.chunks, f.head
	f.mu.Unlock()
	if storing {
		// Readers look at the head; it gets its length in a copy.
		head.blob = slices.Clone(head.blob)
		reason = f.keepAs(&head, chunks, f.end, head.i64(atReceived))
	}
	f.leave(phaseDone, nil)
	return reason
}

// keepAs stores the entry whose body is in pieces of n bytes together.
func (f *Flight) keepAs(head *Entry, body [][]byte, n, now int64) NoStoreReason {
	c := f.c
	if head.flags()&flagPartial != 0 {
		if n != head.BodyLen() {
			return Truncated
		}
		body = f.combine(head, body, n, now)
	} else {
		head.sized(n)
	}
	if f.doomed.Load() {
		return Outdated
	}
	if f.asked.Method == wire.MethodQuery {
		c.queries.Store(true)
	}
	if !c.keep(head, f.hash, body, &f.terms, now) {
		return NoMemory
	}
	if f.doomed.Load() { // meanwhile
		c.store.removeKey(f.hash, head.primary(), EvictedPurged)
		return Outdated
	}
	f.spread(head)
	return Storable
}

// spread has the tier write what was just stored, with the names that it varies
// by. Parts of responses stay here.
func (f *Flight) spread(head *Entry) {
	if f.tier == nil || head.flags()&flagPartial != 0 {
		return
	}
	f.tier.keep(head.key())
	if len(head.vary()) > 0 {
		f.tier.keep(head.primary())
	}
}

// combine adds what is stored already to a partial response: bytes, and the
// fields that the new one leaves out (RFC 9111 section 3.4).
func (f *Flight) combine(head *Entry, body [][]byte, n, now int64) [][]byte {
	old, found := f.c.store.lookup(f.c.store.hash(head.key()), head.key(), now, false)
	if !found {
		return body
	}
	defer old.Release()
	before, behind, s, total, ok := combine(&old, head, n)
	if !ok || s.Last-s.First+1 > f.limit() {
		return body
	}
	var fresh, merged wire.Header
	if fault := fresh.ParseFields(head.Head(), 0); fault != wire.NoFault {
		panic("BUG: fields of a flight: " + fault.String())
	}
	old.merge(&merged, &fresh)
	first, whole, _ := head.Partial()
	merged.Set("Content-Range", AppendContentRange(nil, Span{first, first + n - 1}, whole))
	joint, reason := f.draft(nil, &Origin{Status: 206, Header: &merged, Received: f.terms.Received}, &f.terms, head.id())
	if reason != Storable || string(joint.key()) != string(head.key()) {
		return body
	}
	joint.take(old.Took() + head.Took())
	*head = joint
	all := make([][]byte, 0, len(body)+2)
	all = append(all, slices.Clone(before)) // the old one goes when it is replaced
	all = append(append(all, body...), slices.Clone(behind))
	head.joined(s, total)
	return all
}

// Fail ends the flight without a complete response: nothing is stored, waiters
// that have nothing yet get err, and those in the middle of the body too.
func (f *Flight) Fail(err error) { f.leave(phaseFailed, err) }

// Pass ends the flight because its request was given up, not because the origin
// failed: one of the waiters may try.
func (f *Flight) Pass() {
	f.mu.Lock()
	begun := f.phase == phaseSharing
	f.mu.Unlock()
	if begun {
		f.Fail(io.ErrUnexpectedEOF)
		return
	}
	f.leave(phaseAgain, nil)
}

// leave ends the flight, if it has not ended.
func (f *Flight) leave(p phase, err error) {
	f.mu.Lock()
	over := f.over
	f.mu.Unlock()
	if over {
		return
	}
	f.shard.mu.Lock()
	f.shard.remove(f)
	if p == phaseAgain || p == phaseDone {
		landed := &f.shard.landed[f.shard.slot(f.hash)]
		landed.hash, landed.n = f.hash, f.c.flights.landings.Add(1)
	}
	f.shard.mu.Unlock()
	f.mu.Lock()
	if f.phase < phaseAgain || f.phase == phaseAlone && f.alone {
		f.phase, f.err = p, err
	}
	f.c.filling.Add(-f.held)
	f.held = 0
	f.wakeAll()
	f.over = true
	f.mu.Unlock()
}

// Received is the head of the response once Response, or Whole, has said that it is
// stored; else it is not valid. Its body is not there.
func (f *Flight) Received() *Entry { return &f.head }

// Orphan tells the flight that the client has left whose request its driver
// sends. True when others wait for the head of the response: the driver goes on,
// and abandon is called if all of them leave before it is there. It is called
// with a lock held, must not wait and must not use the flight. Safe from any
// goroutine until the flight's end.
func (f *Flight) Orphan(abandon func()) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.phase != phaseAsking || len(f.readers) == 0 {
		return false
	}
	f.orphan = abandon
	return true
}

// Wanted reports whether anybody reads, or the response is going to be stored.
// A leader whose client has left goes on as long as it is.
func (f *Flight) Wanted() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.readers) > 0 || f.storing
}

// Waiting is the number of readers.
func (f *Flight) Waiting() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.readers)
}

func (f *Flight) wakeAll() {
	for _, r := range f.readers {
		r.signal()
	}
}
