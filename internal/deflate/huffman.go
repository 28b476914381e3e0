package deflate

import (
	"math/bits"
	"slices"
)

// maxCode bounds codes of literals, lengths and distances, in bits: write collects
// four literals, or three and a length with its extra bits, before it stores them.
const maxCode = 12

// A codeword stands for a symbol: its first bit is lowest, above the low byte,
// which is its number of bits.
type codeword uint32

// optimal sets the lengths of an optimal prefix code, 0 for symbols that do not
// occur; codes that would be longer than limit bits are not, for a few bits more.
// Counts sum up to less than 65536. Two symbols have a code at least, as decoders
// want it (zlib's deflate does so too).
//
// The tree is made in place, after Moffat and Katajainen, In-Place Calculation of
// Minimum-Redundancy Codes (1995).
func optimal(lengths []uint8, counts []uint16, limit int) {
	var order [symbols]uint32 // count above the symbol, ascending
	n := ascending(&order, counts)
	clear(lengths)
	for symbol := uint32(0); n < 2; symbol++ { // of what occurs not at all
		if counts[symbol] == 0 {
			order[n], order[0] = order[0], symbol
			n++
		}
	}
	var tree [symbols]uint32
	for i, o := range order[:n] {
		tree[i] = o >> 16
	}
	depths(tree[:n])

	// How many codes there are of each length, then none above the limit: for two
	// that go down to a length, one goes up into the room of a shorter one.
	var number [maxDepth + 1]int
	for _, d := range tree[:n] {
		number[min(d, maxDepth)]++
	}
	used := 0 // of the 2^limit places that the longest codes share
	for d := maxDepth; d > limit; d-- {
		number[limit] += number[d]
	}
	for d := 1; d <= limit; d++ {
		used += number[d] << (limit - d)
	}
	for ; used > 1<<limit; used-- {
		d := limit - 1
		for number[d] == 0 {
			d--
		}
		number[d]--
		number[d+1] += 2
		number[limit]--
	}
	i := n
	for d := 1; d <= limit; d++ {
		for range number[d] {
			i--
			lengths[order[i]&0xffff] = uint8(d)
		}
	}
}

// maxDepth is more than any tree has whose counts sum up to less than 65536:
// those of the deepest are Fibonacci's numbers.
const maxDepth = 24

// ascending lists the symbols that occur, count above symbol, and returns how
// many they are.
func ascending(order *[symbols]uint32, counts []uint16) int {
	const large = 31 // counts from here on share a place, and are sorted there
	var begin [large + 2]uint16
	for _, c := range counts {
		begin[min(c, large)+1]++
	}
	begin[1] = 0 // what does not occur takes no place
	for i := 1; i < len(begin); i++ {
		begin[i] += begin[i-1]
	}
	n := 0
	sorted := begin[large]
	for s, c := range counts {
		if c > 0 {
			place := &begin[min(c, large)]
			order[*place] = uint32(c)<<16 | uint32(s)
			*place++
			n++
		}
	}
	slices.Sort(order[sorted:n])
	return n
}

// depths replaces ascending counts, two at least, by the depths of their leaves
// in the tree, which descend.
func depths(a []uint32) {
	n := len(a)
	// Left to right: a holds counts of inner nodes, then who their parents are.
	leaf, root := 0, 0
	take := func(next int) uint32 {
		if leaf >= n || root < next && a[root] < a[leaf] {
			c := a[root]
			a[root] = uint32(next)
			root++
			return c
		}
		leaf++
		return a[leaf-1]
	}
	for next := range n - 1 {
		c := take(next)
		a[next] = c + take(next)
	}
	// Right to left: depths of the inner nodes.
	a[n-2] = 0
	for i := n - 3; i >= 0; i-- {
		a[i] = a[a[i]] + 1
	}
	// And of the leaves: what inner nodes of a depth leave free.
	next := n - 1
	inner := n - 2
	for depth, free := uint32(0), 1; free > 0; depth++ {
		used := 0
		for ; inner >= 0 && a[inner] == depth; inner-- {
			used++
		}
		for range free - used {
			a[next] = depth
			next--
		}
		free = 2 * used
	}
}

// canonical makes the codes of these lengths (RFC 1951 section 3.2.2).
func canonical(codes []codeword, lengths []uint8) {
	var number, next [16]uint16
	for _, l := range lengths {
		number[l&15]++
	}
	number[0] = 0
	for i := 1; i < len(next); i++ {
		next[i] = (next[i-1] + number[i-1]) << 1
	}
	for i, l := range lengths {
		codes[i] = 0
		if l > 0 {
			codes[i] = codeword(bits.Reverse16(next[l&15])>>(16-l&15))<<8 | codeword(l)
			next[l&15]++
		}
	}
}
