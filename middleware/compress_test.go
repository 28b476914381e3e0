package middleware

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	brotli "github.com/molecule-man/go-brrr"

	"gateway/exchange"
	"gateway/metrics"
	"gateway/middleware/compress"
	"gateway/wire"
)

// compressOptions are the defaults that matter here.
func compressOptions() *compress.Options {
	return &compress.Options{
		Codings: []string{"zstd", "br", "gzip"}, Types: []string{"text/*", "application/json", "+json"},
		MinSize: 256, ZstdLevel: 3, BrotliLevel: 3, GzipLevel: 3, MaxStreams: 100,
		OriginEncoding: "identity", MaxDecompressed: 64 << 20, MaxRatio: 200, CrossSite: true,
	}
}

// users is n bytes of JSON.
func users(n int) []byte {
	var b []byte
	for id := 1; len(b) < n; id++ {
		b = fmt.Appendf(b, `{"id":%d,"name":"Ada Lovelace %d","email":"ada.%d@example.com"},`, id, id*7919%1000, id*104729%100000)
	}
	return b[:n]
}

// origin is a body in pieces.
type origin struct {
	pieces  []string
	err     error // after the pieces
	trailer string
	taken   int
}

func (o *origin) Next() ([]byte, error) {
	if o.taken == len(o.pieces) {
		return nil, o.err
	}
	o.taken++
	return []byte(o.pieces[o.taken-1]), nil
}

func (o *origin) Trailer() []byte { return []byte(o.trailer) }

// respond makes the response of an origin; fields are "Name: value".
func respond(x *exchange.Exchange, status int, body []byte, fields ...string) *wire.Header {
	h := x.Respond(status, body)
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		h.AddString(name, value)
	}
	return h
}

// received is what the client gets of a response, and the error that ended it.
func received(x *exchange.Exchange) (coded []byte, err error) {
	res := &x.Response
	coded = append(coded, res.Body...)
	for res.Stream != nil && err == nil {
		var piece []byte
		piece, err = res.Stream.Next()
		coded = append(coded, piece...)
	}
	release(res.Stream)
	res.Stream = nil
	if err == io.EOF {
		err = nil
	}
	return coded, err
}

// decodedBody decodes what a response's fields say.
func decodedBody(t testing.TB, h *wire.Header, coded []byte) string {
	t.Helper()
	c, ok := compress.Applied(h)
	if !ok {
		t.Fatalf("strange Content-Encoding %q", values(h, "Content-Encoding"))
	}
	if c == compress.Identity {
		return string(coded)
	}
	d := compress.NewEngine(metrics.New()).Decoder(c, coded, nil, compress.Limits{Bytes: 1 << 30, Ratio: 1e6}, 1)
	var out []byte
	for {
		piece, err := d.Next()
		out = append(out, piece...)
		if err == io.EOF {
			return string(out)
		}
		if err != nil {
			t.Fatalf("%v: %v", c, err)
		}
	}
}

func gzipped(body string) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	io.WriteString(w, body)
	w.Close()
	return b.Bytes()
}

