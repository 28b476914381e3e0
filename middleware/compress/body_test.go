package compress

import (
	"bytes"
	"compress/zlib"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"testing"

	"gateway/metrics"
)

var codings = []Coding{Zstd, Brotli, Gzip, Deflate}

func newEngine() *Engine { return NewEngine(metrics.New()) }

// userList is n bytes of JSON as the user service sends it.
func userList(n int) []byte {
	first := []string{"Ada", "Grace", "Linus", "Ken", "Dennis", "Barbara", "Edsger", "Donald", "Margaret", "Alan"}
	last := []string{"Lovelace", "Hopper", "Torvalds", "Thompson", "Ritchie", "Liskov", "Dijkstra", "Knuth", "Hamilton", "Turing"}
	r := rand.New(rand.NewPCG(1, 2))
	b := []byte(`{"data":[`)
	for id := 1; len(b) < n; id++ {
		f, l := first[r.IntN(len(first))], last[r.IntN(len(last))]
		b = fmt.Appendf(b, `{"id":%d,"name":"%s %s","email":"%s.%s.%d@example.com","role":"user","created_at":"2024-%02d-%02dT%02d:%02d:%02d.%06dZ","updated_at":"2025-%02d-%02dT%02d:%02d:%02d.%06dZ"},`,
			id, f, l, f, l, r.IntN(1e6), 1+r.IntN(12), 1+r.IntN(28), r.IntN(24), r.IntN(60), r.IntN(60), r.IntN(1e6),
			1+r.IntN(12), 1+r.IntN(28), r.IntN(24), r.IntN(60), r.IntN(60), r.IntN(1e6))
	}
	return b[:n]
}

// noise can't be compressed.
func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(3, 4))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// reference decodes with the coding's own tool.
func reference(t testing.TB, c Coding, coded []byte) []byte {
	t.Helper()
	if c == Deflate { // there is no tool
		r, err := zlib.NewReader(bytes.NewReader(coded))
		if err != nil {
			t.Fatal(err)
		}
		plain, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		return plain
	}
	tool := map[Coding]string{Zstd: "zstd", Brotli: "brotli", Gzip: "gzip"}[c]
	if _, err := exec.LookPath(tool); err != nil {
		t.Fatalf("%s is missing; as root: apt-get update && apt-get install -y --no-install-recommends %s", tool, tool)
	}
	cmd := exec.Command(tool, "-dc")
	if c == Brotli {
		cmd = exec.Command(tool, "-dc", "-")
	}
	cmd.Stdin = bytes.NewReader(coded)
	var failure bytes.Buffer
	cmd.Stderr = &failure
	plain, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s", tool, err, &failure)
	}
	return plain
}

// stream codes a body in pieces of this size.
func stream(e *Engine, c Coding, level int, length int64, body []byte, size int, m Mode) []byte {
	enc := e.Stream(c, level, 0, length, 1)
	defer enc.Release()
	var out []byte
	for len(body) > 0 {
		n := min(size, len(body))
		out = append(out, enc.Encode(body[:n], m)...)
		body = body[n:]
	}
	return append(out, enc.Encode(nil, End)...)
}

// pieces are a coded body in memory.
type pieces struct {
	list [][]byte
	err  error // after them
}

func (p *pieces) Next() ([]byte, error) {
	if len(p.list) == 0 {
		return nil, p.err
	}
	piece := p.list[0]
	p.list = p.list[1:]
	return piece, nil
}

func (p *pieces) cut(b []byte, size int) *pieces {
	for len(b) > 0 {
		n := min(size, len(b))
		p.list = append(p.list, b[:n])
		b = b[n:]
	}
	return p
}
