package deflate

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	klauspost "github.com/klauspost/compress/flate"

	"gateway/internal/mallocs"
)

// inflate decodes with the standard library.
func inflate(t testing.TB, coded []byte) []byte {
	t.Helper()
	in := bytes.NewReader(coded)
	plain, err := io.ReadAll(flate.NewReader(in))
	if err != nil {
		t.Fatal(err)
	}
	if in.Len() > 0 {
		t.Fatalf("%d bytes follow the end", in.Len())
	}
	return plain
}

// longest is how long a body may become: every block stored, and the last one's
// bits.
func longest(n int) int { return n + 5*(n/blockSize+1) + 1 }

// check codes a body, behind other bytes, and decodes it again.
func check(t testing.TB, e *Encoder, body []byte) []byte {
	t.Helper()
	const before = "before"
	out := e.Append([]byte(before), body)
	coded, found := bytes.CutPrefix(out, []byte(before))
	if !found {
		t.Fatal("what was there before has changed")
	}
	if plain := inflate(t, coded); !bytes.Equal(plain, body) {
		t.Fatalf("%d bytes became %d others", len(body), len(plain))
	}
	if len(coded) > longest(len(body)) {
		t.Fatalf("%d bytes became %d, want at most %d", len(body), len(coded), longest(len(body)))
	}
	return coded
}

func noise(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// listing is n bytes of JSON as an API lists things, another one for each seed.
func listing(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(3, seed))
	words := strings.Fields("order shipped pending customer invoice north south express priority fragile returned warehouse payment accepted declined review gift blue large small")
	word := func() string { return words[r.IntN(len(words))] }
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, `{"id":%d,"uuid":"%08x-%04x-%012x","name":"%s %s","score":%d.%02d,"created_at":"2025-%02d-%02dT%02d:%02d:%02dZ","tags":["%s","%s"]},`,
			r.IntN(1e6), r.Uint32(), r.IntN(1<<16), r.Uint64N(1<<48), word(), word(), r.IntN(100), r.IntN(100),
			1+r.IntN(12), 1+r.IntN(28), r.IntN(24), r.IntN(60), r.IntN(60), word(), word())
	}
	return b.Bytes()[:n]
}

// texts are files of this project.
func texts(t testing.TB) map[string][]byte {
	files := map[string][]byte{}
	for _, pattern := range []string{"../../*.md", "../../docs/*.md", "../../wire/*.go", "../../config.toml"} {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: no files (%v)", pattern, err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			files[name] = text
		}
	}
	return files
}

func TestAppend(t *testing.T) {
	e := new(Encoder)
	for name, text := range texts(t) {
		t.Run(filepath.Base(name), func(t *testing.T) { check(t, e, text) })
	}
	for name, body := range map[string][]byte{
		"nothing":      nil,
		"zeros":        make([]byte, 256<<10),
		"one byte":     {'a'},
		"noise":        noise(256 << 10),
		"listing":      listing(256<<10, 0),
		"every byte":   bytes.Repeat(noise(256), 300),
		"noise twice":  bytes.Repeat(noise(window), 2),
		"too far":      bytes.Repeat(noise(window+1), 2),
		"65536 before": bytes.Repeat(noise(1<<16), 2),
		"few literals": []byte(strings.Repeat("abcdefgh", 10000)),
	} {
		t.Run(name, func(t *testing.T) { check(t, e, body) })
	}
}

// TestLengths codes bodies of all lengths around those that matter.
func TestLengths(t *testing.T) {
	e := new(Encoder)
	for _, body := range [][]byte{listing(3*blockSize, 0), noise(3 * blockSize), make([]byte, 3*blockSize)} {
		for _, around := range []int{0, maxMatch, blockSize, 2 * blockSize} {
			for n := max(around-40, 0); n <= around+40; n++ {
				check(t, e, body[:n])
			}
		}
	}
}

// TestMatches has matches of all lengths, at all kinds of distances.
func TestMatches(t *testing.T) {
	e := new(Encoder)
	unlike := noise(window + 1)
	for _, distance := range []int{1, 2, 3, 4, 5, 7, 8, 9, 255, 256, 257, 258, 4096, window - 300, window - 1, window, window + 1} {
		for length := 1; length <= 2*maxMatch+20; length += 1 + length/20 {
			body := bytes.Clone(unlike[:distance])
			for range length {
				body = append(body, body[len(body)-distance])
			}
			check(t, e, append(body, unlike[:20]...))
		}
	}
}

// TestWindow has what comes again at the largest distance, and beyond it.
func TestWindow(t *testing.T) {
	e := new(Encoder)
	phrase := noise(200)
	costs := func(distance int) int {
		body := make([]byte, distance+len(phrase)+margin)
		copy(body, phrase)
		once := len(check(t, e, body))
		copy(body[distance:], phrase)
		return len(check(t, e, body)) - once
	}
	if n := costs(window); n > 20 {
		t.Errorf("noise of %d bytes that came again within the window took %d", len(phrase), n)
	}
	if n := costs(window + 1); n < len(phrase) {
		t.Errorf("noise of %d bytes that came again beyond the window took %d: the test should tell them apart", len(phrase), n)
	}
}