func TestResponsesAreCodedAsAsked(t *testing.T) {
	s := NewCompress(compressOptions(), compress.NewEngine(metrics.New()), "r", nil)
	for asked, want := range map[string]string{
		"gzip, deflate, br, zstd": "zstd", "gzip, deflate, br": "br", "gzip": "gzip", "identity": "", "": "", "zstd;q=0, *": "br",
	} {
		for _, n := range []int{256, 30 << 10, compress.MaxWhole, 1 << 20} {
			for _, how := range []string{"whole", "known", "unknown", "first"} {
				x := ask(t, "192.0.2.1", "GET a /", "Accept-Encoding: "+asked)
				a := s.Before(x)
				body := users(n)
				h := respond(x, 200, body, "Content-Type: application/json", `ETag: "x"`, "Accept-Ranges: bytes",
					"Content-MD5: a", "Digest: b", "Content-Digest: c", "Repr-Digest: d", "X-Other: e")
				o := &origin{err: io.EOF}
				for rest := body; len(rest) > 0; {
					k := min(len(rest), 20_000)
					o.pieces = append(o.pieces, string(rest[:k]))
					rest = rest[k:]
				}
				switch how {
				case "known", "unknown":
					x.Response.Body, x.Response.Stream = nil, o
					if how == "unknown" {
						x.Response.Length = wire.LengthChunked
					}
				case "first":
					x.Response.Body, x.Response.Stream = []byte(o.pieces[0]), o
					o.taken = 1
				}
				s.After(x, a)
				length := x.Response.Length
				coded, err := received(x)
				if err != nil || decodedBody(t, h, coded) != string(body) {
					t.Errorf("%q, %d bytes, %s: another body: %v", asked, n, how, err)
				}
				if length >= 0 && length != int64(len(coded)) {
					t.Errorf("%q, %d bytes, %s: length %d of %d", asked, n, how, length, len(coded))
				}
				if known := length >= 0; how != "unknown" && n <= compress.MaxWhole && !known {
					t.Errorf("%q, %d bytes, %s: the length is not told", asked, n, how)
				}
				f := func(name, want string) {
					t.Helper()
					if got := values(h, name); got != want {
						t.Errorf("%q, %d bytes, %s: %s %q, want %q", asked, n, how, name, got, want)
					}
				}
				f("Content-Encoding", want)
				f("Vary", "Accept-Encoding")
				f("X-Other", "e")
				if want == "" {
					f("ETag", `"x"`)
					f("Accept-Ranges", "bytes")
					f("Digest", "b")
					continue
				}
				f("ETag", `"x-`+want+`"`)
				for _, name := range []string{"Accept-Ranges", "Content-MD5", "Digest", "Content-Digest", "Repr-Digest"} {
					f(name, "")
				}
			}
		}
	}
}

func TestResponsesThatStayAsTheyAre(t *testing.T) {
	registry := metrics.New()
	s := NewCompress(compressOptions(), compress.NewEngine(registry), "r", nil)
	body := users(10_000)
	f := func(name, reason, wantVary string, status int, body []byte, request []string, response ...string) {
		t.Helper()
		x := ask(t, "192.0.2.1", "GET a /", append(request, "Accept-Encoding: gzip")...)
		a := s.Before(x)
		h := respond(x, status, body, response...)
		coding := values(h, "Content-Encoding")
		skipped := func() uint64 {
			return registry.Counter("gateway_compress_skipped_total", "Responses that were not coded, by reason.", "reason", reason).Value()
		}
		before := uint64(0)
		if reason != "" {
			before = skipped()
		}
		s.After(x, a)
		got, err := received(x)
		if err != nil || !bytes.Equal(got, body) || values(h, "Content-Encoding") != coding {
			t.Errorf("%s: the body is another one, in coding %q: %v", name, values(h, "Content-Encoding"), err)
		}
		if got := values(h, "Vary"); got != wantVary {
			t.Errorf("%s: Vary %q", name, got)
		}
		if reason != "" && skipped() != before+1 {
			t.Errorf("%s is not counted as %s", name, reason)
		}
	}
	const json, yes = "Content-Type: application/json", "Accept-Encoding"
	f("an image", "type", "", 200, body, nil, "Content-Type: image/png")
	f("no type", "type", "", 200, body, nil)
	f("a small body", "small", "", 200, body[:255], nil, json)
	f("an empty body", "small", "", 200, nil, nil, json)
	f("a coded body", "coded", "", 200, body, nil, json, "Content-Encoding: br")
	f("an unknown coding", "coded", "", 200, body, nil, json, "Content-Encoding: lzma")
	f("two codings", "coded", "", 200, body, nil, json, "Content-Encoding: br, gzip")
	f("no-transform", "no_transform", "", 200, body, nil, json, "Cache-Control: max-age=1, No-Transform")
	f("a client's no-transform", "no_transform", yes, 200, body, []string{"Cache-Control: no-transform"}, json)
	f("a part", "range", yes, 206, body, nil, json, "Content-Range: bytes 0-9999/20000")
	f("a whole for a range", "range", yes, 200, body, []string{"Range: bytes=0-9"}, json)
	f("no content", "", "", 204, nil, nil, json)
	f("reset content", "", "", 205, nil, nil, json)
	f("upgrade", "", "", 101, nil, nil)

	noise := make([]byte, 300)
	for i := range noise {
		noise[i] = byte(i * i * 7919 >> 3)
	}
	f("noise", "not_smaller", yes, 200, noise, nil, json)

	o := compressOptions()
	o.CrossSite = false
	s = NewCompress(o, compress.NewEngine(registry), "r", nil)
	f("another site", "cross_site", yes, 200, body, []string{"Sec-Fetch-Site: cross-site"}, json)
	f("a neighbour", "cross_site", yes, 200, body, []string{"Sec-Fetch-Site: same-site"}, json)
	f("another origin", "cross_site", yes, 200, body, []string{"Origin: https://b"}, json)
	f("a secret origin", "cross_site", yes, 200, body, []string{"Origin: null"}, json)
	f("another page", "cross_site", yes, 200, body, []string{"Referer: https://b/a"}, json)
}

