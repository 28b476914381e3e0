package cache

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// Counters that are halved when they are looked at are those of a sketch that
// halves all of them at once.
func TestSketchForgetsAsIfAtOnce(t *testing.T) {
	const words, keys = 64 * blockWords, 300
	r := rand.New(rand.NewPCG(3, 5))
	lazy := sketch{words: make([]uint64, words), halved: make([]uint16, words/blockWords)}
	eager := sketch{words: make([]uint64, words), halved: make([]uint16, words/blockWords)}
	for i := range 200_000 {
		// A few are popular; the others are seen seldom enough to miss halvings.
		key := uint64(r.IntN(5))
		if r.IntN(2_000) == 0 {
			key = uint64(r.IntN(keys))
		}
		lazy.note(key, 1)
		before := eager.age
		if eager.note(key, 1); eager.age != before {
			for at := range eager.halved {
				block := (*[blockWords]uint64)(eager.words[at*blockWords:])
				for j, w := range block {
					block[j] = w >> 1 & 0x7777777777777777
				}
				eager.halved[at] = eager.age
			}
		}
		if got, want := lazy.estimate(key), eager.estimate(key); got != want {
			t.Fatalf("question %d for %d: estimate %d, want %d", i, key, got, want)
		}
	}
	for key := range uint64(keys) {
		lazy.estimate(key)
		if got, want := lazy.estimate(key), eager.estimate(key); got != want {
			t.Errorf("estimate of %d is %d, want %d", key, got, want)
		}
	}
	if !slices.Contains(eager.halved, eager.age) || lazy.asked != eager.asked {
		t.Errorf("the two have not lived alike")
	}
}
