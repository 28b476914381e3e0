package cache

import (
	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"
)

// A value in Redis is this header and the bytes of an entry, compressed if that
// makes them fewer. All numbers are little endian. The generation is the number
// of the last purge that the gateway knew when it asked the origin.
//
//	"gw" | version u8 | flags u8 | entry's length u32 | generation u64 | hash u64 | entry
//
// The hash is over all but itself. A new version has other names of keys too,
// so that gateways of both can share a Redis during a change.
const (
	valueHeader  = 24
	valueVersion = 1
	valueZstd    = 1 << 0

	atGenerationOfValue = 8
	atHashOfValue       = 16
)

// leastCompressed is the length below which compressing is not worth it.
const leastCompressed = 256

// encoder makes values. It is used by one goroutine and keeps its memory.
type encoder struct {
	zstd *zstd.Encoder
	buf  []byte
}

func newEncoder() *encoder {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic("BUG: zstd options: " + err.Error())
	}
	return &encoder{zstd: z}
}

// encode makes the value of an entry. It is valid until the next call.
func (c *encoder) encode(e *Entry, generation uint64) []byte {
	b := append(c.buf[:0], 'g', 'w', valueVersion, 0)
	b = le.AppendUint32(b, uint32(len(e.blob)))
	b = le.AppendUint64(b, generation)
	b = le.AppendUint64(b, 0)
	if len(e.blob) >= leastCompressed {
		b = c.zstd.EncodeAll(e.blob, b)
		b[3] = valueZstd
	}
	if b[3] == 0 || len(b) >= valueHeader+len(e.blob) {
		b = append(b[:valueHeader], e.blob...)
		b[3] = 0
	}
	le.PutUint64(b[atHashOfValue:], hashOf(b[:atHashOfValue], b[valueHeader:]))
	c.buf = b
	if cap(b) > 1<<20 {
		c.buf = nil
	}
	return b
}

// decoder reads values. Safe for concurrent use.
type decoder struct {
	zstd    *zstd.Decoder
	largest int64 // bytes of an entry
}

func newDecoder(largest int64) *decoder {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(uint64(largest)), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		panic("BUG: zstd options: " + err.Error())
	}
	return &decoder{zstd: z, largest: largest}
}

// decode reads a value: a response, or the list of names by which responses of
// a URL differ. False when it is anything else. The entry has memory of its own.
func (d *decoder) decode(b []byte) (e Entry, generation uint64, ok bool) {
	if len(b) < valueHeader || b[0] != 'g' || b[1] != 'w' || b[2] != valueVersion {
		return e, 0, false
	}
	n := int64(le.Uint32(b[4:]))
	payload := b[valueHeader:]
	var h xxhash.Digest
	h.Reset()
	_, _ = h.Write(b[:atHashOfValue])
	_, _ = h.Write(payload)
	if n > d.largest || h.Sum64() != le.Uint64(b[atHashOfValue:]) {
		return e, 0, false
	}
	blob := make([]byte, 0, n)
	switch b[3] {
	case 0:
		blob = append(blob, payload...)
	case valueZstd:
		var err error
		if blob, err = d.zstd.DecodeAll(payload, blob); err != nil {
			return e, 0, false
		}
	default:
		return e, 0, false
	}
	if int64(len(blob)) != n {
		return e, 0, false
	}
	if e, ok = DecodeEntry(blob); !ok {
		e, ok = decodeLists(blob)
	}
	return e, le.Uint64(b[atGenerationOfValue:]), ok
}
