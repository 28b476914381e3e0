package wire

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// decode feeds src in pieces of the sizes given, the rest at once.
func decode(t *testing.T, src []byte, pieces []byte) (body []byte, n int, done bool, f Fault, trailer string) {
	t.Helper()
	var c Chunked
	end := 0
	for {
		data, used, finished, fault := c.Decode(src[n:end])
		body = append(body, data...)
		if used < 0 || used > end-n || len(data) > used || fault != NoFault && len(data) > 0 {
			t.Fatalf("Decode(%q) gives %q, %d, %v, %s", src[n:end], data, used, finished, fault)
		}
		if used == 0 && n < end && !finished && fault == NoFault {
			t.Fatalf("Decode(%q) makes no progress", src[n:end])
		}
		n += used
		if finished || fault != NoFault {
			if data, used, finished2, fault2 := c.Decode(src[n:]); len(data) > 0 || used > 0 || finished2 != finished || fault2 != fault {
				t.Fatalf("after the end Decode gives %q, %d, %v, %s", data, used, finished2, fault2)
			}
			return body, n, finished, fault, string(c.Trailer())
		}
		if n < end {
			continue
		}
		if end == len(src) {
			return body, n, false, NoFault, string(c.Trailer())
		}
		step := len(src) - end
		if len(pieces) > 0 {
			step = min(step, int(pieces[0])%16+1)
			pieces = pieces[1:]
		}
		end += step
	}
}

func TestChunkedBodies(t *testing.T) {
	long := strings.Repeat("x", 1000)
	for _, c := range []struct{ name, src, body, trailer string }{
		{"empty", "0\r\n\r\n", "", ""},
		{"one chunk", "5\r\nhello\r\n0\r\n\r\n", "hello", ""},
		{"chunks", "5\r\nhello\r\n1\r\n \r\n00005\r\nworld\r\n000\r\n\r\n", "hello world", ""},
		{"digits of both cases", "a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789", ""},
		{"long chunk", "3E8\r\n" + long + "\r\n0\r\n\r\n", long, ""},
		{"fifteen digits", "000000000000001\r\na\r\n0\r\n\r\n", "a", ""},
		{"extensions", "1;a\r\nx\r\n1;a=b;c=\"d e\"\r\ny\r\n0;last\r\n\r\n", "xy", ""},
		{"empty extension", "1;\r\nx\r\n0\r\n\r\n", "x", ""},
		{"CRLF as data", "2\r\n\r\n\r\n0\r\n\r\n", "\r\n", ""},
		{"trailer", "1\r\nx\r\n0\r\nX-Sum: 1\r\nX-Two:\t2 \r\n\r\n", "x", "X-Sum: 1\r\nX-Two:\t2 \r\n"},
		{"extension at the bound", "1;" + long[:maxSizeLine-2] + "\r\nx\r\n0\r\n\r\n", "x", ""},
		{"trailer at the bound", "0\r\nA: " + strings.Repeat("x", maxTrailer-5) + "\r\n\r\n", "", "A: " + strings.Repeat("x", maxTrailer-5) + "\r\n"},
	} {
		for _, pieces := range [][]byte{nil, make([]byte, len(c.src)), []byte("\x02\x01\x07\x03\x00\x05")} {
			body, n, done, f, trailer := decode(t, []byte(c.src+"next"), pieces)
			if string(body) != c.body || n != len(c.src) || !done || f != NoFault || trailer != c.trailer {
				t.Errorf("%s: %q, %d of %d, %v, %q, trailer %q", c.name, body, n, len(c.src), done, f, trailer)
			}
		}
		for i := range len(c.src) {
			if _, n, done, f, _ := decode(t, []byte(c.src[:i]), nil); n != i || done || f != NoFault {
				t.Errorf("%s: the first %d bytes give %d, %v, %q", c.name, i, n, done, f)
			}
		}
	}
}