func TestOwnPagesGetCodedAnswers(t *testing.T) {
	o := compressOptions()
	o.CrossSite = false
	s := NewCompress(o, compress.NewEngine(metrics.New()), "r", nil)
	f := func(fields ...string) {
		t.Helper()
		x := ask(t, "192.0.2.1", "GET a /", append(fields, "Accept-Encoding: gzip")...)
		x.Scheme = "https"
		a := s.Before(x)
		h := respond(x, 200, users(1000), "Content-Type: text/html")
		s.After(x, a)
		if values(h, "Content-Encoding") != "gzip" {
			t.Errorf("%q: not coded", fields)
		}
	}
	f()
	f("Sec-Fetch-Site: same-origin", "Origin: null")
	f("Sec-Fetch-Site: none")
	f("Origin: https://A")
	f("Referer: https://a/b?c")
	f("Referer: https://a?c")
}

func TestCompressThatIsOffDoesNothing(t *testing.T) {
	s := NewCompress(nil, compress.NewEngine(metrics.New()), "r", nil)
	x := ask(t, "192.0.2.1", "GET a /", "Accept-Encoding: gzip", `If-None-Match: "x-gzip"`)
	a := s.Before(x)
	h := respond(x, 200, users(1000), "Content-Type: text/html")
	s.After(x, a)
	if h.Len() != 1 || values(&x.Request.Header, "If-None-Match") != `"x-gzip"` || x.Response.Stream != nil {
		t.Errorf("%q", h.AppendTo(nil))
	}
}

func TestVaryIsKept(t *testing.T) {
	s := NewCompress(compressOptions(), compress.NewEngine(metrics.New()), "r", nil)
	f := func(want string, vary ...string) {
		t.Helper()
		x := ask(t, "192.0.2.1", "GET a /", "Accept-Encoding: gzip")
		a := s.Before(x)
		h := respond(x, 200, users(1000), append(vary, "Content-Type: text/html")...)
		s.After(x, a)
		if got := values(h, "Vary"); got != want {
			t.Errorf("%q: %q, want %q", vary, got, want)
		}
	}
	f("Accept-Encoding")
	f("Origin|Accept-Encoding", "Vary: Origin")
	f("Origin, accept-encoding", "Vary: Origin, accept-encoding")
	f("Origin|Accept-Encoding", "Vary: Origin", "Vary: Accept-Encoding")
	f("*", "Vary: *")
}

