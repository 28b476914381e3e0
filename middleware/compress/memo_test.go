package compress

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"runtime"
	"sync"
	"testing"

	"gateway/internal/mallocs"
)

// coded codes a body and checks what became of it.
func coded(t testing.TB, e *Engine, s Space, c Coding, level, steps int, body []byte) []byte {
	t.Helper()
	b := e.Encode(s, c, level, steps, body)
	if b == nil {
		t.Fatalf("%v: %d bytes are not smaller", c, len(body))
	}
	defer b.Release()
	out := bytes.Clone(b.Bytes())
	d := e.Decoder(c, out, nil, Limits{Bytes: 1 << 30, Ratio: 1 << 20}, 100)
	defer d.Release()
	var plain []byte
	for {
		piece, err := d.Next()
		if plain = append(plain, piece...); err != nil {
			break
		}
	}
	if !bytes.Equal(plain, body) {
		t.Fatalf("%v: another body of %d bytes", c, len(plain))
	}
	return out
}

func TestBodiesThatComeAgainAreCodedOnce(t *testing.T) {
	for _, c := range codings {
		e := newEngine()
		s, body := e.Space("api"), userList(30<<10)
		for i := range 6 {
			coded(t, e, s, c, 3, 0, body)
			if got, want := e.memoHits[c].Value(), uint64(max(0, i-2)); got != want {
				t.Errorf("%v: %d hits after %d times, want %d", c, got, i+1, want)
			}
			coded(t, e, s, c, 3, 0, append([]byte{byte(i)}, body...)) // never the same
		}
		if got := e.responses[c].Value(); got != 12 {
			t.Errorf("%v: %d responses are counted as coded, want 12", c, got)
		}
	}
}

// What a glance does not see makes another body all the same.
func TestEachByteOfABodyCounts(t *testing.T) {
	e := newEngine()
	s := e.Space("api")
	body := userList(30 << 10)
	for range 5 {
		coded(t, e, s, Gzip, 1, 0, body)
	}
	hits := e.memoHits[Gzip].Value()
	for at := 0; at < len(body); at += 997 {
		other := bytes.Clone(body)
		other[at] ^= 1
		coded(t, e, s, Gzip, 1, 0, other)
	}
	if got := e.memoHits[Gzip].Value(); got != hits {
		t.Errorf("%d bodies that differ in one byte were taken for another", got-hits)
	}
}

func TestFormsAreOfOneSpaceCodingAndLevel(t *testing.T) {
	e := newEngine()
	body := userList(8 << 10)
	for range 4 {
		coded(t, e, e.Space("one"), Gzip, 1, 0, body)
	}
	hits := e.memoHits[Gzip].Value() + e.memoHits[Deflate].Value()
	coded(t, e, e.Space("two"), Gzip, 1, 0, body)
	coded(t, e, e.Space("one"), Gzip, 9, 0, body)
	coded(t, e, e.Space("one"), Deflate, 1, 0, body)
	if got := e.memoHits[Gzip].Value() + e.memoHits[Deflate].Value(); hits != 1 || got != hits {
		t.Errorf("%d hits of the first, want 1; %d of others, want 0", hits, got-hits)
	}
	for range 6 {
		coded(t, e, NoSpace, Brotli, 1, 0, body)
	}
	if got := e.memoHits[Brotli].Value(); got != 0 {
		t.Errorf("%d hits without a space", got)
	}
}

// What is kept is as small as configured, however busy the process is.
func TestFormsThatAreKeptAreNotLowered(t *testing.T) {
	e := newEngine()
	s := e.Space("api")
	body := userList(30 << 10)
	want := coded(t, e, NoSpace, Gzip, 9, 0, body)
	var got []byte
	for range 4 {
		got = coded(t, e, s, Gzip, 9, 2, body)
	}
	if e.memoHits[Gzip].Value() != 1 || !bytes.Equal(got, want) {
		t.Errorf("%d hits, %d bytes, want 1 and %d", e.memoHits[Gzip].Value(), len(got), len(want))
	}
}

