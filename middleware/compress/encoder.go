package compress

import (
	"bytes"
	"encoding/binary"
	"hash/adler32"
	"hash/crc32"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
	brotli "github.com/molecule-man/go-brrr"

	"gateway/internal/clock"
	"gateway/internal/deflate"
)

// MaxWhole is the largest body that is coded in one go, in bytes.
const MaxWhole = 256 << 10

// Levels, of every coding. zstd has three speeds behind them: 1 and 2, 3 to 5,
// 6 to 9.
const (
	minLevel = 1
	maxLevel = 9
)

// kind is how an encoder is used, which decides about its memory.
type kind uint8

const (
	whole kind = iota // a body in one go
	long              // pieces of a body of known length
	live              // pieces as they come, each of which can be decoded at once
	kinds
)

// liveLevels bound the level of live streams, which may be many and may last:
// an encoder holds about 0.6 MB (zstd, br) or 0.8 MB (gzip, deflate) then.
var liveLevels = [CodingCount]int{Zstd: 1, Brotli: 3, Gzip: 1, Deflate: 1}

// loweredLevels are what levels fall to in the first step.
var loweredLevels = [CodingCount]int{Zstd: 1, Dcz: 1, Brotli: 2, Gzip: 2, Deflate: 2}

// lower is the level after so many steps down.
func lower(c Coding, level, steps int) int {
	switch {
	case steps == 1:
		return min(level, loweredLevels[c])
	case steps > 1:
		return minLevel
	}
	return level
}

// speed is the least level that means the same as this one.
func speed(c Coding, level int) int {
	if c != Zstd && c != Dcz {
		return level
	}
	switch zstd.EncoderLevelFromZstd(level) {
	case zstd.SpeedFastest:
		return 1
	case zstd.SpeedDefault:
		return 3
	}
	return 6
}

// writer is what the libraries' encoders have in common.
type writer interface {
	io.WriteCloser
	Flush() error
	Reset(io.Writer)
}

// Encoder codes one streamed body. It is borrowed from an Engine and not safe
// for concurrent use.
type Encoder struct {
	w      writer
	zstd   *zstd.Encoder    // w, when it is one
	brotli *brotli.Writer   // w, when it is one
	fast   *deflate.Encoder // instead of w, for whole bodies at the lowest level
	out    sink
	head   []byte // what goes before the first piece that is coded
	coding Coding
	home   *sync.Pool
	engine *Engine
}

// sink collects what an encoder writes.
type sink struct{ bytes []byte }

func (s *sink) Write(p []byte) (int, error) {
	s.bytes = append(s.bytes, p...)
	return len(p), nil
}

// maxSink bounds the memory for output that a pooled encoder keeps.
const maxSink = MaxWhole + 16<<10

// acquire borrows an encoder that is ready to begin; hint is the length of the
// body, 0 when unknown.
func (e *Engine) acquire(c Coding, level int, k kind, hint int64) *Encoder {
	level = speed(c, level)
	home := &e.encoders[c][level][k]
	enc, ok := home.Get().(*Encoder)
	if !ok {
		enc = &Encoder{coding: c, home: home, engine: e}
		enc.create(level, k)
	}
	enc.out.bytes = enc.out.bytes[:0]
	switch {
	case enc.fast != nil: // begins anew each time
	case enc.brotli != nil:
		enc.brotli.ResetWithSizeHint(&enc.out, uint(hint))
	case k != whole || enc.zstd == nil: // EncodeAll has a state of its own
		enc.w.Reset(&enc.out)
	}
	return enc
}

// create makes the encoder, a library's but for whole bodies at the lowest level
// of gzip and deflate. The levels were checked with the options, so that it can't
// fail.
func (e *Encoder) create(level int, k kind) {
	if k == whole && level == minLevel && (e.coding == Gzip || e.coding == Deflate) {
		e.fast = new(deflate.Encoder)
		return
	}
	var err error
	switch e.coding {
	case Gzip:
		e.w, err = gzip.NewWriterLevel(&e.out, level)
	case Deflate:
		e.w, err = zlib.NewWriterLevel(&e.out, level)
	case Brotli:
		o := brotli.WriterOptions{LGWin: 18} // 256 KiB
		if k == live {
			o.LGWin = 16
		}
		e.brotli, err = brotli.NewWriterOptions(&e.out, level, o)
		e.w = e.brotli
	case Zstd:
		window := MaxWhole
		switch k {
		case long:
			window = 128 << 10
		case live:
			window = 64 << 10
		}
		e.zstd, err = zstd.NewWriter(nil, zstdOptions(level, window)...)
		e.w = e.zstd
	default:
		panic("BUG: no encoder for coding " + e.coding.String())
	}
	must(err)
}

func zstdOptions(level, window int) []zstd.EOption {
	return []zstd.EOption{
		zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)),
		zstd.WithEncoderConcurrency(1), // on the caller's goroutine
		zstd.WithWindowSize(window),
		zstd.WithLowerEncoderMem(true),
		zstd.WithZeroFrames(true),
		zstd.WithEncoderCRC(false), // the connection has checksums
	}
}

// must passes over errors that can't be: encoders write to memory.
func must(err error) {
	if err != nil {
		panic("BUG: encode: " + err.Error())
	}
}

// release gives the encoder back.
func (e *Encoder) release() {
	if cap(e.out.bytes) > maxSink {
		e.out.bytes = nil
	}
	e.home.Put(e)
}

// all codes a body in one go. The result is the encoder's.
func (e *Encoder) all(body []byte) []byte {
	if e.zstd != nil {
		e.out.bytes = e.zstd.EncodeAll(body, e.out.bytes)
		return e.out.bytes
	}
	if e.fast != nil {
		e.out.bytes = e.appendFast(e.out.bytes, body)
		return e.out.bytes
	}
	_, err := e.w.Write(body)
	must(err)
	must(e.w.Close())
	return e.out.bytes
}

