package compress

import (
	"errors"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
	brotli "github.com/molecule-man/go-brrr"
)

var (
	// ErrBomb ends a body that becomes larger than the limits allow.
	ErrBomb = errors.New("decoded body exceeds its limit")
	// ErrCorrupt ends a body that is not what its coding says.
	ErrCorrupt = errors.New("coded body is corrupt")
)

// Limits bound what becomes of a coded body.
type Limits struct {
	Bytes int64 // decoded
	Ratio int64 // decoded bytes for each coded one; the first MiB is free
}

// freeBytes may come out of a body whatever its ratio: small bodies that are
// all zeros do no harm.
const freeBytes = 1 << 20

// decodedPiece is the largest piece that a decoder gives.
const decodedPiece = 32 << 10

// Pieces is a coded body: the next piece, valid until the next call; io.EOF at
// the end of a complete one, another error when it ended early.
type Pieces interface {
	Next() ([]byte, error)
}

// Decoder takes the coding off one body. It is borrowed from an Engine and not
// safe for concurrent use.
type Decoder struct {
	r      io.Reader
	reset  func() error // makes r begin with from
	from   source
	began  bool
	limits Limits
	given  int64
	err    error // what Next says when it is over
	coding Coding
	engine *Engine
	buf    [decodedPiece]byte
}

// source gives a coded body to a library's decoder, a piece at a time, so that
// it never waits for more than it needs.
type source struct {
	piece []byte
	rest  Pieces // nil when piece is all
	read  int64
	err   error // that ended rest
}

func (s *source) Read(p []byte) (int, error) {
	for len(s.piece) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		s.fetch()
	}
	n := copy(p, s.piece)
	s.piece = s.piece[n:]
	s.read += int64(n)
	return n, nil
}

// fetch reads the next piece, or the error after the last.
func (s *source) fetch() {
	if s.rest == nil {
		s.err = io.EOF
		return
	}
	s.piece, s.err = s.rest.Next()
}

// Decoder borrows a decoder for a body that begins with first and goes on with
// rest, which is nil when first is all. nil when max streams are under way.
// The caller releases it.
func (e *Engine) Decoder(c Coding, first []byte, rest Pieces, l Limits, max int) *Decoder {
	if !e.enter(max) {
		return nil
	}
	d, ok := e.decoders[c].Get().(*Decoder)
	if !ok {
		d = &Decoder{coding: c, engine: e}
		d.create()
	}
	d.from = source{piece: first, rest: rest}
	d.began, d.limits, d.given, d.err = false, l, 0, nil
	return d
}

// create binds the library's decoder. Where its Reset reads already, that has
// to wait for the first Next.
func (d *Decoder) create() {
	switch d.coding {
	case Gzip:
		r := new(gzip.Reader)
		d.r, d.reset = r, func() error { return r.Reset(&d.from) }
	case Deflate:
		d.reset = func() error {
			if r, ok := d.r.(zlib.Resetter); ok {
				return r.Reset(&d.from, nil)
			}
			r, err := zlib.NewReader(&d.from)
			if err == nil {
				d.r = r
			}
			return err
		}
	case Brotli:
		r := brotli.NewReader(&d.from)
		d.r, d.reset = r, func() error { r.Reset(&d.from); return nil }
	case Zstd:
		r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(8<<20)) // RFC 9659: nobody may need more
		must(err)
		d.r, d.reset = r, func() error { return r.Reset(&d.from) }
	default:
		panic("BUG: no decoder for coding " + d.coding.String())
	}
}

// Next is the next piece of the decoded body, never empty without an error,
// valid until the next call; io.EOF after a complete body. An error of the
// coded body's own is passed on as it is; others are ErrCorrupt and ErrBomb.
func (d *Decoder) Next() ([]byte, error) {
	for d.err == nil {
		if !d.began {
			d.began = true
			if err := d.reset(); err != nil {
				d.err = d.verdict(err)
				break
			}
		}
		n, err := d.r.Read(d.buf[:])
		d.given += int64(n)
		if d.given > d.limits.Bytes || d.given > freeBytes && d.given/d.limits.Ratio > d.from.read {
			d.err = ErrBomb
			break
		}
		if err != nil {
			d.err = d.verdict(err)
		}
		if n > 0 {
			return d.buf[:n], nil
		}
	}
	return nil, d.err
}

// verdict translates what a library says at the end of a body. The body is
// complete only when the coded one is, with nothing after it.
func (d *Decoder) verdict(err error) error {
	s := &d.from
	if s.err != nil && s.err != io.EOF {
		return s.err
	}
	if err != io.EOF {
		return ErrCorrupt
	}
	for s.err == nil && len(s.piece) == 0 {
		s.fetch()
	}
	if s.err != nil && s.err != io.EOF {
		return s.err
	}
	if len(s.piece) > 0 || s.read == 0 {
		return ErrCorrupt
	}
	return io.EOF
}

// Release ends the body, complete or not, and gives the decoder back.
func (d *Decoder) Release() {
	e := d.engine
	e.decodedIn[d.coding].Add(uint64(d.from.read))
	e.decodedOut[d.coding].Add(uint64(d.given))
	e.streams.Add(-1)
	d.from = source{}
	e.decoders[d.coding].Put(d)
}