func TestHeadHasTheFieldsOfGet(t *testing.T) {
	s := NewCompress(compressOptions(), compress.NewEngine(metrics.New()), "r", nil)
	x := ask(t, "192.0.2.1", "HEAD a /", "Accept-Encoding: br")
	a := s.Before(x)
	h := respond(x, 200, nil, "Content-Type: text/html", `ETag: "x"`, "Accept-Ranges: bytes")
	x.Response.Length = 5000
	s.After(x, a)
	if values(h, "Content-Encoding") != "br" || values(h, "ETag") != `"x-br"` || values(h, "Vary") != "Accept-Encoding" ||
		values(h, "Accept-Ranges") != "" || x.Response.Length >= 0 || len(x.Response.Body) > 0 || x.Response.Stream != nil {
		t.Errorf("%q, length %d", h.AppendTo(nil), x.Response.Length)
	}
	x = ask(t, "192.0.2.1", "HEAD a /", "Accept-Encoding: br")
	a = s.Before(x)
	h = respond(x, 200, nil, "Content-Type: text/html", `ETag: "x"`)
	x.Response.Length = 100
	s.After(x, a)
	if values(h, "Content-Encoding") != "" || values(h, "ETag") != `"x"` || x.Response.Length != 100 {
		t.Errorf("small: %q, length %d", h.AppendTo(nil), x.Response.Length)
	}
}

// A body that comes again and again is coded once, unless its origin does not
// want it to be kept.
func TestBodiesThatComeAgainAreCodedOnce(t *testing.T) {
	o := compressOptions()
	f := func(want uint64, control string) {
		t.Helper()
		registry := metrics.New()
		s := NewCompress(o, compress.NewEngine(registry), "r", nil)
		for range 10 {
			x := ask(t, "192.0.2.1", "GET a /", "Accept-Encoding: gzip")
			a := s.Before(x)
			h := respond(x, 200, users(5000), "Content-Type: text/html", `ETag: "x"`, "Cache-Control: "+control)
			s.After(x, a)
			length := x.Response.Length
			coded, err := received(x)
			if err != nil || length != int64(len(coded)) || values(h, "ETag") != `"x-gzip"` || decodedBody(t, h, coded) != string(users(5000)) {
				t.Errorf("%v, %d bytes: %q", err, len(coded), h.AppendTo(nil))
			}
		}
		got := registry.Counter("gateway_compress_memo_hits_total",
			"Responses that were not coded anew: the origin had sent a body with the same bytes before.", "coding", "gzip").Value()
		if got != want {
			t.Errorf("%q: %d of ten were not coded anew, want %d", control, got, want)
		}
	}
	f(0, "max-age=60") // it is off in these options
	o.Memo = true
	f(7, "max-age=60")
	f(7, `no-cache, private="Set-Cookie"`)
	f(0, "max-age=60, no-store")
	f(0, "Private")
}

func TestOriginsAreAskedForPlainBodies(t *testing.T) {
	o := compressOptions()
	f := func(want string, fields ...string) {
		t.Helper()
		x := ask(t, "192.0.2.1", "GET a /", fields...)
		NewCompress(o, compress.NewEngine(metrics.New()), "r", nil).Before(x)
		if got := values(&x.Request.Header, "Accept-Encoding"); got != want {
			t.Errorf("%q: the origin is asked for %q, want %q", fields, got, want)
		}
	}
	f("identity")
	f("identity", "Accept-Encoding: gzip", "Accept-Encoding: br")
	o.OriginEncoding = "client"
	f("")
	f("gzip|br", "Accept-Encoding: gzip", "Accept-Encoding: br")
}

