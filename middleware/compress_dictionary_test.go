package middleware

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"gateway/exchange"
	"gateway/metrics"
	"gateway/middleware/compress"
	"gateway/wire"
)

// has is the field of a client that has this dictionary.
func has(body string) string {
	hash := sha256.Sum256([]byte(body))
	return "Available-Dictionary: :" + base64.StdEncoding.EncodeToString(hash[:]) + ":"
}

// withDictionary decodes dcz.
func withDictionary(t *testing.T, dictionary string, coded []byte) string {
	t.Helper()
	hash := sha256.Sum256([]byte(dictionary))
	if len(coded) < 40 || !bytes.Equal(coded[8:40], hash[:]) {
		t.Fatalf("not coded with that dictionary: % x", coded[:min(len(coded), 40)])
	}
	r, err := zstd.NewReader(nil, zstd.WithDecoderDictRaw(0, []byte(dictionary)))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	plain, err := r.DecodeAll(coded, nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(plain)
}

// dictionaryStage is a stage and what asks it: for a path, with these request
// fields, answered with this body.
func dictionaryStage(t *testing.T, mode string) func(path string, request []string, body string, stream bool, fields ...string) (*exchange.Exchange, []byte) {
	o := compressOptions()
	o.Dictionary, o.MaxDictionary = mode, 512<<10
	s := NewCompress(o, compress.NewEngine(metrics.New()), "r", []string{"/app/*"})
	return func(path string, request []string, body string, stream bool, fields ...string) (*exchange.Exchange, []byte) {
		t.Helper()
		x := ask(t, "192.0.2.1", "GET a "+path, request...)
		a := s.Before(x)
		for _, name := range []string{"Available-Dictionary", "Dictionary-ID"} {
			if got := values(&x.Request.Header, name); got != "" {
				t.Errorf("the origin gets %s: %s", name, got)
			}
		}
		respond(x, 200, []byte(body), append(fields, "Content-Type: text/javascript")...)
		if stream {
			o := &origin{err: io.EOF}
			for rest := body; len(rest) > 0; {
				n := min(len(rest), 10_000)
				o.pieces = append(o.pieces, rest[:n])
				rest = rest[n:]
			}
			x.Response.Body, x.Response.Stream = nil, o
		}
		s.After(x, a)
		got, err := received(x)
		if err != nil {
			t.Fatal(err)
		}
		return x, got
	}
}

const accepts = "Accept-Encoding: gzip, deflate, br, zstd, dcb, dcz"

func TestLaterVersionsAreCodedWithTheOriginsDictionary(t *testing.T) {
	const mark = `Use-As-Dictionary: match="/app/*.js"`
	for _, size := range []int{20_000, 400_000} { // in one go, and in pieces
		for _, stream := range []bool{false, true} {
			get := dictionaryStage(t, "origin")
			old := string(users(size))
			next := strings.Replace(old, "Ada", "Eve", 5)
			if _, got := get("/app/1.js", nil, old, stream, mark); string(got) != old {
				t.Fatal("another body")
			}
			x, got := get("/app/2.js", []string{accepts, has(old), "Dictionary-ID: \"a\""}, next, stream, `ETag: "x"`)
			h := x.Response.Header
			if values(h, "Content-Encoding") != "dcz" || values(h, "Vary") != "Accept-Encoding|Available-Dictionary" || values(h, "ETag") != `"x-dcz"` {
				t.Errorf("%d bytes: %q", size, h.AppendTo(nil))
			}
			if withDictionary(t, old, got) != next || len(got) > size/100 {
				t.Errorf("%d bytes, stream %v: %d bytes of another body", size, stream, len(got))
			}
		}
	}
}

func TestWhoCannotUseADictionaryGetsAnotherCoding(t *testing.T) {
	const mark = `Use-As-Dictionary: match="/app/*.js"`
	old := string(users(20_000))
	get := dictionaryStage(t, "origin")
	get("/app/1.js", nil, old, false, mark)
	f := func(want string, request ...string) {
		t.Helper()
		x, got := get("/app/2.js", request, old, false)
		h := x.Response.Header
		if values(h, "Content-Encoding") != want || values(h, "Vary") != "Accept-Encoding|Available-Dictionary" {
			t.Errorf("%q: %q", request, h.AppendTo(nil))
		}
		if want != "dcz" && decodedBody(t, h, got) != old {
			t.Errorf("%q: another body", request)
		}
	}
	f("dcz", accepts, has(old))
	f("dcz", accepts, has(old), "Sec-Fetch-Site: same-origin")
	f("dcz", accepts, has(old), "Sec-Fetch-Site: none")
	f("zstd", accepts)
	f("zstd", accepts, has("another"))
	f("zstd", accepts, "Available-Dictionary: ?")
	f("zstd", "Accept-Encoding: gzip, deflate, br, zstd", has(old))
	f("zstd", "Accept-Encoding: *", has(old)) // who can decode it names it
	f("zstd", "Accept-Encoding: zstd, dcz;q=0", has(old))
	f("br", "Accept-Encoding: dcz;q=0.5, br", has(old))
	f("zstd", accepts, has(old), "Sec-Fetch-Site: cross-site")
	f("zstd", accepts, has(old), "Sec-Fetch-Site: same-site")
	f("", has(old))
}

func TestWhatBecomesADictionary(t *testing.T) {
	const mark = `Use-As-Dictionary: match="/app/*.js"`
	f := func(want bool, body string, stream bool, fields ...string) {
		t.Helper()
		get := dictionaryStage(t, "origin")
		get("/app/1.js", nil, body, stream, fields...)
		x, _ := get("/app/2.js", []string{accepts, has(body)}, string(users(5000)), false)
		if got := values(x.Response.Header, "Content-Encoding") == "dcz"; got != want {
			t.Errorf("%d bytes, %q: a dictionary: %v", len(body), fields, got)
		}
	}
	body := string(users(20_000))
	f(true, body, false, mark)
	f(true, body, true, mark)
	f(true, body, false, mark, "Cache-Control: private, max-age=60")
	f(false, body, false)
	f(false, body, false, `Use-As-Dictionary: match="/a", type=other`)
	f(false, body, false, mark, "Cache-Control: no-store")
	f(false, body, false, mark, "Content-Encoding: gzip")
	f(true, string(users(512<<10)), true, mark)
	f(false, string(users(512<<10+1)), true, mark)
	f(false, string(users(512<<10+1)), false, mark)

	// A body that broke off is none.
	o := compressOptions()
	o.Dictionary, o.MaxDictionary = "origin", 512<<10
	e := compress.NewEngine(metrics.New())
	s := NewCompress(o, e, "r", nil)
	x := ask(t, "192.0.2.1", "GET a /")
	a := s.Before(x)
	respond(x, 200, nil, "Content-Type: text/plain", mark)
	x.Response.Length, x.Response.Stream = wire.LengthChunked, &origin{pieces: []string{body}, err: io.ErrUnexpectedEOF}
	s.After(x, a)
	received(x)
	name, field, _ := strings.Cut(has(body), ": ")
	if e.Dictionaries("r").Find([]byte(field)) != nil {
		t.Errorf("%s: part of a body became a dictionary", name)
	}
}

func TestADictionaryIsChosenWhereTheOriginChoosesNone(t *testing.T) {
	const kept = "Cache-Control: max-age=60"
	f := func(want string, stream bool, request []string, fields ...string) {
		t.Helper()
		get := dictionaryStage(t, "auto")
		x, _ := get("/app/1", request, string(users(20_000)), stream, fields...)
		if got := values(x.Response.Header, "Use-As-Dictionary"); got != want {
			t.Errorf("%q, %q: Use-As-Dictionary %q", request, fields, got)
		}
	}
	const ours = `match="/app*"`
	coded := []string{accepts}
	f(ours, false, nil, kept)
	f(ours, false, coded, kept)
	f(ours, true, coded, kept)
	f("", true, nil, kept) // that would delay it
	f(ours, false, nil, "Cache-Control: public", kept)
	f("", false, nil)
	f("", false, nil, kept, "Set-Cookie: a=b")
	f("", false, nil, "Cache-Control: private, max-age=60")
	f("", false, nil, "Cache-Control: no-cache, max-age=60")
	f("", false, nil, "Cache-Control: no-store, max-age=60")
	f("", false, nil, "Cache-Control: max-age=0")
	f(`match="/x"`, false, nil, kept, `Use-As-Dictionary: match="/x"`)

	get := dictionaryStage(t, "auto")
	list := string(users(60_000))
	one, two := list[:30_000], list[30_000:]
	get("/app?page=1", coded, one, false, kept)
	x, got := get("/app?page=2", []string{accepts, has(one)}, two, false, kept)
	if values(x.Response.Header, "Content-Encoding") != "dcz" || values(x.Response.Header, "Use-As-Dictionary") != "" || withDictionary(t, one, got) != two {
		t.Errorf("%q", x.Response.Header.AppendTo(nil))
	}
	x, _ = get("/app?page=1", coded, one, false, kept)
	if values(x.Response.Header, "Use-As-Dictionary") != ours {
		t.Errorf("another client does not get to know the dictionary: %q", x.Response.Header.AppendTo(nil))
	}
}

func TestDictionaryStagesAllocateNothing(t *testing.T) {
	o := compressOptions()
	o.Dictionary, o.MaxDictionary = "auto", 256<<10
	e := compress.NewEngine(metrics.New())
	s := NewCompress(o, e, "r", nil)
	body := users(30 << 10)
	e.Dictionaries("r").Elect([]byte("/?"), body, 0)
	section := []byte("Host: a\r\n" + accepts + "\r\n" + has(string(body)) + "\r\n\r\n")
	verb, target, version := []byte("GET"), []byte("/"), []byte("HTTP/1.1")
	codingAllocations(t, func() {
		x := exchange.Acquire()
		if x.Request.ParseParts(verb, target, version, section, &wire.Limits{}) != wire.NoFault {
			t.Fatal("the request is not valid")
		}
		a := s.Before(x)
		h := x.Respond(200, body)
		h.AddString("Content-Type", "application/json")
		h.AddString("Cache-Control", "max-age=60")
		s.After(x, a)
		if string(h.Get(wire.ContentEncoding)) != "dcz" {
			t.Fatalf("%q", h.AppendTo(nil))
		}
		x.ReleaseBody()
		exchange.Release(x)
	})
}
