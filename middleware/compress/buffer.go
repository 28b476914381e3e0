package compress

import (
	"io"
	"sync"
)

// bufferSizes are the size classes of the memory in which coded bodies wait
// for their clients, so that a slow client holds little more than its bytes.
var bufferSizes = [...]int{4 << 10, 16 << 10, 64 << 10, MaxWhole}

var bufferPools [len(bufferSizes)]sync.Pool

// Buffer is borrowed memory with a body. It is also the stream that follows
// this body, an empty one, so that whoever ends the response releases it.
type Buffer struct {
	bytes []byte // capacity is that of the class
	class int
}

// AcquireBuffer borrows an empty buffer with room for n ≤ MaxWhole bytes.
func AcquireBuffer(n int) *Buffer {
	for class, size := range bufferSizes {
		if n <= size {
			if b, ok := bufferPools[class].Get().(*Buffer); ok {
				return b
			}
			return &Buffer{bytes: make([]byte, 0, size), class: class}
		}
	}
	panic("BUG: buffer beyond the largest size class")
}

// Append adds bytes; ok is false, and nothing is added, when there is no room.
func (b *Buffer) Append(p []byte) (ok bool) {
	if len(b.bytes)+len(p) > cap(b.bytes) {
		return false
	}
	b.bytes = append(b.bytes, p...)
	return true
}

// Bytes is what the buffer holds, valid until Release; nothing for nil.
func (b *Buffer) Bytes() []byte {
	if b == nil {
		return nil
	}
	return b.bytes
}

// Next is io.EOF: nothing follows.
func (b *Buffer) Next() ([]byte, error) { return nil, io.EOF }

// Trailer is nil.
func (b *Buffer) Trailer() []byte { return nil }

// Release gives the memory back. The buffer must not be used afterwards.
func (b *Buffer) Release() {
	b.bytes = b.bytes[:0]
	bufferPools[b.class].Put(b)
}
