package cache

// sketch estimates how often keys were asked for lately, with counters of four
// bits, four for each key (TinyLFU: Einziger, Friedman, Manes, 2017), which lie in
// one cache line (as in Caffeine). After some times as many questions as there are
// entries all counters are halved: what was popular once is forgotten. A block of
// them is halved when it is looked at next, so that nobody has to wait until that
// is done for a large table.
type sketch struct {
	words  []uint64 // a power of two of them, at least a block, sixteen counters each
	halved []uint16 // for each block the number of halvings, modulo 65536, that it has had
	age    uint16   // halvings so far, likewise
	asked  int64
}

// memory is how many questions for each entry are remembered.
const memory = 10

// note counts a question in a shard with so many entries.
func (s *sketch) note(hash uint64, entries int64) {
	block, h := s.block(hash)
	for i := range uint64(4) {
		if word, shift := place(block, h, i); *word>>shift&15 < 15 {
			*word += 1 << shift
		}
	}
	if s.asked++; s.asked >= memory*max(entries, 64) {
		s.age++
		s.asked /= 2
	}
}

// estimate is how often, 0 to 15, a key was asked for.
func (s *sketch) estimate(hash uint64) uint64 {
	least := uint64(15)
	block, h := s.block(hash)
	for i := range uint64(4) {
		word, shift := place(block, h, i)
		least = min(least, *word>>shift&15)
	}
	return least
}

// blockWords is how many words are a cache line.
const blockWords = 8

// block is where a key's counters are, halved as often as they have to be, and
// what tells which ones they are.
func (s *sketch) block(hash uint64) (block *[blockWords]uint64, h uint64) {
	h = hash * 0xC2B2AE3D27D4EB4F
	h ^= h >> 29
	at := h >> 32 * blockWords & uint64(len(s.words)-1)
	block = (*[blockWords]uint64)(s.words[at:])
	if halved := &s.halved[at/blockWords]; *halved != s.age {
		for range min(s.age-*halved, 4) { // then nothing is left
			for i, w := range block {
				block[i] = w >> 1 & 0x7777777777777777
			}
		}
		*halved = s.age
	}
	return block, h
}

// place is the i-th counter of a key: each in one of two words of its block.
func place(block *[blockWords]uint64, h, i uint64) (word *uint64, shift uint64) {
	h >>= 8 * i // of the lower half
	return &block[2*i+h>>4&1], h & 15 << 2
}
