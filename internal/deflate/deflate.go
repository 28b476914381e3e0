package deflate

import "encoding/binary"

// blockSize is how many bytes of a body have codes in common.
const blockSize = 32 << 10

// Encoder is what is needed to compress a body, about 110 KB; its zero value is
// ready. It is not safe for concurrent use.
type Encoder struct {
	table     [1 << tableBits]uint16 // where five bytes were last
	sequences [blockSize/5 + 2]sequence
	literals  [blockSize + margin]byte
	n, copied int // how many sequences, and literals

	lengthCounts   [512]uint16 // of matches, by length less minMatch; so many that no index is checked
	distanceCounts [32]uint16
	counts         [symbols]uint16 // of literals and symbols of lengths

	lengths         [symbols]uint8 // of codes
	distanceLengths [distances]uint8
	codes           codes
	header          header
}

// Append compresses src and appends what comes out to dst. It is the same for the
// same bytes, whatever was compressed before, and longer than src by at most
// 5 bytes for each 32 KiB and 8 more. Allocates only what dst lacks.
func (e *Encoder) Append(dst, src []byte) []byte {
	clear(e.table[:])
	w := writer{out: dst}
	for from := 0; ; {
		to := min(from+blockSize, len(src))
		e.block(&w, src[:to], from, to == len(src))
		if to == len(src) {
			break
		}
		if from = to; from > window { // places have 16 bits
			src, from = src[from-window:], window
			e.slide()
		}
	}
	w.align()
	return w.out
}

// block writes what is in src from a place on, in the shortest of the three forms.
func (e *Encoder) block(w *writer, src []byte, from int, end bool) {
	clear(e.lengthCounts[:])
	clear(e.distanceCounts[:])
	e.parse(src, from)
	e.count()
	optimal(e.lengths[:], e.counts[:], maxCode)
	optimal(e.distanceLengths[:], e.distanceCounts[:distances], maxCode)
	e.header.make(e.lengths[:], e.distanceLengths[:])

	dynamic := e.header.bits + e.cost(&e.lengths, &e.distanceLengths)
	fixed := 3 + e.cost(&fixedLengths, &fixedDistances)
	stored := 8 * (len(src) - from + 5)
	last := uint64(0)
	if end {
		last = 1
	}
	switch best := min(dynamic, fixed, stored); best {
	case stored:
		w.grow(stored / 8)
		w.stored(last, src[from:])
	case dynamic:
		w.grow(best / 8)
		w.put(last|2<<1, 3)
		e.header.write(w)
		e.codes.make(&e.lengths, &e.distanceLengths)
		e.write(w)
	default:
		w.grow(best / 8)
		w.put(last|1<<1, 3)
		e.codes.make(&fixedLengths, &fixedDistances)
		e.write(w)
	}
}

// count sets how often literals and symbols of lengths occur.
func (e *Encoder) count() {
	// Four tables, since a counter can't be raised again at once.
	var by [4][256]uint16
	l := e.literals[:e.copied]
	for ; len(l) >= 8; l = l[8:] {
		v := binary.LittleEndian.Uint64(l)
		by[0][uint8(v)]++
		by[1][uint8(v>>8)]++
		by[2][uint8(v>>16)]++
		by[3][uint8(v>>24)]++
		by[0][uint8(v>>32)]++
		by[1][uint8(v>>40)]++
		by[2][uint8(v>>48)]++
		by[3][uint8(v>>56)]++
	}
	for _, c := range l {
		by[0][c]++
	}
	clear(e.counts[:])
	for i := range 256 {
		e.counts[i] = by[0][i] + by[1][i] + by[2][i] + by[3][i]
	}
	for i, n := range e.lengthCounts[:noMatch] {
		e.counts[firstLength+int(lengthOf[i])] += n
	}
	e.counts[endOfBlock] = 1
}

