package compress

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
)

var generous = Limits{Bytes: 64 << 20, Ratio: 1000}

// decode takes the coding off a body that comes in pieces.
func decode(e *Engine, c Coding, first []byte, rest Pieces, l Limits) ([]byte, error) {
	d := e.Decoder(c, first, rest, l, 1)
	defer d.Release()
	var out []byte
	for {
		piece, err := d.Next()
		if err != nil {
			if len(piece) > 0 {
				panic("a piece with an error")
			}
			return out, err
		}
		if len(piece) == 0 {
			panic("an empty piece")
		}
		out = append(out, piece...)
	}
}

func TestDecodersGiveBackWhatWasCoded(t *testing.T) {
	e := newEngine()
	for _, c := range codings {
		for _, n := range []int{0, 1, 300, 64 << 10, 1 << 20} {
			body := userList(n)
			coded := stream(e, c, 3, -1, body, 20_000, Flush)
			for _, size := range []int{1 << 20, 4096, 7} {
				if size == 7 && n > 64<<10 {
					continue
				}
				got, err := decode(e, c, nil, (&pieces{err: io.EOF}).cut(coded, size), generous)
				if err != io.EOF || !bytes.Equal(got, body) {
					t.Errorf("%v: %d bytes in pieces of %d became %d: %v", c, n, size, len(got), err)
				}
			}
			got, err := decode(e, c, coded, nil, generous)
			if err != io.EOF || !bytes.Equal(got, body) {
				t.Errorf("%v: %d bytes in one piece became %d: %v", c, n, len(got), err)
			}
		}
	}
}

func TestBodiesThatEndEarlyNeverLookComplete(t *testing.T) {
	e := newEngine()
	body := userList(100_000)
	for _, c := range codings {
		coded := stream(e, c, 3, int64(len(body)), body, 20_000, More)
		for _, cut := range []int{0, 1, 5, len(coded) / 2, len(coded) - 1} {
			for _, why := range []error{io.ErrUnexpectedEOF, os.ErrDeadlineExceeded} {
				if _, err := decode(e, c, nil, (&pieces{err: why}).cut(coded[:cut], 1000), generous); err != why {
					t.Errorf("%v, %d of %d bytes, then %v: %v", c, cut, len(coded), why, err)
				}
			}
			if _, err := decode(e, c, nil, (&pieces{err: io.EOF}).cut(coded[:cut], 1000), generous); err != ErrCorrupt {
				t.Errorf("%v, complete at %d of %d bytes: %v", c, cut, len(coded), err)
			}
		}
		// The error after all bytes counts as well.
		if _, err := decode(e, c, nil, (&pieces{err: io.ErrUnexpectedEOF}).cut(coded, 1000), generous); err != io.ErrUnexpectedEOF {
			t.Errorf("%v, broken off behind its end: %v", c, err)
		}
		if got, err := decode(e, c, coded, nil, generous); err != io.EOF || !bytes.Equal(got, body) {
			t.Errorf("%v: a decoder is no good after failures: %v", c, err)
		}
	}
}

func TestWhatIsNotCodedIsCorrupt(t *testing.T) {
	e := newEngine()
	for _, c := range codings {
		if _, err := decode(e, c, noise(5000), nil, generous); err != ErrCorrupt {
			t.Errorf("%v: noise: %v", c, err)
		}
		coded := stream(e, c, 3, -1, userList(5000), 5000, Flush)
		rest := &pieces{list: [][]byte{[]byte("more")}, err: io.EOF}
		if _, err := decode(e, c, coded, rest, generous); err != ErrCorrupt {
			t.Errorf("%v: bytes after the end: %v", c, err)
		}
	}
}

func TestBombsAreCutOff(t *testing.T) {
	e := newEngine()
	zeros := make([]byte, 8<<20)
	for _, c := range codings {
		bomb := stream(e, c, 3, int64(len(zeros)), zeros, 1<<20, More)
		got, err := decode(e, c, nil, (&pieces{err: io.EOF}).cut(bomb, 100), Limits{Bytes: 64 << 20, Ratio: 100})
		if !errors.Is(err, ErrBomb) || len(got) > 2<<20 {
			t.Errorf("%v: %d bytes of a bomb passed: %v", c, len(got), err)
		}
		if got, err = decode(e, c, bomb, nil, Limits{Bytes: 100_000, Ratio: 1e6}); !errors.Is(err, ErrBomb) || len(got) > 100_000 {
			t.Errorf("%v: %d bytes passed a limit of 100000: %v", c, len(got), err)
		}
		if got, err = decode(e, c, bomb, nil, Limits{Bytes: 8 << 20, Ratio: 1e6}); err != io.EOF || len(got) != len(zeros) {
			t.Errorf("%v: %d bytes within the limits: %v", c, len(got), err)
		}
	}
}

func FuzzDecoder(f *testing.F) {
	e := newEngine()
	for _, c := range codings {
		f.Add(byte(c), stream(e, c, 3, -1, userList(500), 100, Flush))
	}
	f.Fuzz(func(t *testing.T, which byte, coded []byte) {
		c := codings[int(which)%len(codings)]
		got, err := decode(e, c, nil, (&pieces{err: io.EOF}).cut(coded, 50), Limits{Bytes: 1 << 20, Ratio: 1000})
		if len(got) > 1<<20 {
			t.Fatalf("%d bytes", len(got))
		}
		if err != io.EOF && err != ErrCorrupt && err != ErrBomb {
			t.Fatal(err)
		}
	})
}
