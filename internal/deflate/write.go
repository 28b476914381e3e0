package deflate

import (
	"encoding/binary"
	"slices"
	"unsafe"
)

// codes are those of a block, laid out for write, which gets along with few
// instructions for each. Lengths have their extra bits in the codeword.
type codes struct {
	literals  literalCodes
	tails     [4][3]*literalCodes // for the first, second and third of so many literals
	lengths   [512]codeword       // by length less minMatch
	distances [32]distanceCode
	end       codeword
}

// literalCodes are the codes of literals, and how many bits each has.
type literalCodes struct{ code, bits [256]uint64 }

// noLiterals are the codes of literals that are not there.
var noLiterals literalCodes

// distanceCode is a distance's code, its bits, and those that follow.
type distanceCode struct{ code, bits, extra uint64 }

func (c *codes) make(lengths *[symbols]uint8, distanceLengths *[distances]uint8) {
	for n := range c.tails {
		for i := range c.tails[n] {
			c.tails[n][i] = &noLiterals
			if i < n {
				c.tails[n][i] = &c.literals
			}
		}
	}
	var all [symbols]codeword
	canonical(all[:], lengths[:])
	for i, word := range all[:256] {
		c.literals.code[i], c.literals.bits[i] = uint64(word>>8), uint64(word&0xff)
	}
	c.end = all[endOfBlock]
	for i, word := range all[firstLength : firstLength+lengthSymbols] {
		for extra := range codeword(1) << lengthExtra[i] {
			bits := word & 0xff
			c.lengths[int(lengthBase[i])+int(extra)] = (word>>8|extra<<bits)<<8 | bits + codeword(lengthExtra[i])
		}
	}
	var far [distances]codeword
	canonical(far[:], distanceLengths[:])
	for i, word := range far {
		c.distances[i] = distanceCode{uint64(word >> 8), uint64(word & 0xff), uint64(distanceExtra[i])}
	}
}

// writer puts bits behind bytes, the first lowest. Less than 8 are pending between
// calls.
type writer struct {
	out     []byte
	pending uint64
	n       uint64 // of pending
}

// grow makes room for so many bytes, and for what is stored beyond them.
func (w *writer) grow(n int) { w.out = slices.Grow(w.out, n+32) }

// put writes up to 16 bits.
func (w *writer) put(v, n uint64) {
	w.pending |= v << w.n
	for w.n += n; w.n >= 8; w.n -= 8 {
		w.out = append(w.out, byte(w.pending))
		w.pending >>= 8
	}
}

// align goes on to a whole byte.
func (w *writer) align() { w.put(0, -w.n&7) }

// stored writes a block as it is.
func (w *writer) stored(last uint64, block []byte) {
	w.put(last, 3)
	w.align()
	w.out = binary.LittleEndian.AppendUint16(w.out, uint16(len(block)))
	w.out = binary.LittleEndian.AppendUint16(w.out, ^uint16(len(block)))
	w.out = append(w.out, block...)
}

// store writes eight bytes at a place for which there is room.
func store(to unsafe.Pointer, at int, v uint64) {
	binary.LittleEndian.PutUint64((*[8]byte)(unsafe.Add(to, at))[:], v)
}

// write puts down the sequences, for which there must be room, and for eight bytes
// more.
//
// Literals are written by fours, then by three of which those that are too many
// have no bits: that their number can't be foreseen matters for the fours only.
func (e *Encoder) write(w *writer) {
	var (
		from     = unsafe.Pointer(&e.literals)
		to       = unsafe.Pointer(unsafe.SliceData(w.out))
		at       = len(w.out)
		b, n     = w.pending, w.n
		literals = &e.codes.literals
	)
	for _, s := range e.sequences[:e.n] {
		run := int(s & 0xffff)
		for ; run >= 4; run -= 4 {
			l := (*[4]byte)(from)
			b |= literals.code[l[0]] << (n & 63)
			n += literals.bits[l[0]]
			b |= literals.code[l[1]] << (n & 63)
			n += literals.bits[l[1]]
			b |= literals.code[l[2]] << (n & 63)
			n += literals.bits[l[2]]
			b |= literals.code[l[3]] << (n & 63)
			n += literals.bits[l[3]]
			from = unsafe.Add(from, 4)

			store(to, at, b)
			at += int(n >> 3)
			b >>= n &^ 7 & 63
			n &= 7
		}
		l := (*[3]byte)(from)
		tail := &e.codes.tails[run&3]
		from = unsafe.Add(from, run)
		b |= tail[0].code[l[0]] << (n & 63)
		n += tail[0].bits[l[0]]
		b |= tail[1].code[l[1]] << (n & 63)
		n += tail[1].bits[l[1]]
		b |= tail[2].code[l[2]] << (n & 63)
		n += tail[2].bits[l[2]]
		c := e.codes.lengths[s>>16&511]
		b |= uint64(c>>8) << (n & 63)
		n += uint64(c & 0xff)

		store(to, at, b)
		at += int(n >> 3)
		b >>= n &^ 7 & 63
		n &= 7

		d := &e.codes.distances[s>>32&31]
		b |= d.code << (n & 63)
		n += d.bits
		b |= uint64(s>>40) << (n & 63)
		n += d.extra

		store(to, at, b)
		at += int(n >> 3)
		b >>= n &^ 7 & 63
		n &= 7
	}
	w.out, w.pending, w.n = w.out[:at], b, n
	w.put(uint64(e.codes.end>>8), uint64(e.codes.end&0xff))
}