func TestConditionalRequests(t *testing.T) {
	o := compressOptions()
	f := func(field, forwarded, answered string) {
		t.Helper()
		s := NewCompress(o, compress.NewEngine(metrics.New()), "r", nil)
		x := ask(t, "192.0.2.1", "GET a /", "Accept-Encoding: zstd", field)
		name, _, _ := strings.Cut(field, ":")
		a := s.Before(x)
		if got := values(&x.Request.Header, name); got != forwarded {
			t.Errorf("%s: forwarded as %s, want %s", field, got, forwarded)
		}
		h := respond(x, 304, nil, `ETag: "x"`)
		s.After(x, a)
		if got := values(h, "ETag"); got != answered || values(h, "Vary") != "Accept-Encoding" || values(h, "Content-Encoding") != "" {
			t.Errorf("%s: answered %q, want %s", field, h.AppendTo(nil), answered)
		}
	}
	f(`If-None-Match: "x-zstd"`, `"x"`, `"x-zstd"`)
	f(`If-None-Match: "x-br"`, `"x"`, `"x-br"`)
	f(`If-None-Match: "x"`, `"x"`, `"x"`)
	f(`If-None-Match: W/"x-gzip", "y"`, `W/"x", "y"`, `"x-gzip"`)
	f("If-None-Match: \"y\"\r\nIf-None-Match: \"x-zstd\"", `"y", "x"`, `"x-zstd"`)
	f(`If-None-Match: *`, `*`, `"x"`)
	f(`If-Match: "x-zstd"`, `"x"`, `"x"`)
	f(`If-Range: "x-zstd"`, `"x-zstd"`, `"x"`)
	o.OriginEncoding = "client"
	f(`If-None-Match: "x-zstd"`, `"x", "x-zstd"`, `"x-zstd"`)

	long := `"` + strings.Repeat("l", 2000) + `", "x-br"`
	f("If-None-Match: "+long, strings.Replace(long, "-br", "", 1)+`, "x-br"`, `"x-br"`)
}

func TestEventsAreSentAsTheyCome(t *testing.T) {
	s := NewCompress(compressOptions(), compress.NewEngine(metrics.New()), "r", nil)
	for _, coding := range []string{"zstd", "br", "gzip"} {
		x := ask(t, "192.0.2.1", "GET a /", "Accept-Encoding: "+coding)
		a := s.Before(x)
		o := &origin{pieces: []string{"data: 1\n\n", "data: 2\n\n", "data: 3\n\n"}, err: io.EOF, trailer: "X-A: b\r\nDigest: c\r\nX-D: e\r\n"}
		h := respond(x, 200, nil, "Content-Type: text/event-stream")
		x.Response.Length, x.Response.Stream = wire.LengthChunked, o
		s.After(x, a)
		if o.taken != 0 || len(x.Response.Body) > 0 {
			t.Fatalf("%s: the head waits for an event", coding)
		}
		client := &arrived{}
		d := compress.NewEngine(metrics.New()).Decoder(mustCoding(h), nil, client, compress.Limits{Bytes: 1 << 20, Ratio: 100}, 1)
		client.stream = x.Response.Stream
		for i, want := range o.pieces {
			piece, err := d.Next()
			if string(piece) != want || err != nil || o.taken != i+1 {
				t.Fatalf("%s: got %q, %v after %d events", coding, piece, err, o.taken)
			}
		}
		if _, err := d.Next(); err != io.EOF {
			t.Errorf("%s: %v", coding, err)
		}
		if got := string(x.Response.Stream.Trailer()); got != "X-A: b\r\nX-D: e\r\n" {
			t.Errorf("%s: trailer %q", coding, got)
		}
		x.ReleaseBody()
	}
}

// arrived are the pieces as a client gets them.
type arrived struct{ stream exchange.Stream }

func (a *arrived) Next() ([]byte, error) { return a.stream.Next() }

func mustCoding(h *wire.Header) compress.Coding {
	c, _ := compress.Applied(h)
	return c
}

