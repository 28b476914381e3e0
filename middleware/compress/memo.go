package compress

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"hash/maphash"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/cpu"
)

// Bounds of what a memo keeps.
const (
	memoLimit  = 16 << 20 // bytes of coded forms, their overhead included
	memoSlots  = 8 << 10
	memoWays   = 4       // slots in which a form may be
	memoSights = 4 << 10 // bodies of which it is known that they have come before
	formCost   = 128     // bytes of a form beside its coded body
)

// memo keeps the coded forms of bodies that come again and again, so that they
// are coded once. It answers nothing by itself: the origin has sent the very same
// bytes each time.
//
// A body that has never been seen costs a glance, a hash of some of its bytes.
// When the glance is known, all of it is hashed; when that hash has been seen
// before too, the coded form is kept, and found from then on: the third time
// keeps, the fourth finds.
//
// What must not be taken for one another are told apart by 128 bits of GMAC (NIST
// SP 800-38D) under a random key that never leaves the process. It is an
// almost-universal hash: two bodies of n blocks, whoever has chosen them, have the
// same one with a probability of at most n/2^128, as long as nobody sees it.
//
// Forms are found without a lock; they are only replaced under one. Which to drop
// is chosen by CLOCK (Corbató, 1968). Safe for concurrent use. A nil memo keeps
// nothing.
type memo struct {
	mac  cipher.AEAD
	seed maphash.Seed

	glances [memoSights]atomic.Uint32 // of bodies seen once or more
	seen    [memoSights]atomic.Uint32 // parts of the digests of bodies seen twice or more
	forms   [memoSlots]atomic.Pointer[form]
	bytes   atomic.Int64 // cost of all forms

	keeping sync.Mutex // guards the change of forms, and hand
	hand    int        // where the search for a form to drop goes on
}

// form is a coded body. Only used changes.
type form struct {
	of    digest
	coded []byte // empty when it would not be smaller than the body
	used  atomic.Bool
}

func (f *form) cost() int64 { return int64(len(f.coded)) + formCost }

// digest stands for a body, the space that it is of, and how it is coded.
type digest [16]byte

// Space is a set of bodies that may share coded forms, those of a route. With
// one for all, who can choose the bodies of one route could find out, by how
// long an answer takes, which bodies another one has sent.
type Space uint64

// NoSpace is that of bodies whose coded forms are not kept.
const NoSpace Space = 0

// newMemo makes an empty memo; nil where hashing a body takes about as long as
// coding it, or where GCM is forbidden.
func newMemo() *memo {
	if x, a := &cpu.X86, &cpu.ARM64; !(x.HasAES && x.HasPCLMULQDQ || a.HasAES && a.HasPMULL) {
		return nil
	}
	var key [16]byte
	rand.Read(key[:])
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil
	}
	mac, err := cipher.NewGCM(block)
	if err != nil {
		return nil
	}
	return &memo{mac: mac, seed: maphash.MakeSeed()}
}

// space is the space of a route.
func (m *memo) space(route string) Space {
	if m == nil {
		return NoSpace
	}
	return Space(maphash.String(m.seed, route) | 1)
}

// size is the memory of all forms, in bytes.
func (m *memo) size() int64 {
	if m == nil {
		return 0
	}
	return m.bytes.Load()
}

// find looks for the coded form of a body. Without one, keep says that what
// becomes of the body is worth keeping by this digest. Allocates nothing.
func (m *memo) find(s Space, c Coding, level int, body []byte) (f *form, d digest, keep bool) {
	if m == nil || s == NoSpace {
		return nil, d, false
	}
	glance := m.glance(body)
	if at := &m.glances[glance%memoSights]; at.Load() != uint32(glance>>32) {
		at.Store(uint32(glance >> 32))
		return nil, d, false
	}
	d = m.digest(s, c, level, body)
	for i := range memoWays {
		if f := m.way(&d, i).Load(); f != nil && f.of == d {
			if !f.used.Load() {
				f.used.Store(true)
			}
			return f, d, false
		}
	}
	at, sight := &m.seen[binary.LittleEndian.Uint32(d[4:])%memoSights], binary.LittleEndian.Uint32(d[8:])
	if at.Load() != sight {
		at.Store(sight)
		return nil, d, false
	}
	return nil, d, true
}

// keep keeps the coded form of a body, nothing when it is not smaller. The bytes
// are copied.
func (m *memo) keep(d digest, coded []byte) {
	f := &form{of: d, coded: append([]byte(nil), coded...)}
	m.keeping.Lock()
	defer m.keeping.Unlock()
	victim := m.way(&d, 0)
	for i := range memoWays {
		way := m.way(&d, i)
		switch old := way.Load(); {
		case old == nil:
			victim = way
		case old.of == d:
			return // somebody was faster
		case victim.Load() != nil && !old.used.Swap(false):
			victim = way
		}
	}
	m.put(victim, f)
	for m.bytes.Load() > memoLimit {
		m.hand = (m.hand + 1) % memoSlots
		if at := &m.forms[m.hand]; at.Load() != nil && at.Load() != f && !at.Load().used.Swap(false) {
			m.put(at, nil)
		}
	}
}

// put replaces what is in a slot.
func (m *memo) put(at *atomic.Pointer[form], f *form) {
	if f != nil {
		m.bytes.Add(f.cost())
	}
	if old := at.Swap(f); old != nil {
		m.bytes.Add(-old.cost())
	}
}

// way is one of the slots in which a form may be.
func (m *memo) way(d *digest, i int) *atomic.Pointer[form] {
	set := binary.LittleEndian.Uint32(d[:]) % (memoSlots / memoWays)
	return &m.forms[int(set)*memoWays+i]
}

// What a glance sees of a body.
const (
	glanceParts = 8
	glancePart  = 64 // bytes
)

// glance hashes the length of a body, and some of its bytes.
func (m *memo) glance(body []byte) uint64 {
	var parts [8 + glanceParts*glancePart]byte
	seen := binary.LittleEndian.AppendUint64(parts[:0], uint64(len(body)))
	if len(body) <= glanceParts*glancePart {
		seen = append(seen, body...)
	} else {
		for i := range glanceParts {
			from := (len(body) - glancePart) * i / (glanceParts - 1)
			seen = append(seen, body[from:from+glancePart]...)
		}
	}
	return maphash.Bytes(m.seed, seen)
}

// macs are what the digest of a body is computed in.
var macs = sync.Pool{New: func() any { return new(mac) }}

type mac struct {
	nonce [12]byte
	sum   digest
}

// digest computes the digest of a body.
func (m *memo) digest(s Space, c Coding, level int, body []byte) digest {
	h := macs.Get().(*mac)
	binary.LittleEndian.PutUint64(h.nonce[:], uint64(s))
	h.nonce[8], h.nonce[9] = byte(c), byte(level)
	m.mac.Seal(h.sum[:0], h.nonce[:], nil, body)
	d := h.sum
	macs.Put(h)
	return d
}
