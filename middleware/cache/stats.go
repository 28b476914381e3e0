package cache

import "sync/atomic"

// Stats are numbers of a store. Entries and Bytes are levels, the others grow.
type Stats struct {
	Entries   int64 // responses and lists of variants
	Bytes     int64 // of memory in use, overhead included
	Capacity  int64 // bytes that may be used
	Evictions [EvictionCauses]uint64
}

// EvictionCause is why an entry is gone.
type EvictionCause uint8

const (
	EvictedForSpace EvictionCause = iota // others are asked for more often
	EvictedExpired                       // it was of no use any more
	EvictedPurged                        // somebody asked for it, or changed it at the origin
	EvictedReplaced                      // a newer one took its place
	EvictionRefused                      // it was never stored: its memory was in use by readers
	EvictionCauses                       // number of values above
)

// String is the cause's name in metrics.
func (c EvictionCause) String() string {
	return [EvictionCauses]string{"space", "expired", "purged", "replaced", "refused"}[c]
}

// counts are numbers of the Redis tier, whichever it is; they grow.
type counts struct {
	tier   [tierResults]atomic.Uint64
	writes [writeResults]atomic.Uint64
	purges [purgeWays]atomic.Uint64
}

// What became of writes to the tier.
const (
	writeStored  = iota
	writeDropped // the queue was full, or Redis was away
	writeFailed
	writeResults
)

// Which way purges went.
const (
	purgeSent = iota
	purgeReceived
	purgeMissed // and learned of afterwards
	purgeWays
)

// stats adds up the shards.
func (s *store) stats() (sum Stats) {
	for i := range s.shards {
		d := &s.shards[i]
		d.lock()
		sum.Entries += d.stats.Entries
		sum.Bytes += d.stats.Bytes
		sum.Capacity += d.stats.Capacity
		for c, n := range d.stats.Evictions {
			sum.Evictions[c] += n
		}
		d.unlock()
	}
	return sum
}