func TestBrokenBodiesStayBroken(t *testing.T) {
	s := NewCompress(compressOptions(), compress.NewEngine(metrics.New()), "r", nil)
	f := func(length int64, err, want error, pieces ...string) {
		t.Helper()
		x := ask(t, "192.0.2.1", "GET a /", "Accept-Encoding: gzip")
		a := s.Before(x)
		respond(x, 200, nil, "Content-Type: text/plain")
		x.Response.Length, x.Response.Stream = length, &origin{pieces: pieces, err: err}
		s.After(x, a)
		coded, got := received(x)
		if got != want {
			t.Errorf("length %d, %d pieces: %v, want %v", length, len(pieces), got, want)
		}
		if r, err := gzip.NewReader(bytes.NewReader(coded)); err == nil {
			if _, err := io.ReadAll(r); err == nil {
				t.Errorf("length %d, %d pieces: what arrives looks complete", length, len(pieces))
			}
		}
	}
	piece := string(users(1000))
	f(wire.LengthChunked, io.ErrUnexpectedEOF, io.ErrUnexpectedEOF, piece, piece)
	f(1<<20, io.ErrUnexpectedEOF, io.ErrUnexpectedEOF, piece)
	f(5000, io.ErrUnexpectedEOF, io.ErrUnexpectedEOF, piece)
	f(5000, io.EOF, io.ErrUnexpectedEOF, piece)
	f(500, io.EOF, io.ErrUnexpectedEOF, piece)
	f(4000, io.EOF, io.ErrUnexpectedEOF, piece, piece, piece, piece, piece, piece)
}

func TestCodingsAreTakenOffForClientsThatCannotReadThem(t *testing.T) {
	o := compressOptions()
	o.Decompress, o.OriginEncoding = true, "client"
	s := NewCompress(o, compress.NewEngine(metrics.New()), "r", nil)
	text := string(users(50_000))
	var b bytes.Buffer
	w, _ := brotli.NewWriter(&b, 4)
	io.WriteString(w, text)
	w.Close()
	f := func(asked, coding, body, want, tag string, stream bool) {
		t.Helper()
		x := ask(t, "192.0.2.1", "GET a /", "Accept-Encoding: "+asked)
		a := s.Before(x)
		h := respond(x, 200, []byte(body), "Content-Type: text/plain", "Content-Encoding: "+coding, `ETag: "x"`, "Accept-Ranges: bytes")
		if stream {
			x.Response.Body, x.Response.Length = nil, wire.LengthChunked
			x.Response.Stream = &origin{pieces: []string{body[:100], body[100:]}, err: io.EOF}
		}
		s.After(x, a)
		got, err := received(x)
		if err != nil || values(h, "Content-Encoding") != want || decodedBody(t, h, got) != text {
			t.Errorf("%s for %q: %v, %q", coding, asked, err, h.AppendTo(nil))
		}
		if values(h, "ETag") != tag || values(h, "Vary") != "Accept-Encoding" {
			t.Errorf("%s for %q: %q", coding, asked, h.AppendTo(nil))
		}
	}
	for _, stream := range []bool{false, true} {
		f("br", "br", b.String(), "br", `"x"`, stream)
		f("identity", "br", b.String(), "", `W/"x"`, stream)
		f("gzip", "br", b.String(), "gzip", `W/"x"`, stream)
		f("", "gzip", string(gzipped(text)), "", `W/"x"`, stream)
		f("zstd", "x-gzip", string(gzipped(text)), "zstd", `W/"x"`, stream)
	}

	// What can't be decoded breaks off.
	bad := func(body string, want error) {
		t.Helper()
		x := ask(t, "192.0.2.1", "GET a /")
		a := s.Before(x)
		respond(x, 200, []byte(body), "Content-Type: image/x", "Content-Encoding: gzip")
		s.After(x, a)
		if got, err := received(x); err != want || len(got) > 2<<20 {
			t.Errorf("%d bytes, %v; want %v", len(got), err, want)
		}
	}
	bad(string(gzipped(text)[:1000]), compress.ErrCorrupt)
	bad(text, compress.ErrCorrupt)
	bad(string(gzipped(strings.Repeat("\x00", 10<<20))), compress.ErrBomb)
}

func TestStreamsBeyondTheLimitAreSentPlain(t *testing.T) {
	o := compressOptions()
	o.MaxStreams = 1
	s := NewCompress(o, compress.NewEngine(metrics.New()), "r", nil)
	f := func(want string) *exchange.Exchange {
		t.Helper()
		x := ask(t, "192.0.2.1", "GET a /", "Accept-Encoding: gzip")
		a := s.Before(x)
		h := respond(x, 200, nil, "Content-Type: text/event-stream", `ETag: "x"`)
		x.Response.Length, x.Response.Stream = wire.LengthChunked, &origin{pieces: []string{"a"}, err: io.EOF}
		s.After(x, a)
		if got := values(h, "Content-Encoding"); got != want {
			t.Errorf("coding %q, want %q", got, want)
		}
		return x
	}
	first := f("gzip")
	f("")
	first.ReleaseBody() // its client has left
	f("gzip")
}

