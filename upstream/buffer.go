package upstream

import "sync"

// bufferSizes are the size classes of the buffers that calls borrow while they
// are under way. Idle connections hold none.
var bufferSizes = [...]int{8 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10}

const (
	minBuffer   = 8 << 10
	maxExpected = 32 << 10 // larger responses take another read
	maxBuffer   = 256 << 10
)

// buffer is borrowed memory. The pools hold pointers to it, so that neither
// acquiring nor releasing allocates.
type buffer struct {
	b     []byte
	class int
}

var bufferPools [len(bufferSizes)]sync.Pool

// acquireBuffer borrows a buffer of at least n ≤ maxBuffer bytes.
func acquireBuffer(n int) *buffer {
	for class, size := range bufferSizes {
		if n <= size {
			if b, ok := bufferPools[class].Get().(*buffer); ok {
				return b
			}
			return &buffer{b: make([]byte, size), class: class}
		}
	}
	panic("BUG: buffer beyond the largest size class")
}

// release gives the buffer back; nil is allowed.
func (b *buffer) release() {
	if b != nil {
		bufferPools[b.class].Put(b)
	}
}
