package cache

import (
	"fmt"
	"math/rand/v2"
	"runtime/metrics"
	"slices"
	"sync"
	"testing"
	"time"
)

// BenchmarkFull is requests on all processors to a store that is full: half of them
// for keys that never come again, which are stored, so that something else has to
// go. It reports how long goroutines waited for locks, for each request, and how
// long a lookup took at worst: one in a thousand, and one in ten thousand.
func BenchmarkFull(b *testing.B) {
	for _, size := range []int{1_000, 30_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) { benchmarkFull(b, size) })
	}
}

func benchmarkFull(b *testing.B, size int) {
	s := openStore(b, 64<<20)
	room := uint64(64<<20) / uint64(size)
	body := [][]byte{make([]byte, size)}
	var mu sync.Mutex
	var took []time.Duration
	think := time.Duration(0)
	work := func(r *rand.Rand, next func() bool) {
		popular := rand.NewZipf(r, 1.01, 1, 20*room)
		var mine []time.Duration
		var head []byte
		for next() {
			for rest := time.Now(); think > 0 && time.Since(rest) < think; {
			}
			k := popular.Uint64()
			if r.IntN(2) == 0 {
				k = r.Uint64()
			}
			head = block(head, k)
			key := (&Entry{blob: head}).key()
			hash := s.hash(key)
			begun := time.Now()
			e, found := s.lookup(hash, key, epoch, true)
			mine = append(mine, time.Since(begun))
			if found {
				e.Release()
			} else {
				s.put(hash, head, body, epoch+1, epoch)
			}
		}
		mu.Lock()
		took = append(took, mine...)
		mu.Unlock()
	}
	n := uint64(0)
	work(rand.New(rand.NewPCG(1, 2)), func() bool { n++; return n < 3*room })
	took, think = nil, 20*time.Microsecond
	waits := func() float64 {
		m := []metrics.Sample{{Name: "/sync/mutex/wait/total:seconds"}}
		metrics.Read(m)
		return m[0].Value.Float64()
	}
	before := waits()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) { work(rand.New(rand.NewPCG(rand.Uint64(), 3)), pb.Next) })
	b.StopTimer()
	b.ReportMetric((waits()-before)*1e9/float64(b.N), "ns-waited/op")
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)-1-len(took)/1000])/1e3, "µs-lookup-p99.9")
	b.ReportMetric(float64(took[len(took)-1-len(took)/10000])/1e3, "µs-lookup-p99.99")
}