// TestSameForSame: what was compressed before makes no difference, so that
// nobody learns of it by a length.
func TestSameForSame(t *testing.T) {
	body := listing(30<<10, 0)
	want := new(Encoder).Append(nil, body)
	e := new(Encoder)
	for _, before := range [][]byte{body, listing(100<<10, 1), noise(1 << 16), make([]byte, 1000), nil} {
		e.Append(nil, before)
		if got := e.Append(nil, body); !bytes.Equal(got, want) {
			t.Errorf("after a body of %d bytes it became %d, on its own %d", len(before), len(got), len(want))
		}
	}
}

// TestSize compares with klauspost's level 1.
func TestSize(t *testing.T) {
	bodies := texts(t)
	for seed := range uint64(5) {
		bodies[fmt.Sprint("listing ", seed)] = listing(30<<10, seed)
	}
	e := new(Encoder)
	ours, theirs := 0, 0
	for name, body := range bodies {
		var b bytes.Buffer
		w, err := klauspost.NewWriter(&b, 1)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write(body)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		n := len(check(t, e, body))
		if n > b.Len()*108/100 {
			t.Errorf("%s: %d bytes became %d, klauspost's level 1 makes %d", name, len(body), n, b.Len())
		}
		ours, theirs = ours+n, theirs+b.Len()
	}
	if ours > theirs*103/100 {
		t.Errorf("altogether %d bytes, klauspost's level 1 makes %d", ours, theirs)
	}
	t.Logf("altogether %.3f of klauspost's level 1", float64(ours)/float64(theirs))
}

// TestStaysWithinBody has bodies that end, or begin, where memory does.
func TestStaysWithinBody(t *testing.T) {
	page := os.Getpagesize()
	const room = 80 << 10
	m, err := syscall.Mmap(-1, 0, room+2*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Munmap(m) }()
	for _, guard := range [][]byte{m[:page], m[page+room:]} {
		if err := syscall.Mprotect(guard, syscall.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	e := new(Encoder)
	for _, body := range [][]byte{listing(room, 0), make([]byte, room), noise(room)} {
		for _, n := range []int{1, 5, 15, 16, 17, 18, 23, 24, 25, 100, 1000, blockSize - 1, blockSize, blockSize + 1, 2*blockSize + 17, room} {
			end := m[page+room-n : page+room]
			copy(end, body)
			check(t, e, end)
			begin := m[page : page+n]
			copy(begin, body)
			check(t, e, begin)
		}
	}
}

func TestSlide(t *testing.T) {
	e := new(Encoder)
	was := e.table
	for i := range was {
		was[i] = uint16(i * 8191)
	}
	copy(was[:], []uint16{0, 1, window - 1, window, window + 1, 1<<16 - 1})
	e.table = was
	e.slide()
	for i, p := range was {
		if want := max(int(p)-window, 0); int(e.table[i]) != want {
			t.Fatalf("%d became %d, want %d", p, e.table[i], want)
		}
	}
}

func TestAppendAllocatesNothing(t *testing.T) {
	e := new(Encoder)
	body := listing(100<<10, 0)
	out := e.Append(nil, body)
	mallocs.None(t, "a body", 100, func() { out = e.Append(out[:0], body) })
}

func FuzzAppend(f *testing.F) {
	f.Add([]byte(""), uint16(0))
	f.Add([]byte("abcabcabcabcabcabcabcabc"), uint16(3))
	f.Add(listing(2000, 0), uint16(30))
	f.Add(noise(300), uint16(200))
	e := new(Encoder)
	f.Fuzz(func(t *testing.T, body []byte, times uint16) {
		check(t, e, body)
		if n := len(body) * int(times); n > 0 && n < 200<<10 {
			check(t, e, bytes.Repeat(body, int(times)))
		}
	})
}

// bodies are so many that a processor does not learn them by heart.
func bodies() (all [64][]byte) {
	for i := range all {
		all[i] = listing(30<<10, uint64(i))
	}
	return all
}

func BenchmarkAppend(b *testing.B) {
	all := bodies()
	e := new(Encoder)
	var out []byte
	b.SetBytes(int64(len(all[0])))
	for i := 0; b.Loop(); i++ {
		out = e.Append(out[:0], all[i%len(all)])
	}
	runtime.KeepAlive(out)
}

// BenchmarkKlauspost is the library's level 1, to compare with.
func BenchmarkKlauspost(b *testing.B) {
	all := bodies()
	var out bytes.Buffer
	w, err := klauspost.NewWriter(&out, 1)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(all[0])))
	for i := 0; b.Loop(); i++ {
		out.Reset()
		w.Reset(&out)
		_, _ = w.Write(all[i%len(all)])
		_ = w.Close()
	}
}