// cost is how many bits the sequences take with codes of these lengths.
func (e *Encoder) cost(lengths *[symbols]uint8, distanceLengths *[distances]uint8) int {
	n := 0
	for i, c := range e.counts {
		n += int(c) * int(lengths[i])
	}
	for i, c := range e.counts[firstLength : firstLength+lengthSymbols] {
		n += int(c) * int(lengthExtra[i])
	}
	for i, c := range e.distanceCounts[:distances] {
		n += int(c) * int(distanceLengths[i]+distanceExtra[i])
	}
	return n
}

// fixedLengths are those of RFC 1951 section 3.2.6, fixedDistances too.
var (
	fixedLengths   [symbols]uint8
	fixedDistances [distances]uint8
)

func init() {
	for i := range fixedLengths {
		switch {
		case i < 144:
			fixedLengths[i] = 8
		case i < 256:
			fixedLengths[i] = 9
		case i < 280:
			fixedLengths[i] = 7
		default:
			fixedLengths[i] = 8
		}
	}
	for i := range fixedDistances {
		fixedDistances[i] = 5
	}
}

// header is how a block's codes are told (RFC 1951 section 3.2.7).
type header struct {
	literals, distances int                         // how many lengths of codes are told of each
	runs                [symbols + distances]uint16 // symbols, their extra bits above the low byte
	n                   int                         // how many
	lengths             [19]uint8                   // of the codes of these symbols
	told                int                         // how many of those are told, in the format's order
	bits                int                         // of the whole, with the block's first three
}

// headerOrder is the order in which the lengths of the header's own codes come.
var headerOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// headerExtra is how many bits follow a symbol of the header.
var headerExtra = [19]uint8{16: 2, 17: 3, 18: 7}

func (h *header) make(lengths, distanceLengths []uint8) {
	told := func(lengths []uint8, least int) int {
		n := len(lengths)
		for n > least && lengths[n-1] == 0 {
			n--
		}
		return n
	}
	h.literals = told(lengths, firstLength)
	h.distances = told(distanceLengths, 1)
	var all [symbols + distances]uint8
	copy(all[copy(all[:], lengths[:h.literals]):], distanceLengths[:h.distances])

	h.n = 0
	var counts [19]uint16
	add := func(symbol, extra int) {
		h.runs[h.n] = uint16(extra<<8 | symbol)
		h.n++
		counts[symbol]++
	}
	rest := all[:h.literals+h.distances]
	for len(rest) > 0 {
		l := rest[0]
		run := 1
		for run < len(rest) && rest[run] == l {
			run++
		}
		rest = rest[run:]
		if l > 0 {
			add(int(l), 0)
			run--
		}
		for run >= 3 {
			switch {
			case l > 0:
				n := min(run, 6)
				add(16, n-3)
				run -= n
			case run > 10:
				n := min(run, 138)
				add(18, n-11)
				run -= n
			default:
				add(17, run-3)
				run = 0
			}
		}
		for range run {
			add(int(l), 0)
		}
	}
	optimal(h.lengths[:], counts[:], 7)
	h.told = len(headerOrder)
	for h.told > 4 && h.lengths[headerOrder[h.told-1]] == 0 {
		h.told--
	}
	h.bits = 3 + 5 + 5 + 4 + 3*h.told
	for s, n := range counts {
		h.bits += int(n) * int(h.lengths[s]+headerExtra[s])
	}
}

func (h *header) write(w *writer) {
	w.put(uint64(h.literals-firstLength), 5)
	w.put(uint64(h.distances-1), 5)
	w.put(uint64(h.told-4), 4)
	for _, s := range headerOrder[:h.told] {
		w.put(uint64(h.lengths[s]), 3)
	}
	var codes [19]codeword
	canonical(codes[:], h.lengths[:])
	for _, s := range h.runs[:h.n] {
		c := codes[s&0xff]
		w.put(uint64(c>>8), uint64(c&0xff))
		w.put(uint64(s>>8), uint64(headerExtra[s&0xff]))
	}
}
