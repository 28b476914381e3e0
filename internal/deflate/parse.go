package deflate

import (
	"encoding/binary"
	"math/bits"
	"unsafe"
)

// A sequence is some literals and the match behind them, packed: how many
// literals (bits 0 to 15), the length of the match less minMatch or noMatch (16 to
// 31), the symbol of its distance (32 to 39), the distance's extra bits (from 40).
type sequence uint64

const (
	tableBits = 13
	// margin is how far from a block's end matches no longer begin, so that eight
	// or sixteen bytes can be read wherever one is looked for.
	margin = 16
)

// slot is where a table keeps the place of the five bytes at the low end.
func slot(v uint64) uint64 {
	return v * (0xb185ebca87 << 24) >> (64 - tableBits) // what is above them is shifted out
}

// slide makes the table one of places that are window less, and 0 where they were
// before that; four at a time, which have their highest bit when they stay.
func (e *Encoder) slide() {
	fours := (*[len(e.table) / 4]uint64)(unsafe.Pointer(&e.table))
	for i, four := range fours {
		stay := four & 0x8000_8000_8000_8000
		fours[i] = four & (stay - stay>>15)
	}
}

// load reads eight bytes at a place, of which the caller knows that they are
// within b: a check for each takes a fifth of the time of a body.
func load(b []byte, at int) uint64 {
	return binary.LittleEndian.Uint64((*[8]byte)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(b)), at))[:])
}

// parse makes sequences of src from a place on, at most blockSize bytes, and
// counts their symbols but for literals. What is before is the window.
//
// The table has no mark for places that were never filled: they say 0, and the
// bytes of all are compared.
func (e *Encoder) parse(src []byte, from int) {
	at, done := from, from // before done all is in sequences
	n, copied := 0, 0
	for limit := len(src) - margin; ; {
		var before int // where the same bytes are
		for {
			if at >= limit {
				e.end(src[done:], n, copied)
				return
			}
			// Every second place is looked up, but all are entered: a match found a
			// byte late is extended backwards.
			v := load(src, at)
			entry := &e.table[slot(v)]
			before = int(*entry)
			*entry = uint16(at)
			e.table[slot(v>>8)] = uint16(at + 1)
			if (load(src, before)^v)<<24 == 0 && uint(at-before-1) < window {
				break
			}
			at += 2 + min((at-done)>>3, 2)
		}
		end := at
		if x := load(src, at+4) ^ load(src, before+4); x != 0 {
			end += 4 + bits.TrailingZeros64(x)/8
		} else {
			end += extent(src, at, before)
		}
		d := at - before - 1
		if before >= 8 {
			same := bits.LeadingZeros64(load(src, at-8)^load(src, before-8)) / 8
			at -= min(same, at-done, maxMatch-(end-at))
		}
		run, length := at-done, end-at-minMatch
		*(*[16]byte)(e.literals[copied:]) = *(*[16]byte)(src[done:])
		if run > 16 {
			copy(e.literals[copied:], src[done:at])
		}
		copied += run
		symbol := distanceOf[distanceIndex(d)&511] & 31
		extra := d - int(distanceBase[symbol])
		e.sequences[n] = sequence(run) | sequence(length)<<16 | sequence(symbol)<<32 | sequence(extra)<<40
		n++
		e.lengthCounts[length&511]++
		e.distanceCounts[symbol]++
		at, done = end, end
	}
}

// extent is how many bytes are the same at two places, of which at least twelve
// are and at most maxMatch count.
func extent(src []byte, at, before int) int {
	n := 12
	most := min(maxMatch, len(src)-at)
	for ; n+8 <= most; n += 8 {
		if x := load(src, at+n) ^ load(src, before+n); x != 0 {
			return n + bits.TrailingZeros64(x)/8
		}
	}
	for n < most && src[at+n] == src[before+n] {
		n++
	}
	return n
}

// end notes the literals behind the last match.
func (e *Encoder) end(rest []byte, n, copied int) {
	if len(rest) > 0 {
		copy(e.literals[copied:], rest)
		copied += len(rest)
		e.sequences[n] = sequence(len(rest)) | noMatch<<16 | noDistance<<32
		n++
	}
	e.n, e.copied = n, copied
}
