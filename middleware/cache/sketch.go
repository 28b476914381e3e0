package cache

// sketch estimates how often keys were asked for lately, with counters of four
// bits, four for each key (TinyLFU: Einziger, Friedman, Manes, 2017), which lie in
// one cache line (as in Caffeine). After some times as many questions as there are entries all counters are halved: what was
// popular once is forgotten.
type sketch struct {
	words []uint64 // a power of two of them, at least a block, sixteen counters each
	asked int64
}

// memory is how many questions for each entry are remembered.
const memory = 10

// note counts a question in a shard with so many entries.
func (s *sketch) note(hash uint64, entries int64) {
	for i := range uint64(4) {
		if word, shift := s.place(hash, i); *word>>shift&15 < 15 {
			*word += 1 << shift
		}
	}
	if s.asked++; s.asked >= memory*max(entries, 64) {
		s.age()
	}
}

// estimate is how often, 0 to 15, a key was asked for.
func (s *sketch) estimate(hash uint64) uint64 {
	least := uint64(15)
	for i := range uint64(4) {
		word, shift := s.place(hash, i)
		least = min(least, *word>>shift&15)
	}
	return least
}

// blockWords is how many words are a cache line.
const blockWords = 8

// place is the i-th counter of a key: each in one of two words of its block.
func (s *sketch) place(hash, i uint64) (word *uint64, shift uint64) {
	h := hash * 0xC2B2AE3D27D4EB4F
	h ^= h >> 29
	block := h >> 32 * blockWords & uint64(len(s.words)-1)
	h >>= 8 * i // of the lower half
	return &s.words[block+2*i+h>>4&1], h & 15 << 2
}

func (s *sketch) age() {
	for i, w := range s.words {
		s.words[i] = w >> 1 & 0x7777777777777777
	}
	s.asked /= 2
}
