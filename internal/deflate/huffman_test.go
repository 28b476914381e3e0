package deflate

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// huffman is the cost of an optimal code, and its longest, by the book: the two
// rarest become one until one is left.
func huffman(counts []uint16) (cost, longest int) {
	type node struct{ count, depth int }
	var nodes []node
	for _, c := range counts {
		if c > 0 {
			nodes = append(nodes, node{count: int(c)})
		}
	}
	for len(nodes) > 1 {
		slices.SortStableFunc(nodes, func(a, b node) int {
			if a.count != b.count {
				return a.count - b.count
			}
			return a.depth - b.depth
		})
		a, b := nodes[0], nodes[1]
		cost += a.count + b.count
		nodes = append(nodes[2:], node{a.count + b.count, max(a.depth, b.depth) + 1})
	}
	return cost, nodes[0].depth
}

func TestOptimal(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	shallow := 0
	for range 3000 {
		symbols := 2 + r.IntN(symbols-1)
		limit := 12
		if symbols <= 19 {
			limit = 7
		}
		counts := make([]uint16, symbols)
		steep := 1 + r.IntN(14)
		total := 0
		for i := range counts {
			switch r.IntN(4) {
			case 0:
				counts[i] = uint16(r.IntN(3))
			case 1:
				counts[i] = uint16(1 << r.IntN(steep))
			case 2:
				counts[i] = uint16(r.IntN(300))
			}
			if total += int(counts[i]); total > 65000 {
				total -= int(counts[i])
				counts[i] = 0
			}
		}
		counts[0], counts[1] = max(counts[0], 1), max(counts[1], 1)
		lengths := make([]uint8, symbols)
		optimal(lengths, counts, limit)
		used, cost := 0, 0
		for i, l := range lengths {
			if (l > 0) != (counts[i] > 0) || int(l) > limit {
				t.Fatalf("symbol %d occurs %d times and has %d bits, at most %d", i, counts[i], l, limit)
			}
			if l > 0 {
				used += 1 << (limit - int(l))
			}
			cost += int(l) * int(counts[i])
		}
		if used != 1<<limit {
			t.Fatalf("codes take %d of %d places", used, 1<<limit)
		}
		want, longest := huffman(counts)
		switch {
		case longest <= limit:
			shallow++
			if cost != want {
				t.Fatalf("%v: %d bits, want %d", counts, cost, want)
			}
		case cost < want || cost > want*11/10:
			t.Fatalf("%v: %d bits with a limit of %d, %d without", counts, cost, limit, want)
		}
	}
	if shallow < 500 || shallow > 2900 {
		t.Errorf("%d of 3000 codes were within the limit: the test should have both kinds", shallow)
	}
}

// TestOptimalOfFew: decoders want two codes at least.
func TestOptimalOfFew(t *testing.T) {
	for used := range 2 {
		for symbol := range 5 {
			counts := make([]uint16, 5)
			counts[symbol] = uint16(used)
			lengths := make([]uint8, 5)
			optimal(lengths, counts, 7)
			codes := 0
			for _, l := range lengths {
				if l > 1 {
					t.Errorf("a code has %d bits, want 1", l)
				}
				codes += int(l)
			}
			if codes != 2 || used == 1 && lengths[symbol] != 1 {
				t.Errorf("symbol %d, %d times: lengths %v", symbol, used, lengths)
			}
		}
	}
}

// TestDeepest has the counts that make the deepest tree: Fibonacci's numbers.
func TestDeepest(t *testing.T) {
	var counts [symbols]uint16
	total := 0
	for i, a, b := 0, 1, 1; total+a < 65536; i, a, b = i+1, b, a+b {
		counts[i] = uint16(a)
		total += a
	}
	if _, longest := huffman(counts[:]); longest > maxDepth || longest < maxCode {
		t.Errorf("the tree is %d deep, want up to %d, and more than %d", longest, maxDepth, maxCode)
	}
	var lengths [symbols]uint8
	optimal(lengths[:], counts[:], maxCode)
	used := 0
	for _, l := range lengths {
		if l > 0 {
			used += 1 << (maxCode - l)
		}
	}
	if used != 1<<maxCode {
		t.Errorf("codes take %d of %d places", used, 1<<maxCode)
	}
}