func TestChunkedBodiesAreRefused(t *testing.T) {
	for _, c := range []struct {
		name, src string
		want      Fault
	}{
		{"no size", "\r\nhello\r\n", BadChunk},
		{"only an extension", ";a\r\n", BadChunk},
		{"space before the size", " 5\r\nhello\r\n", BadChunk},
		{"space after the size", "5 \r\nhello\r\n", BadChunk},
		{"space before the extension", "5 ;a\r\nhello\r\n", BadChunk},
		{"tab after the size", "5\t\r\nhello\r\n", BadChunk},
		{"plus", "+5\r\nhello\r\n", BadChunk},
		{"minus", "-5\r\nhello\r\n", BadChunk},
		{"0x", "0x5\r\nhello\r\n", BadChunk},
		{"underscore", "1_0\r\n", BadChunk},
		{"letter beyond f", "5g\r\n", BadChunk},
		{"sixteen digits", "0000000000000005\r\nhello\r\n", BadChunk},
		{"size that wraps", "10000000000000005\r\nhello\r\n", BadChunk},
		{"LF after the size", "5\nhello\r\n", BadChunk},
		{"CR after the size", "5\rhello\r\n", BadChunk},
		{"two CR after the size", "5\r\r\nhello\r\n", BadChunk},
		{"LF after the extension", "5;a\nhello\r\n", BadChunk},
		{"LF in the extension", "2;\nxx\r\n4c\r\n0\r\n\r\n", BadChunk},
		{"NUL in the extension", "5;a\x00\r\nhello\r\n", BadChunk},
		{"tab in the extension", "5;\ta\r\nhello\r\n", BadChunk},
		{"CR in the extension", "5;a\rb\r\nhello\r\n", BadChunk},
		{"long extension", "1;" + strings.Repeat("x", maxSizeLine-1) + "\r\n", BadChunk},
		{"data longer than the size", "5\r\nhello!\r\n", BadChunk},
		{"data ended by LF", "5\r\nhello\n0\r\n\r\n", BadChunk},
		{"data ended by CR", "5\r\nhello\r0\r\n\r\n", BadChunk},
		{"data without end", "5\r\nhello0\r\n\r\n", BadChunk},
		{"LF after the last size", "0\n\r\n", BadChunk},
		{"LF as last line", "0\r\n\n", BadTrailer},
		{"CR as last line", "0\r\n\rx", BadTrailer},
		{"trailer without colon", "0\r\nnonsense\r\n\r\n", BadTrailer},
		{"trailer ended by LF", "0\r\nA: b\n\r\n", BadTrailer},
		{"trailer with CR", "0\r\nA: b\rc\r\n\r\n", BadTrailer},
		{"folded trailer", "0\r\nA: b\r\n c\r\n\r\n", BadTrailer},
		{"trailer with a space in its name", "0\r\nA : b\r\n\r\n", BadTrailer},
		{"trailer with NUL", "0\r\nA: \x00\r\n\r\n", BadTrailer},
		{"request in the trailer", "0\r\nGET / HTTP/1.1\r\n\r\n", BadTrailer},
		{"large trailer", "0\r\nA: " + strings.Repeat("x", maxTrailer-4) + "\r\n\r\n", BadTrailer},
		{"Content-Length as trailer", "0\r\nContent-Length: 5\r\n\r\n", BadTrailer},
		{"Transfer-Encoding as trailer", "0\r\ntransfer-encoding: chunked\r\n\r\n", BadTrailer},
		{"Host as trailer", "0\r\nX: y\r\nHost: h\r\n\r\n", BadTrailer},
		{"Authorization as trailer", "0\r\nAuthorization: Basic eA==\r\n\r\n", BadTrailer},
		{"Connection as trailer", "0\r\nConnection: close\r\n\r\n", BadTrailer},
		{"Cookie as trailer", "0\r\nCookie: a=b\r\n\r\n", BadTrailer},
		{"Set-Cookie as trailer", "0\r\nSet-Cookie: a=b\r\n\r\n", BadTrailer},
		{"Content-Encoding as trailer", "0\r\nContent-Encoding: gzip\r\n\r\n", BadTrailer},
		{"X-Forwarded-For as trailer", "0\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n", BadTrailer},
	} {
		whole, n, _, _, _ := decode(t, []byte(c.src), nil)
		for _, pieces := range [][]byte{nil, make([]byte, len(c.src))} {
			body, at, done, f, trailer := decode(t, []byte(c.src), pieces)
			if f != c.want || done || trailer != "" || at != n || !bytes.Equal(body, whole) {
				t.Errorf("%s: %q, %d, %v, %q, want %q", c.name, body, at, done, f, c.want)
			}
		}
	}
}

