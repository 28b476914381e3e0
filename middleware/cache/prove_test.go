//go:build prove

package cache

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"

	"math/rand/v2"
	"testing"

	"github.com/maypok86/otter/v2"
)

// TestProveCache prints what decided the choice of the store: hit ratios on
// traces, and what a million entries cost. Its figures are for people, see
// docs/decisions/0007-cache-store.md; nothing here fails.
//
//	go test -tags prove -run TestProveCache -count=1 -v ./middleware/cache
func TestProveCache(t *testing.T) {
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Println("Hits in percent of requests; entries of one size.")
	for _, capacity := range []int{1000, 4000, 16000} {
		all := traces(capacity, 50*capacity)
		fmt.Fprintf(out, "room for %d\tstore\totter\tLRU\toptimum\t\n", capacity)
		var names []string
		for name := range all {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			keys := all[name]
			fmt.Fprintf(out, "%s\t%.1f\t%.1f\t%.1f\t%.1f\t\n", name,
				trace(t, capacity, keys), library(capacity, keys), lru(capacity, keys), optimum(capacity, keys))
		}
	}
	out.Flush()

	const entries, size, limit = 1_000_000, 200, 384 << 20
	fmt.Printf("\n%d entries of about %d bytes, limit %d MiB.\n", entries, size, limit>>20)
	fmt.Fprintln(out, "\tkept\tprocess grew by\theap\tobjects\tcollection\t")
	cost := func(name string, fill func() (kept int, done func())) {
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		grown := resident(t)
		kept, done := fill()
		grown = resident(t) - grown
		runtime.GC()
		begun := time.Now()
		runtime.GC()
		took := time.Since(begun)
		runtime.ReadMemStats(&after)
		fmt.Fprintf(out, "%s\t%d\t%d MiB\t%d MiB\t%d\t%v\t\n", name, kept, grown>>20,
			(int64(after.HeapAlloc)-int64(before.HeapAlloc))>>20, int64(after.HeapObjects)-int64(before.HeapObjects), took.Round(10*time.Microsecond))
		done()
	}
	cost("store", func() (int, func()) {
		s, err := newStore(limit)
		if err != nil {
			t.Fatal(err)
		}
		var head []byte
		body := [][]byte{make([]byte, size-slotSize)}
		for k := range uint64(entries) {
			head = block(head, k)
			s.put(s.hash((&Entry{blob: head}).key()), head, body, epoch+1, epoch)
		}
		return int(s.stats().Entries), func() { _ = s.close() }
	})
	cost("otter", func() (int, func()) {
		c := otter.Must(&otter.Options[string, []byte]{
			MaximumWeight: limit,
			Weigher:       func(key string, value []byte) uint32 { return uint32(len(key) + len(value)) },
		})
		var head []byte
		for k := range uint64(entries) {
			head = block(head, k)
			key := string((&Entry{blob: head}).key())
			c.Set(key, append(slices.Clone(head), make([]byte, size-slotSize)...))
		}
		c.CleanUp()
		return c.EstimatedSize(), func() { runtime.KeepAlive(c) }
	})
	out.Flush()

	fmt.Println("\nLookups that hit, on all CPUs, interleaved: ns each.")
	const popular = 10_000
	s := openStore(t, 64<<20)
	c := otter.Must(&otter.Options[string, []byte]{MaximumSize: 2 * popular})
	var keys [][]byte
	for k := range uint64(popular) {
		head := block(nil, k)
		key := (&Entry{blob: head}).key()
		keys = append(keys, key)
		s.put(s.hash(key), head, [][]byte{make([]byte, 1024)}, epoch+1, epoch)
		c.Set(string(key), make([]byte, 1024))
	}
	ours := func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for i := rand.IntN(popular); pb.Next(); i = (i + 7919) % popular {
				e, _ := s.lookup(s.hash(keys[i]), keys[i], epoch, true)
				e.Release()
			}
		})
	}
	theirs := func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for i := rand.IntN(popular); pb.Next(); i = (i + 7919) % popular {
				_, _ = c.GetIfPresent(string(keys[i]))
			}
		})
	}
	for range 3 {
		a, b := testing.Benchmark(ours), testing.Benchmark(theirs)
		fmt.Printf("store %d, %d allocations; otter %d, %d allocations\n", a.NsPerOp(), a.AllocsPerOp(), b.NsPerOp(), b.AllocsPerOp())
	}
}

// library plays keys against otter.
func library(capacity int, keys []uint64) float64 {
	c := otter.Must(&otter.Options[uint64, struct{}]{
		MaximumSize: capacity,
		Executor:    func(f func()) { f() }, // at once, as the traces want it
	})
	hits := 0
	for _, k := range keys {
		if _, found := c.GetIfPresent(k); found {
			hits++
		} else {
			c.Set(k, struct{}{})
			c.CleanUp()
		}
	}
	return 100 * float64(hits) / float64(len(keys))
}
