package wire

import "math/bits"

// Bounds of the chunked coding.
const (
	maxSizeDigits = 15      // of a chunk size: below 2⁶⁰
	maxSizeLine   = 256     // bytes of a size line up to its CR, extensions included
	maxTrailer    = 8 << 10 // bytes of a trailer section
)

// Chunked decodes the chunked transfer coding (RFC 9112 section 7.1)
// incrementally and strictly: CRLF only, sizes of at most 15 hexadecimal
// digits, no white space around them, extensions skipped but bounded (256
// bytes a line, without control bytes), trailer section validated like a field
// section, without the fields that no trailer may contain, and bounded (8 KiB).
// The zero value starts at a body's first byte. Where the input is split makes
// no difference to what is found.
type Chunked struct {
	state   uint8
	fault   Fault  // in state chunkFailed
	left    int64  // bytes of the current chunk still to come
	seen    int    // bytes of the current size line or trailer section, for the bounds
	line    int    // where the current line begins in trailer
	trailer []byte // trailer section as received, owned
}

const (
	chunkSize      uint8 = iota // in the digits of a size, or before the first
	chunkExtension              // behind the semicolon
	chunkSizeLF                 // before the LF of a size line
	chunkData
	chunkDataCR      // before the CRLF that ends a chunk
	chunkDataLF      // before its LF
	chunkTrailer     // before a trailer line or the final CRLF
	chunkTrailerLine // in a trailer line
	chunkTrailerLF   // before the LF of the final CRLF
	chunkDone
	chunkFailed
)

// forbiddenTrailers frame or route the message, control or authenticate
// requests, or say how to process content that has arrived already (RFC 9110
// section 6.5.1). A receiver that merged one into the header would be deceived.
var forbiddenTrailers = hopByHop | setOf(AcceptEncoding, AccessControlRequestHeaders, AccessControlRequestMethod,
	Age, Authorization, CacheControl, CDNCacheControl, ContentEncoding, ContentLocation, ContentRange, ContentType,
	Cookie, Date, Expect, Expires, Forwarded, Host, HTTP2Settings, IfMatch, IfModifiedSince, IfNoneMatch, IfRange,
	IfUnmodifiedSince, Location, Origin, Pragma, Range, RetryAfter, SecWebSocketKey, SetCookie, SurrogateKey, Vary,
	Via, WWWAuthenticate, XForwardedFor, XForwardedHost, XForwardedPort, XForwardedProto, XRequestID)

// Reset prepares for another body, keeping the capacity.
func (c *Chunked) Reset() { *c = Chunked{trailer: c.trailer[:0]} }

// Decode consumes bytes of src: n of them. data is the body bytes found, a part of
// src, possibly empty while n > 0. done reports that the body ended with the
// n-th byte. Call it again with src[n:] (and more input) until done or a
// fault. It never consumes beyond the end of the body. Both done and a fault
// stay when it is called again; no data comes with a fault.
func (c *Chunked) Decode(src []byte) (data []byte, n int, done bool, f Fault) {
	for c.state < chunkDone {
		if n == len(src) {
			return data, n, false, NoFault
		}
		if c.state == chunkData {
			if data != nil {
				return data, n, false, NoFault
			}
			size := min(int64(len(src)-n), c.left)
			data = src[n : n+int(size) : n+int(size)]
			n += int(size)
			if c.left -= size; c.left == 0 {
				c.state = chunkDataCR
			}
			continue
		}
		if f := c.step(src[n]); f != NoFault {
			c.state, c.fault = chunkFailed, f
			if data != nil {
				return data, n, false, NoFault // the next call tells
			}
			break
		}
		n++
	}
	return data, n, c.state == chunkDone, c.fault
}

// step takes a byte that is not body.
func (c *Chunked) step(b byte) Fault {
	switch c.state {
	case chunkSize:
		if digit := unhex(b); digit < 16 {
			if c.seen++; c.seen > maxSizeDigits {
				return BadChunk
			}
			c.left = c.left<<4 | int64(digit)
			return NoFault
		}
		switch {
		case c.seen == 0:
			return BadChunk
		case b == '\r':
			c.state = chunkSizeLF
		case b == ';':
			c.seen++
			c.state = chunkExtension
		default:
			return BadChunk
		}
	case chunkExtension:
		if b == '\r' {
			c.state = chunkSizeLF
			return NoFault
		}
		if c.seen++; c.seen > maxSizeLine || b < 0x20 || b == 0x7f {
			return BadChunk
		}
	case chunkSizeLF:
		if b != '\n' {
			return BadChunk
		}
		c.seen = 0
		c.state = chunkData
		if c.left == 0 {
			c.state = chunkTrailer
		}
	case chunkDataCR:
		if b != '\r' {
			return BadChunk
		}
		c.state = chunkDataLF
	case chunkDataLF:
		if b != '\n' {
			return BadChunk
		}
		c.state = chunkSize
	default:
		return c.stepTrailer(b)
	}
	return NoFault
}

func (c *Chunked) stepTrailer(b byte) Fault {
	switch c.state {
	case chunkTrailerLF:
		if b != '\n' {
			return BadTrailer
		}
		c.state = chunkDone
		return NoFault
	case chunkTrailer:
		if b == '\r' {
			c.state = chunkTrailerLF
			return NoFault
		}
		c.line = len(c.trailer)
		c.state = chunkTrailerLine
	}
	if len(c.trailer) == maxTrailer {
		return BadTrailer
	}
	c.trailer = append(c.trailer, b)
	if b != '\n' {
		return NoFault
	}
	c.state = chunkTrailer
	text := c.trailer[c.line:]
	line, f := scanLine(text)
	if f != NoFault || line.end != len(text) || forbiddenTrailers.has(LookupField(text[:line.colon])) {
		return BadTrailer
	}
	return NoFault
}

// Trailer is the validated trailer section, lines with CRLF, nil when empty;
// valid after done until Reset.
func (c *Chunked) Trailer() []byte {
	if c.state != chunkDone || len(c.trailer) == 0 {
		return nil
	}
	return c.trailer
}

// AppendChunkSize appends the size line of a chunk of n > 0 bytes.
func AppendChunkSize(dst []byte, n int) []byte {
	if n <= 0 {
		panic("BUG: a chunk has at least one byte")
	}
	for shift := (bits.Len(uint(n)) - 1) &^ 3; shift >= 0; shift -= 4 {
		dst = append(dst, "0123456789abcdef"[n>>shift&15])
	}
	return append(dst, "\r\n"...)
}

// LastChunk ends a chunked body without trailers.
const LastChunk = "0\r\n\r\n"