func TestCompressionAllocatesNothing(t *testing.T) {
	s := NewCompress(compressOptions(), compress.NewEngine(metrics.New()), "r", nil)
	body := users(30 << 10)
	large := users(80 << 10)
	f := func(name, fields string, body []byte, stream bool) {
		t.Run(name, func(t *testing.T) {
			section := []byte("Host: a\r\nIf-None-Match: \"x-zstd\"\r\n" + fields + "\r\n\r\n")
			verb, target, version := []byte("GET"), []byte("/"), []byte("HTTP/1.1")
			o := &again{body: body}
			codingAllocations(t, func() {
				x := exchange.Acquire()
				if x.Request.ParseParts(verb, target, version, section, &wire.Limits{}) != wire.NoFault {
					t.Fatal("the request is not valid")
				}
				a := s.Before(x)
				h := x.Respond(200, body)
				h.AddString("Content-Type", "application/json; charset=utf-8")
				h.AddString("ETag", `"y"`)
				if stream {
					o.given = false
					x.Response.Body, x.Response.Stream = nil, o
				}
				s.After(x, a)
				if stream || x.Response.Stream != nil {
					x.Response.Stream.Next()
				}
				x.ReleaseBody()
				exchange.Release(x)
			})
		})
	}
	for _, coding := range []string{"zstd", "br", "gzip", "identity"} {
		f(coding, "Accept-Encoding: "+coding, body, false)
	}
	f("parsed", "Accept-Encoding: gzip;q=0.9 , br;q=0.8, *;q=0", body, false)
	f("collected", "Accept-Encoding: gzip", large, true)
}

// codingAllocations is zeroAllocations for work that takes 0.1 ms.
func codingAllocations(t *testing.T, f func()) {
	t.Helper()
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		t.Skip("the race detector allocates")
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // each P has a pool that is filled at its first use
	for range 100 {
		f()
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // the collector would empty the pools
	const runs = 10_000
	var before, after runtime.MemStats
	begun := time.Now()
	runtime.ReadMemStats(&before)
	for range runs {
		f()
	}
	runtime.ReadMemStats(&after)
	clock := 4 * uint64(time.Since(begun)/time.Second+1) // what it makes anew each second
	if n := after.Mallocs - before.Mallocs; n > runs/1000+clock {
		t.Errorf("%d allocations in %d runs", n, runs)
	}
}

// again is a body in one piece.
type again struct {
	body  []byte
	given bool
}

func (o *again) Next() ([]byte, error) {
	if o.given {
		return nil, io.EOF
	}
	o.given = true
	return o.body, nil
}

func (o *again) Trailer() []byte { return nil }

// BenchmarkCompress is a response of 30 KiB through the stage.
func BenchmarkCompress(b *testing.B) {
	s := NewCompress(compressOptions(), compress.NewEngine(metrics.New()), "r", nil)
	body := users(30 << 10)
	for _, coding := range []string{"zstd", "br", "gzip", "identity"} {
		b.Run(coding, func(b *testing.B) {
			section := []byte("Host: a\r\nAccept-Encoding: " + coding + "\r\n\r\n")
			verb, target, version := []byte("GET"), []byte("/"), []byte("HTTP/1.1")
			b.ReportAllocs()
			for b.Loop() {
				x := exchange.Acquire()
				_ = x.Request.ParseParts(verb, target, version, section, &wire.Limits{})
				a := s.Before(x)
				x.Respond(200, body).AddString("Content-Type", "application/json")
				s.After(x, a)
				x.ReleaseBody()
				exchange.Release(x)
			}
		})
	}
}