// Heads of what is coded at the lowest level: gzip without a time and of an unknown
// system (RFC 1952 section 2.3), zlib with a window of 32 KiB (RFC 1950 section 2.2).
const (
	gzipHead = "\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"
	zlibHead = "\x78\x01"
)

// appendFast codes a body with our own encoder.
func (e *Encoder) appendFast(b, body []byte) []byte {
	if e.coding == Deflate {
		b = e.fast.Append(append(b, zlibHead...), body)
		return binary.BigEndian.AppendUint32(b, adler32.Checksum(body))
	}
	b = e.fast.Append(append(b, gzipHead...), body)
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(body))
	return binary.LittleEndian.AppendUint32(b, uint32(len(body)))
}

// Encode codes a body of at most MaxWhole bytes in one go, at a level lowered
// by so many steps, or takes what a body with the same bytes has become in this
// space. The encoder is free again when it returns. nil when the result would not
// be smaller. The caller releases the buffer. Allocates nothing once the pools are
// filled, but for a form that is kept.
func (e *Engine) Encode(s Space, c Coding, level, steps int, body []byte) *Buffer {
	if len(body) > MaxWhole {
		panic("BUG: body too large to be coded in one go")
	}
	begun := clock.Mono()
	known, digest, keep := e.memo.find(s, c, speed(c, level), body)
	if known != nil {
		b := e.recall(c, known, len(body))
		e.nanoseconds[c].Add(uint64(clock.Mono() - begun))
		return b
	}
	if keep {
		steps = 0 // it pays off later
	}
	lowered := lower(c, level, steps)
	enc := e.acquire(c, lowered, whole, int64(len(body)))
	b := e.coded(c, enc.all(body), len(body), speed(c, lowered) < speed(c, level))
	enc.release()
	if keep {
		e.memo.keep(digest, b.Bytes())
	}
	e.nanoseconds[c].Add(uint64(clock.Mono() - begun))
	return b
}

// recall is what a body of so many bytes has become before, nil when that is
// not smaller.
func (e *Engine) recall(c Coding, f *form, body int) *Buffer {
	e.memoHits[c].Inc()
	if len(f.coded) == 0 {
		return nil
	}
	return e.coded(c, f.coded, body, false)
}

// bestLevels are those of bodies that are coded once and sent often.
var bestLevels = [CodingCount]int{Zstd: maxLevel, Brotli: maxLevel, Gzip: maxLevel, Deflate: maxLevel}

// Best codes a body of any size in one go, to be kept and sent often: at the
// highest level, without regard to how busy the process is. nil when the result
// would not be smaller.
func (e *Engine) Best(c Coding, body []byte) []byte {
	begun := clock.Mono()
	enc := e.acquire(c, bestLevels[c], whole, int64(len(body)))
	out := enc.all(body)
	var best []byte
	if n := len(out); n < len(body) {
		best = bytes.Clone(out)
		e.bytesIn[c].Add(uint64(len(body)))
		e.bytesOut[c].Add(uint64(n))
		e.count(c, false)
	}
	enc.release()
	e.nanoseconds[c].Add(uint64(clock.Mono() - begun))
	return best
}

// coded copies what a body of so many bytes has become into a buffer, nil when
// it is not smaller.
func (e *Engine) coded(c Coding, out []byte, body int, lowered bool) *Buffer {
	n := len(out)
	if n >= body {
		return nil
	}
	b := AcquireBuffer(n)
	b.Append(out)
	e.bytesIn[c].Add(uint64(body))
	e.bytesOut[c].Add(uint64(n))
	e.count(c, lowered)
	return b
}

func (e *Engine) count(c Coding, lowered bool) {
	e.responses[c].Inc()
	if lowered {
		e.lowered[c].Inc()
	}
}

// Stream borrows an encoder for a body that comes in pieces: of a known
// length, or of length < 0 when it is not known how long the pieces go on and
// when they come; the encoder needs little memory then. nil when max streams
// are under way. The caller releases it.
func (e *Engine) Stream(c Coding, level, steps int, length int64, max int) *Encoder {
	if !e.enter(max) {
		return nil
	}
	k := long
	if length < 0 {
		k = live
		length = 0
		level = min(level, liveLevels[c])
	}
	lowered := lower(c, level, steps)
	e.count(c, speed(c, lowered) < speed(c, level))
	return e.acquire(c, lowered, k, length)
}

// Mode is what follows a piece.
type Mode uint8

const (
	More  Mode = iota // more pieces, soon
	Flush             // perhaps nothing for long: what was given can be decoded
	End               // nothing
)

// Encode codes a piece. The result may be empty with More; it is valid until
// the next call.
func (e *Encoder) Encode(piece []byte, m Mode) []byte {
	begun := clock.Mono()
	e.out.bytes = append(e.out.bytes[:0], e.head...)
	e.head = nil
	if len(piece) > 0 {
		_, err := e.w.Write(piece)
		must(err)
	}
	switch m {
	case Flush:
		must(e.w.Flush())
	case End:
		must(e.w.Close())
	}
	e.engine.bytesIn[e.coding].Add(uint64(len(piece)))
	e.engine.bytesOut[e.coding].Add(uint64(len(e.out.bytes)))
	e.engine.nanoseconds[e.coding].Add(uint64(clock.Mono() - begun))
	return e.out.bytes
}

// Release ends the stream, complete or not, and gives the encoder back.
func (e *Encoder) Release() {
	e.engine.streams.Add(-1)
	e.release()
}
