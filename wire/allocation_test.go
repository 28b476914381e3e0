package wire

import (
	"testing"

	"gateway/internal/mallocs"
)

var benchRequest = []byte("GET /users?page=2&page_size=5 HTTP/1.1\r\n" +
	"Host: api.example.com\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:131.0) Gecko/20100101 Firefox/131.0\r\n" +
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n" +
	"Accept-Language: en-US,en;q=0.5\r\n" +
	"Accept-Encoding: gzip, deflate, br, zstd\r\n" +
	"Connection: keep-alive\r\n" +
	"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n" +
	"X-Trace: 7\r\n\r\n")

var benchFields = benchRequest[40:]

var benchResponse = []byte("HTTP/1.1 200 OK\r\n" +
	"Date: Mon, 01 Jan 2024 00:00:00 GMT\r\n" +
	"Content-Type: application/json\r\n" +
	"Content-Length: 321\r\n" +
	"Connection: keep-alive\r\n" +
	"ETag: \"0123456789abcdef\"\r\n" +
	"X-Server: users-1\r\n\r\n")

var benchRewritten = []byte("GET http://API.example.com/%7Eusers/../users?q=\"x\" HTTP/1.1\r\nHost: api.example.com\r\n\r\n")

var benchLimits = &Limits{MaxTarget: 8 << 10, MaxHeader: 32 << 10, MaxFields: 100}

func TestNothingIsAllocated(t *testing.T) {
	var q Request
	var p Response
	var c Chunked
	var common Header
	common.AddIDString(CacheControl, "no-store")
	out := make([]byte, 0, 4096)
	parse := func(head []byte) func() {
		return func() {
			if _, f := q.Parse(head, benchLimits); f != NoFault {
				t.Fatal(f)
			}
		}
	}
	parts := func(fields []byte) func() {
		method, target, version := []byte("GET"), []byte("/a/b"), []byte("HTTP/1.1")
		return func() {
			if f := q.ParseParts(method, target, version, fields, benchLimits); f != NoFault {
				t.Fatal(f)
			}
		}
	}
	respond := func() {
		if _, f := p.Parse(benchResponse, MethodGet, 100); f != NoFault {
			t.Fatal(f)
		}
	}
	mallocs.None(t, "Request.Parse", 10_000, parse(benchRequest))
	mallocs.None(t, "Request.Parse with rewriting", 10_000, parse(benchRewritten))
	mallocs.None(t, "Request.ParseParts", 10_000, parts(benchFields))
	mallocs.None(t, "a Host with an IPv6 address", 10_000, parts([]byte("Host: [2001:db8::1]:80\r\n")))
	mallocs.None(t, "Response.Parse", 10_000, respond)
	mallocs.None(t, "edits", 10_000, func() {
		respond()
		p.DelHopByHop()
		p.SetString("X-Server", "gateway")
		p.AddString("Via", "1.1 gateway")
		p.AddIDString(Via, "1.1 gateway")
		p.AddAll(&common)
		p.DelName([]byte("X-Server"))
		out = AppendStatusLine(out[:0], p.Status)
		out = p.AppendTo(out)
	})
	chunks := []byte("5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n")
	mallocs.None(t, "Chunked", 10_000, func() {
		c.Reset()
		c.Decode(chunks)
		out = AppendChunkSize(out[:0], 4096)
	})
}

func BenchmarkParseRequest(b *testing.B) {
	var r Request
	b.SetBytes(int64(len(benchRequest)))
	for b.Loop() {
		if _, f := r.Parse(benchRequest, benchLimits); f != NoFault {
			b.Fatal(f)
		}
	}
}

func BenchmarkParseParts(b *testing.B) {
	var r Request
	method, target, version := []byte("GET"), []byte("/users?page=2&page_size=5"), []byte("HTTP/1.1")
	b.SetBytes(int64(len(benchRequest)))
	for b.Loop() {
		if f := r.ParseParts(method, target, version, benchFields, benchLimits); f != NoFault {
			b.Fatal(f)
		}
	}
}

func BenchmarkParseResponse(b *testing.B) {
	var r Response
	b.SetBytes(int64(len(benchResponse)))
	for b.Loop() {
		if _, f := r.Parse(benchResponse, MethodGet, 100); f != NoFault {
			b.Fatal(f)
		}
	}
}

func BenchmarkAppendTo(b *testing.B) {
	var r Request
	dst := make([]byte, 0, 4096)
	for b.Loop() {
		r.Parse(benchRequest, benchLimits)
		r.DelHopByHop()
		r.SetString("Host", "api.example.com")
		r.AddString("X-Forwarded-For", "192.0.2.1")
		dst = r.AppendTo(dst[:0])
	}
}

func BenchmarkChunked(b *testing.B) {
	src := append(AppendChunkSize(nil, 4096), make([]byte, 4096)...)
	src = append(src, "\r\n"+LastChunk...)
	var c Chunked
	b.SetBytes(int64(len(src)))
	for b.Loop() {
		c.Reset()
		if _, _, done, _ := c.Decode(src); !done {
			b.Fatal("not done")
		}
	}
}