func TestChunkedReset(t *testing.T) {
	var c Chunked
	if _, _, done, _ := c.Decode([]byte("0\r\nA: b\r\n\r\n")); !done || string(c.Trailer()) != "A: b\r\n" {
		t.Fatalf("done %v, trailer %q", done, c.Trailer())
	}
	c.Reset()
	if data, n, done, f := c.Decode([]byte("1\r\nx\r\n0\r\n\r\n")); string(data) != "x" || n != 11 || !done || f != NoFault || c.Trailer() != nil {
		t.Errorf("after Reset: %q, %d, %v, %q, trailer %q", data, n, done, f, c.Trailer())
	}
}

// A small body comes with its end in one call.
func TestChunkedDataAndEndTogether(t *testing.T) {
	var c Chunked
	if data, n, done, f := c.Decode([]byte("5\r\nhello\r\n0\r\n\r\nHTTP/1.1")); string(data) != "hello" || n != 15 || !done || f != NoFault {
		t.Errorf("%q, %d, %v, %q", data, n, done, f)
	}
}

func TestAppendChunkSize(t *testing.T) {
	for _, n := range []int{1, 9, 10, 15, 16, 17, 255, 256, 4095, 4096, 65536, 1<<31 - 1, 1 << 40} {
		if got, want := string(AppendChunkSize(nil, n)), fmt.Sprintf("%x\r\n", n); got != want {
			t.Errorf("AppendChunkSize(%d) = %q, want %q", n, got, want)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("a chunk of 0 bytes would end the body, and did not panic")
		}
	}()
	AppendChunkSize(nil, 0)
}

// reference decodes a whole body the simple way: ok when it is complete and
// valid, rest what follows it.
func reference(src string) (body, trailer, rest string, ok bool) {
	for {
		line, after, found := strings.Cut(src, "\r\n")
		digits, extension, _ := strings.Cut(line, ";")
		if !found || len(digits) == 0 || len(digits) > 15 || len(line) > maxSizeLine || strings.Trim(digits, "0123456789abcdefABCDEF") != "" ||
			strings.ContainsFunc(extension, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return "", "", "", false
		}
		var size uint64
		fmt.Sscanf(digits, "%x", &size)
		if src = after; size == 0 {
			break
		}
		if uint64(len(src)) < size+2 || src[size:size+2] != "\r\n" {
			return "", "", "", false
		}
		body += src[:size]
		src = src[size+2:]
	}
	if rest, ok := strings.CutPrefix(src, "\r\n"); ok {
		return body, "", rest, true
	}
	trailer, rest, ok = strings.Cut(src, "\r\n\r\n")
	trailer += "\r\n"
	var h Header
	if !ok || len(trailer) > maxTrailer || h.ParseFields([]byte(trailer), 0) != NoFault {
		return "", "", "", false
	}
	for i := range h.Len() {
		if _, _, id, _ := h.Field(i); forbiddenTrailers.has(id) {
			return "", "", "", false
		}
	}
	return body, trailer, rest, true
}

func FuzzChunked(f *testing.F) {
	for _, seed := range []string{
		"5\r\nhello\r\n0\r\n\r\nnext", "1;a=b\r\nx\r\n00\r\nA: b\r\n\r\n", "2\r\n\r\n\r\n0\r\n\r\n", "5 \r\nhello", "0\r\nHost: a\r\n\r\n",
		"fffffffffffffff\r\nx", "1\r\nx\r\n1\r\ny\n0\r\n\r\n", "0\r\nA: b\r\n c\r\n\r\n",
	} {
		f.Add([]byte(seed), []byte{0, 1, 2, 3, 200})
	}
	f.Fuzz(func(t *testing.T, src, pieces []byte) {
		body, n, done, fault, trailer := decode(t, src, nil)
		body2, n2, done2, fault2, trailer2 := decode(t, src, pieces)
		if !bytes.Equal(body, body2) || n != n2 || done != done2 || fault != fault2 || trailer != trailer2 {
			t.Errorf("%q at once: %q %d %v %s; by %v: %q %d %v %s", src, body, n, done, fault, pieces, body2, n2, done2, fault2)
		}
		want, wantTrailer, rest, ok := reference(string(src))
		if ok != done || ok && (string(body) != want || trailer != wantTrailer || string(src[n:]) != rest) {
			t.Errorf("%q: %q %q, rest %q, %v; reference %q %q %q %v", src, body, trailer, src[n:], done, want, wantTrailer, rest, ok)
		}
	})
}
