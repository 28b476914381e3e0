package compress

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"gateway/internal/mallocs"
)

func TestReferenceToolsDecodeWholeBodies(t *testing.T) {
	e := newEngine()
	for _, c := range codings {
		t.Run(c.String(), func(t *testing.T) {
			for _, n := range []int{255, 256, 4 << 10, 64 << 10, MaxWhole} {
				for _, level := range []int{1, 2, 3, 4, 6, 9} {
					body := userList(n)
					b := e.Encode(NoSpace, c, level, 0, body)
					if b == nil {
						t.Fatalf("%d bytes at level %d are not smaller", n, level)
					}
					if got := reference(t, c, b.Bytes()); !bytes.Equal(got, body) {
						t.Errorf("%d bytes at level %d are another body of %d bytes", n, level, len(got))
					}
					b.Release()
				}
			}
		})
	}
}

func TestReferenceToolsDecodeStreams(t *testing.T) {
	e := newEngine()
	for _, c := range codings {
		t.Run(c.String(), func(t *testing.T) {
			f := func(n int, length int64, level, size int, m Mode) {
				body := userList(n)
				coded := stream(e, c, level, length, body, size, m)
				if got := reference(t, c, coded); !bytes.Equal(got, body) {
					t.Errorf("%d bytes in pieces of %d at level %d, length %d: another body of %d bytes", n, size, level, length, len(got))
				}
			}
			for _, n := range []int{0, 1, 255, 256, 64 << 10} {
				for _, level := range []int{1, 3, 6} {
					f(n, -1, level, 1<<10, Flush)
					f(n, int64(n), level, 10_000, More)
				}
			}
			large := 10 << 20
			if testing.Short() || mallocs.Race {
				large = 1 << 20
			}
			f(large, -1, 3, 16<<10, Flush)
			f(large, int64(large), 3, 64<<10, More)
			f(large, int64(large), 4, 64<<10, More)
		})
	}
}

func TestWhatGrowsIsNotCoded(t *testing.T) {
	e := newEngine()
	for _, c := range codings {
		for _, n := range []int{0, 1, 300, 70_000} {
			if b := e.Encode(NoSpace, c, 1, 0, noise(n)); b != nil {
				t.Errorf("%v: %d bytes of noise became %d", c, n, len(b.Bytes()))
			}
		}
	}
}

// What an encoder makes depends on the body alone, not on what it coded before.
func TestEncodersRememberNothing(t *testing.T) {
	secret := bytes.Repeat([]byte("the secret of somebody else; "), 2000)
	body := append(userList(30<<10), "the secret of somebody else; "...)
	for _, c := range codings {
		for _, level := range []int{1, 3, 6, 9} {
			fresh, used := newEngine(), newEngine()
			want := string(fresh.Encode(NoSpace, c, level, 0, body).Bytes())
			for range 3 {
				used.Encode(NoSpace, c, level, 0, secret).Release()
			}
			if got := used.Encode(NoSpace, c, level, 0, body); string(got.Bytes()) != want {
				t.Errorf("%v, level %d: a used encoder makes other bytes of a body", c, level)
			}
			for _, length := range []int64{-1, int64(len(body))} {
				want := stream(newEngine(), c, level, length, body, 5000, Flush)
				enc := used.Stream(c, level, 0, length, 1) // given back in the middle of a stream
				enc.Encode(secret, Flush)
				enc.Encode(secret[:100], More)
				enc.Release()
				if got := stream(used, c, level, length, body, 5000, Flush); !bytes.Equal(got, want) {
					t.Errorf("%v, level %d: a used encoder makes other bytes of a stream", c, level)
				}
			}
		}
	}
}

// Each event can be decoded before the next one is given to the encoder.
func TestFlushedPiecesCanBeDecodedAtOnce(t *testing.T) {
	e := newEngine()
	for _, c := range codings {
		t.Run(c.String(), func(t *testing.T) {
			enc := e.Stream(c, 3, 0, -1, 2)
			defer enc.Release()
			var event []byte
			sent := 0
			d := e.Decoder(c, nil, next(func() ([]byte, error) {
				sent++
				event = fmt.Appendf(event[:0], "data: event %d\n\n", sent)
				return enc.Encode(event, Flush), nil
			}), Limits{Bytes: 1 << 20, Ratio: 100}, 2)
			defer d.Release()
			var got []byte
			for i := 1; i <= 20; i++ {
				want := fmt.Sprintf("data: event %d\n\n", i)
				for len(got) < len(want) {
					piece, err := d.Next()
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, piece...)
				}
				if string(got) != want || sent != i {
					t.Fatalf("got %q when %d events were sent, want %q", got, sent, want)
				}
				got = got[:0]
			}
		})
	}
}

type next func() ([]byte, error)

func (f next) Next() ([]byte, error) { return f() }