func TestThatABodyGrowsIsRemembered(t *testing.T) {
	e := newEngine()
	body := noise(10 << 10)
	for range 5 {
		if b := e.Encode(e.Space("api"), Zstd, 3, 0, body); b != nil {
			t.Fatalf("noise became %d bytes", len(b.Bytes()))
		}
	}
	if got := e.memoHits[Zstd].Value(); got != 2 {
		t.Errorf("%d hits, want 2", got)
	}
}

// The memory is bounded, and what is asked for stays.
func TestMemoIsBounded(t *testing.T) {
	m := newMemo()
	if m == nil {
		t.Skip("no memo on this processor")
	}
	body := userList(200 << 10)
	keep := func(d digest, size int) { m.keep(d, body[:size]) }
	random := func() (d digest) {
		rand.Read(d[:])
		return d
	}
	there := func(d digest) *form {
		for i := range memoWays {
			if f := m.way(&d, i).Load(); f != nil && f.of == d {
				return f
			}
		}
		return nil
	}
	loved := random()
	keep(loved, 1000)
	for i := range 3 * memoSlots {
		if f := there(loved); f != nil {
			f.used.Store(true)
		}
		keep(random(), i%(200<<10))
		if m.size() > memoLimit {
			t.Fatalf("%d bytes are kept, at most %d are allowed", m.size(), memoLimit)
		}
	}
	if there(loved) == nil {
		t.Error("what was used all the time is gone")
	}
	var sum int64
	for i := range m.forms {
		if f := m.forms[i].Load(); f != nil {
			sum += f.cost()
		}
	}
	if sum != m.size() || sum < memoLimit/2 {
		t.Errorf("%d bytes are there, %d are counted, %d are allowed", sum, m.size(), memoLimit)
	}
}

func TestManyAskTheMemoAtOnce(t *testing.T) {
	e := newEngine()
	s := e.Space("api")
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := range 200 {
				body := userList(2000)
				binary.LittleEndian.PutUint32(body[1000:], uint32((i+g)%5))
				if b := e.Encode(s, Zstd, 1, 0, body); b != nil {
					d := e.Decoder(Zstd, b.Bytes(), nil, Limits{Bytes: 1 << 20, Ratio: 1 << 20}, 100)
					if plain, _ := d.Next(); !bytes.Equal(plain, body) {
						t.Errorf("another body of %d bytes", len(plain))
					}
					d.Release()
					b.Release()
				}
			}
		})
	}
	all.Wait()
	if e.memoHits[Zstd].Value() == 0 {
		t.Error("no hit at all")
	}
}

// Without the processor's help there is no memo; everything else goes on.
func TestEncodingWithoutAMemo(t *testing.T) {
	e := newEngine()
	e.memo = nil
	for range 5 {
		coded(t, e, e.Space("api"), Gzip, 1, 0, userList(3000))
	}
	if e.memoHits[Gzip].Value() != 0 || e.memo.size() != 0 {
		t.Error("something was kept")
	}
}

func TestMemoAllocatesNothing(t *testing.T) {
	e := newEngine()
	s := e.Space("api")
	again, body := userList(30<<10), userList(30<<10)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	i := uint64(0)
	mallocs.None(t, "a body that comes again, and one that never does", 10_000, func() {
		e.Encode(s, Zstd, 1, 0, again).Release()
		i++
		binary.LittleEndian.PutUint64(body[20_000:], i)
		e.Encode(s, Zstd, 1, 0, body).Release()
	})
	if e.memoHits[Zstd].Value() < 10_000 {
		t.Errorf("%d hits", e.memoHits[Zstd].Value())
	}
}

func BenchmarkMemo(b *testing.B) {
	e := newEngine()
	s := e.Space("api")
	body := userList(30 << 10)
	b.Run("again", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			e.Encode(s, Gzip, 1, 0, body).Release()
		}
	})
	for name, at := range map[string]int{"new, seen at a glance": 0, "new, hashed": 20_000} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for i := uint64(0); b.Loop(); i++ {
				binary.LittleEndian.PutUint64(body[at:], i)
				e.Encode(s, Gzip, 1, 0, body).Release()
			}
		})
	}
	b.Run("without", func(b *testing.B) {
		for b.Loop() {
			e.Encode(NoSpace, Gzip, 1, 0, body).Release()
		}
	})
}
