package middleware

import (
	"bytes"
	"io"
	"sync"

	"gateway/exchange"
	"gateway/middleware/compress"
)

// codedPiece is how much of a body that is in memory is coded at a time.
const codedPiece = 64 << 10

// codedStream is the coded form of a body that comes in pieces. An error that
// ends the body early ends it too, so that it never looks complete.
type codedStream struct {
	encoder *compress.Encoder
	head    []byte          // what comes before the first piece; borrowed
	from    exchange.Stream // nil when head is all
	after   compress.Mode   // of pieces that are not the last
	over    error
	trailer []byte
}

var codedStreams = sync.Pool{New: func() any { return new(codedStream) }}

// Next implements exchange.Stream.
func (f *codedStream) Next() ([]byte, error) {
	for f.over == nil {
		piece, mode := f.head, f.after
		switch {
		case len(piece) > codedPiece:
			piece, f.head = piece[:codedPiece], piece[codedPiece:]
		case f.from == nil:
			mode, f.over = compress.End, io.EOF
		case len(piece) > 0:
			f.head = nil
		default:
			var err error
			if piece, err = f.from.Next(); err == io.EOF {
				mode, f.over = compress.End, io.EOF
			} else if err != nil {
				f.over = err
				return nil, err
			}
		}
		if coded := f.encoder.Encode(piece, mode); len(coded) > 0 {
			return coded, nil
		}
	}
	return nil, f.over
}

// Trailer implements exchange.Stream.
func (f *codedStream) Trailer() []byte {
	f.trailer = appendTrailer(f.trailer[:0], f.from)
	return f.trailer
}

// Release gives the encoder back, whether the body was complete or not.
func (f *codedStream) Release() {
	f.encoder.Release()
	release(f.from)
	*f = codedStream{trailer: f.trailer[:0]}
	codedStreams.Put(f)
}

// plainStream is the decoded form of a body.
type plainStream struct {
	decoder *compress.Decoder
	from    exchange.Stream // nil when the decoder has all
	trailer []byte
}

var plainStreams = sync.Pool{New: func() any { return new(plainStream) }}

// Next implements exchange.Stream.
func (f *plainStream) Next() ([]byte, error) { return f.decoder.Next() }

// Trailer implements exchange.Stream.
func (f *plainStream) Trailer() []byte {
	f.trailer = appendTrailer(f.trailer[:0], f.from)
	return f.trailer
}

// Release gives the decoder back.
func (f *plainStream) Release() {
	f.decoder.Release()
	release(f.from)
	*f = plainStream{trailer: f.trailer[:0]}
	plainStreams.Put(f)
}

// failedStream is what remains of a body that has ended early.
type failedStream struct{ err error }

// Next implements exchange.Stream.
func (f failedStream) Next() ([]byte, error) { return nil, f.err }

// Trailer implements exchange.Stream.
func (f failedStream) Trailer() []byte { return nil }

// release releases a stream that holds something.
func release(s exchange.Stream) {
	if r, ok := s.(interface{ Release() }); ok {
		r.Release()
	}
}

// appendTrailer appends the trailer section of a stream, nil allowed, without
// the digests of the body that it had. The result is nil when nothing is left.
func appendTrailer(dst []byte, s exchange.Stream) []byte {
	if s == nil {
		return nil
	}
	for lines := s.Trailer(); len(lines) > 0; {
		line := lines
		if end := bytes.IndexByte(lines, '\n'); end >= 0 {
			line = lines[:end+1]
		}
		lines = lines[len(line):]
		name, _, _ := bytes.Cut(line, []byte(":"))
		if !isBodyField(name) {
			dst = append(dst, line...)
		}
	}
	if len(dst) == 0 {
		return nil
	}
	return dst
}