func TestStreamsAreBounded(t *testing.T) {
	e := newEngine()
	one := e.Stream(Gzip, 1, 0, -1, 2)
	two := e.Decoder(Gzip, nil, &pieces{}, Limits{}, 2)
	if one == nil || two == nil {
		t.Fatal("two streams were not allowed")
	}
	if e.Stream(Gzip, 1, 0, -1, 2) != nil || e.Decoder(Gzip, nil, &pieces{}, Limits{}, 2) != nil {
		t.Error("a third stream was allowed")
	}
	one.Release()
	if three := e.Stream(Gzip, 1, 0, -1, 2); three == nil {
		t.Error("a place was not given back")
	}
}

func TestWholeBodiesAllocateNothing(t *testing.T) {
	e := newEngine()
	body := userList(30 << 10)
	for _, c := range codings {
		t.Run(c.String(), func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // each P has a pool that is filled at its first use
			f := func() { e.Encode(NoSpace, c, 3, 0, body).Release() }
			mallocs.None(t, c.String(), 10_000, f)
		})
	}
}

func TestLevelsFallAndReturn(t *testing.T) {
	f := func(c Coding, level, steps, want int) {
		t.Helper()
		if got := lower(c, level, steps); got != want {
			t.Errorf("%v %d, %d down: %d, want %d", c, level, steps, got, want)
		}
	}
	f(Gzip, 6, 0, 6)
	f(Gzip, 6, 1, 2)
	f(Gzip, 1, 1, 1)
	f(Brotli, 4, 1, 2)
	f(Brotli, 4, 2, 1)
	f(Zstd, 3, 1, 1)

	e := newEngine()
	var used int64
	e.load.cpu = func() int64 { return used }
	s := e.Shedder(0.8)
	now, procs := int64(time.Hour), int64(runtime.GOMAXPROCS(0))
	tick := func(share float64, want int) {
		t.Helper()
		now += sampleEvery
		used += int64(share * float64(sampleEvery*procs))
		if got := s.Step(now); got != want {
			t.Errorf("%d steps down at %.2f, want %d", got, share, want)
		}
		if got := s.Step(now + 1); got != want {
			t.Errorf("another look at the same sample: %d steps", got)
		}
	}
	tick(0, 0)
	tick(0.7, 0)
	tick(0.9, 1)
	tick(0.75, 1)
	tick(0.9, 2)
	tick(1, 2)
	tick(0.7, 2) // not calm yet
	tick(0.6, 1)
	tick(0.1, 0)
	tick(0.1, 0)
	if e.load.share() > 0.11 {
		t.Errorf("the metric says %f", e.load.share())
	}
	if e.Shedder(0).Step(now) != 0 {
		t.Error("a limit of 0 is not off")
	}
}

// TestRatios prints a table, the reference tools first, when COMPRESS_RATIOS
// names files, or is "users".
func TestRatios(t *testing.T) {
	names := os.Getenv("COMPRESS_RATIOS")
	if names == "" {
		t.Skip("COMPRESS_RATIOS is not set")
	}
	e := newEngine()
	for _, name := range bytes.Fields([]byte(names)) {
		body := userList(30 << 10)
		if string(name) != "users" {
			var err error
			if body, err = os.ReadFile(string(name)); err != nil {
				t.Fatal(err)
			}
			body = body[:min(len(body), MaxWhole)]
		}
		fmt.Printf("%s: %d bytes\n", filepath.Base(string(name)), len(body))
		for _, tool := range [][]string{{"gzip", "-6"}, {"zstd", "-3"}, {"brotli", "-q", "4"}} {
			cmd := exec.Command(tool[0], append(tool[1:], "-c")...)
			cmd.Stdin = bytes.NewReader(body)
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v: %v; scripts/needs installs the reference tools", tool, err)
			}
			fmt.Printf("  %-10s  %7d bytes  %5.1f %%\n", strings.Join(tool, " "), len(out), 100*float64(len(out))/float64(len(body)))
		}
		for _, c := range codings {
			for level := minLevel; level <= maxLevel; level++ {
				if speed(c, level) != level {
					continue
				}
				size, best := 0, time.Hour
				for range 20 {
					begun := time.Now()
					b := e.Encode(NoSpace, c, level, 0, body)
					best = min(best, time.Since(begun))
					if b != nil {
						size = len(b.Bytes())
						b.Release()
					}
				}
				fmt.Printf("  %-8v %d  %7d bytes  %5.1f %%  %8v\n", c, level, size, 100*float64(size)/float64(len(body)), best.Round(time.Microsecond))
			}
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	e := newEngine()
	body := userList(30 << 10)
	for _, c := range codings {
		b.Run(c.String(), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				e.Encode(NoSpace, c, 3, 0, body).Release()
			}
		})
	}
}

func BenchmarkAccept(b *testing.B) {
	for _, value := range []string{" gzip, deflate, br, zstd", " gzip;q=0.7, br;q=0.8, zstd;q=0.9"} {
		b.Run(value, func(b *testing.B) {
			for b.Loop() {
				a := parse([]byte(value))
				a.Choose([]Coding{Zstd, Brotli, Gzip})
			}
		})
	}
}
