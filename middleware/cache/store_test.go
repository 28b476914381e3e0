package cache

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"gateway/internal/mallocs"
	"gateway/internal/unit"
)

// block is the head of an entry with nothing but a key.
func block(dst []byte, key uint64) []byte {
	dst = append(dst[:0], make([]byte, metaSize)...)
	dst = append(dst, "Gh\x00\x00\x00\x00\x00\x08"...)
	dst = binary.BigEndian.AppendUint64(dst, key)
	dst = append(dst, 0, 0, 0, 0)
	le.PutUint32(dst[atKeyLen:], uint32(len(dst)-metaSize))
	le.PutUint32(dst[atPrimaryLen:], uint32(len(dst)-metaSize))
	return dst
}

func openStore(t testing.TB, limit int64) *store {
	t.Helper()
	s, err := newStore(limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// trace plays keys against a store whose entries cost a fixed number of bytes,
// and counts hits.
func trace(t testing.TB, capacity int, keys []uint64) float64 {
	const size = 1024
	n := int64(capacity) * size
	// The overhead of a small store is not what is measured.
	s := openStore(t, n*100/97+4*max(n/64, leastSegment))
	head := block(nil, 0)
	body := [][]byte{make([]byte, size-slotSize-len(head))}
	hits := 0
	for _, k := range keys {
		head = block(head, k)
		key := (&Entry{blob: head}).key()
		hash := s.hash(key)
		e, found := s.lookup(hash, key, epoch, true)
		if found {
			hits++
			e.Release()
			continue
		}
		s.put(hash, head, body, epoch+1, epoch)
	}
	return 100 * float64(hits) / float64(len(keys))
}

// traces are made of a fixed seed: popular keys, popular keys with scans in
// between, loops that fit and that do not, and popularity that moves.
func traces(capacity, n int) map[string][]uint64 {
	zipf := func(exponent float64) func() uint64 {
		return rand.NewZipf(rand.New(rand.NewPCG(1, 2)), exponent, 1, uint64(20*capacity)).Uint64
	}
	all := make(map[string][]uint64)
	flat, steep := zipf(1.01), zipf(1.2)
	mixed, slow, fast := zipf(1.01), zipf(1.01), zipf(1.01)
	next := uint64(1 << 40)
	for i := range n {
		add := func(name string, key uint64) { all[name] = append(all[name], key) }
		add("zipf 1.01", flat())
		add("zipf 1.2", steep())
		add("loop 0.8", uint64(i%(capacity*8/10)))
		add("loop 1.5", uint64(i%(capacity*15/10)))
		add("shift 25", slow()+uint64(i/(25*capacity)*capacity))
		add("shift 9", fast()+uint64(i/(9*capacity)*capacity))
		if i/capacity%3 < 2 {
			add("scan", mixed())
		} else {
			add("scan", next)
			next++
		}
	}
	return all
}

// lru is what a list by last use would hit.
func lru(capacity int, keys []uint64) float64 {
	last := make(map[uint64]int) // key to time
	queue := make(map[int]uint64)
	oldest, hits := 0, 0
	for now, k := range keys {
		if at, found := last[k]; found {
			hits++
			delete(queue, at)
		} else if len(last) == capacity {
			for {
				if victim, found := queue[oldest]; found {
					delete(queue, oldest)
					delete(last, victim)
					break
				}
				oldest++
			}
		}
		last[k], queue[now] = now, k
	}
	return 100 * float64(hits) / float64(len(keys))
}

// optimum is what Belady's algorithm would hit, which knows the future: it
// throws out what is needed last, or does not keep it.
func optimum(capacity int, keys []uint64) float64 {
	next := make([]int, len(keys))
	seen := make(map[uint64]int)
	for i := len(keys) - 1; i >= 0; i-- {
		next[i] = len(keys) + int(keys[i]%1024) // never again
		if at, found := seen[keys[i]]; found {
			next[i] = at
		}
		seen[keys[i]] = i
	}
	due := make(map[uint64]int)
	heap := []struct {
		at  int
		key uint64
	}{}
	push := func(at int, key uint64) {
		heap = append(heap, struct {
			at  int
			key uint64
		}{at, key})
		for i := len(heap) - 1; i > 0 && heap[(i-1)/2].at < heap[i].at; i = (i - 1) / 2 {
			heap[(i-1)/2], heap[i] = heap[i], heap[(i-1)/2]
		}
	}
	pop := func() (at int, key uint64) {
		top := heap[0]
		n := len(heap) - 1
		heap[0] = heap[n]
		heap = heap[:n]
		for i := 0; ; {
			c := 2*i + 1
			if c+1 < n && heap[c+1].at > heap[c].at {
				c++
			}
			if c >= n || heap[i].at >= heap[c].at {
				break
			}
			heap[i], heap[c] = heap[c], heap[i]
			i = c
		}
		return top.at, top.key
	}
	hits := 0
	for i, k := range keys {
		if _, found := due[k]; found {
			hits++
		}
		due[k] = next[i]
		push(next[i], k)
		for len(due) > capacity {
			if at, victim := pop(); due[victim] == at {
				delete(due, victim)
			}
		}
	}
	return 100 * float64(hits) / float64(len(keys))
}

// The ratios are in the package's documentation. They are deterministic but for
// the hash's seed.
func TestHitRatioAgainstLRUAndOptimum(t *testing.T) {
	const capacity = 4000
	n := 200_000
	if testing.Short() || mallocs.Race {
		n = 40_000
	}
	for name, keys := range traces(capacity, n) {
		got, least, best := trace(t, capacity, keys), lru(capacity, keys), optimum(capacity, keys)
		t.Logf("%-10s store %5.1f %%  LRU %5.1f %%  optimum %5.1f %%", name, got, least, best)
		if got < least-2 {
			t.Errorf("%s: %.1f %% is worse than LRU's %.1f %%", name, got, least)
		}
		if name == "scan" && n == 200_000 && got < least+2 || name == "loop 1.5" && got < 30 {
			t.Errorf("%s: %.1f %%", name, got)
		}
	}
}

func TestStoreKeepsWhatFits(t *testing.T) {
	s := openStore(t, 1<<20)
	head := block(nil, 0)
	check := func(k uint64, size int, want bool) {
		t.Helper()
		head = block(head, k)
		key := (&Entry{blob: head}).key()
		e, found := s.lookup(s.hash(key), key, epoch, true)
		if found != want {
			t.Fatalf("key %d: found is %v", k, found)
		}
		if found {
			b := e.blob[len(head):]
			if len(b) != size {
				t.Fatalf("key %d: %d bytes, want %d", k, len(b), size)
			}
			for i, c := range b {
				if c != byte(k+uint64(i)) {
					t.Fatalf("key %d: byte %d is %d", k, i, c)
				}
			}
			e.Release()
		}
	}
	put := func(k uint64, size int) bool {
		head = block(head, k)
		body := make([]byte, size)
		for i := range body {
			body[i] = byte(k + uint64(i))
		}
		return s.put(s.hash((&Entry{blob: head}).key()), head, [][]byte{body[:size/2], body[size/2:]}, epoch+1, epoch)
	}
	for k := range uint64(100) {
		if !put(k, int(k*50)) {
			t.Fatal(k)
		}
	}
	for k := range uint64(100) {
		check(k, int(k*50), true)
	}
	put(7, 3) // replaced
	check(7, 3, true)
	if put(1000, 1<<20) {
		t.Error("an entry as large as the store was stored")
	}
	check(1000, 0, false)
	if !s.removeKey(s.hash((&Entry{blob: block(nil, 8)}).key()), (&Entry{blob: block(nil, 8)}).key(), EvictedPurged) {
		t.Error("8 was not there")
	}
	check(8, 0, false)
	stats := s.stats()
	if stats.Entries != 99 || stats.Evictions[EvictedReplaced] != 1 || stats.Evictions[EvictedPurged] != 1 {
		t.Errorf("%+v", stats)
	}
	// What nobody needs any more is not found.
	head = block(head, 9)
	key := (&Entry{blob: head}).key()
	if _, found := s.lookup(s.hash(key), key, epoch+1, true); found {
		t.Error("a dead entry was found")
	}
	if n := s.stats().Evictions[EvictedExpired]; n != 1 {
		t.Error(n)
	}
}

// Fresh memory is filled by the system, or copied to where that is not allowed
// or not worth it: with the same bytes.
func TestFreshMemoryHoldsWhatIsStored(t *testing.T) {
	f := func(pid, size, pieces int) {
		t.Helper()
		defer func(p int) { process = p }(process)
		process = pid
		s := openStore(t, 16<<20)
		for k := range uint64(30) { // fills segments
			head := block(nil, k)
			var body [][]byte
			for i := range pieces {
				body = append(body, bytes.Repeat([]byte{byte(k) + byte(i)}, size/pieces))
			}
			key := (&Entry{blob: head}).key()
			if !s.put(s.hash(key), head, body, epoch+1, epoch) {
				t.Fatal("refused")
			}
			e, found := s.lookup(s.hash(key), key, epoch, true)
			if want := append(head, bytes.Join(body, nil)...); !found || !bytes.Equal(e.blob, want) {
				t.Fatalf("process %d, %d bytes in %d pieces: entry %d is another one", pid, size, pieces, k)
			}
			e.Release()
		}
	}
	for _, pid := range []int{process, -1} {
		for _, pieces := range []int{1, 2, maxPieces, maxPieces + 1} {
			for _, size := range []int{100, leastFill - 200, leastFill, 31_000, 100_000} {
				f(pid, size, pieces)
			}
		}
	}
	var to, head [1]byte
	from, at := unix.Iovec{Base: &head[0], Len: 1}, unix.RemoteIovec{Base: uintptr(unsafe.Pointer(&to[0])), Len: 1}
	if _, err := unix.ProcessVMWritev(process, []unix.Iovec{from}, []unix.RemoteIovec{at}, 0); err == unix.EPERM || err == unix.ENOSYS {
		t.Skip("process_vm_writev is forbidden here")
	}
	for _, size := range []int{leastFill, shortFill, shortFill + 1} {
		to, head := make([]byte, size), bytes.Repeat([]byte("x"), size)
		if !fill(to, head, nil) || !bytes.Equal(to, head) {
			t.Errorf("the system copied nothing of %d bytes", size)
		}
	}
}

// Every entry that is found is intact, whatever is written, removed and read at
// the same time, and the bytes stay within the limit.
func TestStoreUnderLoad(t *testing.T) {
	const limit = 4 << 20
	s := openStore(t, limit)
	var work sync.WaitGroup
	until := time.Now().Add(time.Second)
	for g := range 4 {
		work.Add(1)
		go func() {
			defer work.Done()
			r := rand.New(rand.NewPCG(uint64(g), 7))
			var head []byte
			var held []Entry
			var keys []uint64
			verify := func(e *Entry, k uint64) {
				for i, c := range e.blob[metaSize+20:] {
					if c != byte(k) {
						t.Errorf("key %d: byte %d is %d", k, i, c)
						return
					}
				}
			}
			for n := 0; time.Now().Before(until); n++ {
				k := r.Uint64N(3000)
				head = block(head, k)
				key := (&Entry{blob: head}).key()
				hash := s.hash(key)
				switch r.IntN(10) {
				case 0:
					s.removeKey(hash, key, EvictedPurged)
				case 1, 2, 3:
					size := r.IntN(2000)
					if r.IntN(50) == 0 {
						size = r.IntN(200_000)
					}
					body := make([]byte, size)
					for i := range body {
						body[i] = byte(k)
					}
					s.put(hash, head, [][]byte{body}, epoch+1, epoch)
				default:
					if e, found := s.lookup(hash, key, epoch, true); found {
						held, keys = append(held, e), append(keys, k)
					}
				}
				if len(held) > 20 {
					for i := range held {
						if e := held[i]; len(e.blob) > len(head) {
							tail := Entry{blob: append(make([]byte, metaSize+20), e.blob[len(head):]...)}
							verify(&tail, keys[i])
						}
						held[i].Release()
					}
					held, keys = held[:0], keys[:0]
				}
				if n%100 == 0 {
					if stats := s.stats(); stats.Bytes > limit {
						t.Errorf("%d bytes of %d", stats.Bytes, limit)
						return
					}
				}
			}
			for i := range held {
				held[i].Release()
			}
		}()
	}
	work.Wait()
	count := int64(0)
	s.each(func(Entry) fate { count++; return keep })
	if stats := s.stats(); stats.Entries != count {
		t.Errorf("%d entries, %d counted", stats.Entries, count)
	}
	s.each(func(Entry) fate { return remove })
	if stats := s.stats(); stats.Entries != 0 {
		t.Errorf("%d entries left", stats.Entries)
	}
}

func TestReadersKeepTheirBytes(t *testing.T) {
	s := openStore(t, 1<<20)
	head := block(nil, 1)
	key := (&Entry{blob: head}).key()
	s.put(s.hash(key), head, [][]byte{[]byte("still here")}, epoch+1, epoch)
	e, _ := s.lookup(s.hash(key), key, epoch, true)
	other := []byte(nil)
	body := [][]byte{make([]byte, 1000)}
	for k := range uint64(5000) {
		other = block(other, k+2)
		s.put(s.hash((&Entry{blob: other}).key()), other, body, epoch+1, epoch)
	}
	if got := string(e.blob[len(head):]); got != "still here" {
		t.Errorf("%q", got)
	}
	e.Release()
	if s.stats().Bytes > 1<<20 {
		t.Error(s.stats())
	}
	// Readers of everything: what is new finds no room, and nothing breaks.
	var held []Entry
	s.each(func(Entry) fate { return remove })
	refused := false
	for k := uint64(0); k < 5000 && !refused; k++ {
		other = block(other, k)
		key := (&Entry{blob: other}).key()
		if refused = !s.put(s.hash(key), other, body, epoch+1, epoch); !refused {
			if e, found := s.lookup(s.hash(key), key, epoch, true); found {
				held = append(held, e)
			}
		}
	}
	if !refused || s.stats().Bytes > 1<<20 {
		t.Errorf("refused is %v: %+v", refused, s.stats())
	}
	for i := range held {
		held[i].Release()
	}
	other = block(other, 9999)
	if !s.put(s.hash((&Entry{blob: other}).key()), other, body, epoch+1, epoch) {
		t.Error("no room although all readers have gone")
	}
}

// resident is the process's resident memory in bytes.
func resident(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skip(err)
	}
	n, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n * int64(os.Getpagesize())
}

func TestProcessGrowsByNoMoreThanTheLimit(t *testing.T) {
	if mallocs.Race {
		t.Skip("the race detector takes memory of its own")
	}
	runtime.GC()
	before := resident(t)
	const limit = 64 * unit.MiB
	c := newCache(t, func(o *Options) { o.Memory = limit })
	y := &play{TB: t, c: c, p: policy(), now: epoch}
	body := make([]byte, 300<<10)
	answer := fields(t, "Cache-Control: max-age=60", "Content-Type: text/html", `ETag: "abcdef"`, "Surrogate-Key: a b c")
	r := rand.New(rand.NewPCG(1, 1))
	q := ask(t, "GET /")
	var query []byte
	for i := range 200_000 {
		query = strconv.AppendInt(append(query[:0], "q="...), int64(i), 10)
		u := URL{Host: q.Host, Path: q.Path, Query: query}
		if c.Lookup(&y.l, y.p, q, &u, nil, y.now) != Miss {
			t.Fatal("hit")
		}
		_, f, _ := c.Begin(&y.l, q, y.now, true)
		size := r.IntN(2000)
		switch r.IntN(1000) {
		case 0:
			size = len(body)
		case 1, 2, 3, 4:
			size *= 30
		}
		f.Whole(&Origin{Status: 200, Header: answer, Requested: y.now, Received: y.now}, body[:size])
	}
	grown := resident(t) - before
	t.Logf("grown by %d MiB, limit %d MiB, %+v", grown>>20, limit>>20, c.Stats())
	if stats := c.Stats(); stats.Bytes > int64(limit) || grown > int64(limit)*110/100+32<<20 {
		t.Errorf("grown by %d bytes, %+v", grown, stats)
	}
}

func TestAMillionEntries(t *testing.T) {
	if testing.Short() || mallocs.Race {
		t.Skip("takes seconds")
	}
	s := openStore(t, 400<<20)
	body := [][]byte{make([]byte, 100)}
	head := []byte(nil)
	const n = 1_000_000
	for k := range uint64(n) {
		head = block(head, k)
		s.put(s.hash((&Entry{blob: head}).key()), head, body, epoch+1, epoch)
	}
	if stats := s.stats(); stats.Entries != n {
		t.Fatalf("%+v", stats)
	}
	// The collector has nothing to do with them.
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	runtime.GC()
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	t.Logf("a collection takes %v, %d KiB of heap", took, after.HeapAlloc>>10)
	if after.HeapAlloc > 32<<20 {
		t.Errorf("%d bytes of heap", after.HeapAlloc)
	}
	start = time.Now()
	seen := 0
	s.each(func(Entry) fate { seen++; return keep })
	t.Logf("a walk over %d takes %v", seen, time.Since(start))
}

func TestRegion(t *testing.T) {
	r, err := newRegion(10 * pageSize)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.close(); err != nil {
			t.Error(err)
		}
	}()
	take := func(n int64) int64 {
		t.Helper()
		at, ok := r.take(n * pageSize)
		if !ok {
			t.Fatal("no room")
		}
		r.memory[at] = 1
		return at
	}
	a, b, c := take(3), take(3), take(4)
	if _, ok := r.take(pageSize); ok {
		t.Error("more than there is")
	}
	r.give(b, 3*pageSize)
	if d := take(2); d != b || r.memory[d+pageSize] != 0 {
		t.Error("the gap was not used")
	}
	r.give(b, 2*pageSize)
	r.give(c, 4*pageSize)
	r.give(a, 3*pageSize)
	if len(r.free) != 1 || r.free[0] != (extent{0, 10 * pageSize}) {
		t.Errorf("%v", r.free)
	}
}

func BenchmarkLookup(b *testing.B) {
	s := openStore(b, 64<<20)
	var heads [][]byte
	for k := range uint64(10_000) {
		head := block(nil, k)
		heads = append(heads, head)
		s.put(s.hash((&Entry{blob: head}).key()), head, [][]byte{make([]byte, 1024)}, epoch+1, epoch)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		i := rand.IntN(len(heads))
		for pb.Next() {
			i = (i + 7919) % len(heads)
			key := (&Entry{blob: heads[i]}).key()
			e, _ := s.lookup(s.hash(key), key, epoch, true)
			e.Release()
		}
	})
}

func ExampleStats() {
	fmt.Println(EvictedForSpace, EvictedExpired, EvictedPurged, EvictedReplaced, EvictionRefused)
	// Output: space expired purged replaced refused
}
