package proxy

import (
	"bytes"
	"compress/zlib"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"gateway/internal/browser"
	"gateway/internal/mallocs"
	"gateway/internal/origin"
	"gateway/metrics"
	"gateway/middleware/compress"
)

// records is n bytes of JSON lines.
func records(n int) string {
	var b bytes.Buffer
	for id := 1; b.Len() < n; id++ {
		fmt.Fprintf(&b, `{"id":%d,"name":"Ada Lovelace %d","email":"ada.%d@example.com"}`+"\n", id, id*7919%1000, id*104729%100000)
	}
	return b.String()[:n]
}

// codedSizes are the sizes of bodies around the limits of coding in one go and
// in pieces; 256 is the smallest that is coded when its length is known.
var codedSizes = []int{0, 1, 255, 256, 64 << 10, 10 << 20}

// startCoding runs a gateway with a route for each coding, "/br/…", and an
// origin that answers "/whole/N" and "/stream/N" with N bytes of records.
func startCoding(t *testing.T) *running {
	t.Helper()
	all := records(codedSizes[len(codedSizes)-1])
	o := origin.Start(t, func(c *origin.Conn) {
		for {
			kind, size, _ := strings.Cut(strings.TrimPrefix(c.Read().Target, "/"), "/")
			n, err := strconv.Atoi(size)
			const head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
			switch {
			case err != nil:
				page := "<!doctype html><title>page</title><link rel=icon href='data:,'>"
				c.Write(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s", len(page), page))
			case kind == "whole":
				c.Write(fmt.Sprintf(head+"Content-Length: %d\r\n\r\n%s", n, all[:n]))
			default:
				c.Write(head + "Transfer-Encoding: chunked\r\n\r\n")
				for rest := all[:n]; len(rest) > 0; {
					k := min(len(rest), 32<<10)
					c.Write(fmt.Sprintf("%x\r\n%s\r\n", k, rest[:k]))
					rest = rest[k:]
				}
				c.Write("0\r\n\r\n")
			}
		}
	})
	text := "[upstream.app]\nservers = [\"" + o.Address + "\"]\n"
	for _, coding := range codingNames {
		text += fmt.Sprintf("[[route]]\npath = \"/%s/*\"\nstrip_prefix = \"/%s\"\nupstream = \"app\"\ncompress = [\"%s\"]\n", coding, coding, coding)
	}
	return start(t, "%s", text+"[[route]]\nupstream = \"app\"\n")
}

var codingNames = []string{"zstd", "br", "gzip", "deflate"}

// expected reports whether an answer may have come in a coding. A stream whose
// end arrives together with its beginning is one of known length.
func expected(got, coding, kind string, size int) bool {
	switch {
	case size >= 256:
		return got == coding
	case kind == "whole":
		return got == ""
	}
	return got == coding || got == ""
}

// decodeBy is a stream as the coding's own tool decodes it.
func decodeBy(t *testing.T, coding string, body io.Reader) io.Reader {
	t.Helper()
	if coding == "" {
		return body
	}
	if coding == "deflate" { // has no tool
		r, err := zlib.NewReader(body)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	cmd := exec.Command(map[string]string{"zstd": "zstd", "br": "brotli", "gzip": "gzip"}[coding], "-dc", "-")
	cmd.Stdin = body
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var failure bytes.Buffer
	cmd.Stderr = &failure
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v; scripts/needs installs the reference tools", err)
	}
	t.Cleanup(func() {
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v: %s", coding, err, &failure)
		}
	})
	return out
}

func TestReferenceToolsDecodeEveryCoding(t *testing.T) {
	r := startCoding(t)
	all := records(codedSizes[len(codedSizes)-1])
	for _, coding := range codingNames {
		for _, kind := range []string{"whole", "stream"} {
			for _, size := range codedSizes {
				if mallocs.Race && size > 1<<20 && kind == "whole" {
					continue // in pieces to the encoder, too
				}
				t.Run(fmt.Sprintf("%s/%s/%d", coding, kind, size), func(t *testing.T) {
					url := fmt.Sprintf("http://%s/%s/%s/%d", r.address, coding, kind, size)
					q, _ := http.NewRequestWithContext(t.Context(), "GET", url, nil)
					q.Header.Set("Accept-Encoding", coding)
					a, err := http.DefaultTransport.RoundTrip(q)
					if err != nil {
						t.Fatal(err)
					}
					defer a.Body.Close()
					came := a.Header.Get("Content-Encoding")
					if !expected(came, coding, kind, size) {
						t.Errorf("Content-Encoding %q", came)
					}
					got, err := io.ReadAll(decodeBy(t, came, a.Body))
					if err != nil || string(got) != all[:size] {
						t.Errorf("the tool decodes %d other bytes: %v", len(got), err)
					}
					if mallocs.Race && size > 1<<20 {
						return // twice is too slow
					}
					curl := exec.CommandContext(t.Context(), "curl", "-sS", "--compressed", "--max-time", "60", "-H", "Accept-Encoding: "+coding, url)
					if got, err = curl.Output(); err != nil || string(got) != all[:size] {
						t.Errorf("curl decodes %d other bytes: %v", len(got), err)
					}
				})
			}
		}
	}
}

func TestChromiumDecodesEveryCoding(t *testing.T) {
	r := startCoding(t)
	p := browser.Start(t).Open("http://" + r.address + "/page")
	all := records(codedSizes[len(codedSizes)-1])
	asked := map[string]func(coding string) bool{}
	for _, coding := range codingNames {
		for _, kind := range []string{"whole", "stream"} {
			for _, size := range codedSizes {
				if mallocs.Race && size > 1<<20 {
					continue // the race detector makes that slow
				}
				path := fmt.Sprintf("/%s/%s/%d", coding, kind, size)
				asked[path] = func(got string) bool { return expected(got, coding, kind, size) }
				var hash string
				p.Eval(`fetch("`+path+`", {cache: "no-store"}).then(r => r.arrayBuffer()).then(b => crypto.subtle.digest("SHA-256", b)).then(h => new Uint8Array(h).toHex())`, &hash)
				if hash != fmt.Sprintf("%x", sha256.Sum256([]byte(all[:size]))) {
					t.Errorf("%s: another body", path)
				}
			}
		}
	}
	for _, q := range p.Requests() {
		path := strings.TrimPrefix(q.URL, "http://"+r.address)
		if expected := asked[path]; expected != nil {
			delete(asked, path)
			if got := q.Header["content-encoding"]; !expected(got) {
				t.Errorf("%s came in coding %q", path, got)
			}
		}
	}
	if len(asked) > 0 {
		t.Errorf("the browser never asked for %d of them", len(asked))
	}
}

// chunks are the pieces of a body as they arrive.
type chunks struct {
	from io.Reader
	buf  [4096]byte
}

func (c *chunks) Next() ([]byte, error) {
	n, err := c.from.Read(c.buf[:])
	if n > 0 {
		err = nil
	}
	return c.buf[:n], err
}

func TestEventsAreDecodedBeforeTheNextIsSent(t *testing.T) {
	const events = 20
	seen := make(chan int, 1) // by the client
	o := origin.Start(t, func(c *origin.Conn) {
		c.Read()
		c.Write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
		for i := range events {
			event := fmt.Sprintf("id: %d\ndata: event %d\n\n", i, i)
			c.Write(fmt.Sprintf("%x\r\n%s\r\n", len(event), event))
			if got := <-seen; got != i {
				t.Errorf("the client saw event %d after event %d was sent", got, i)
			}
		}
		c.Write("0\r\n\r\n")
	})
	for _, coding := range codingNames {
		t.Run(coding, func(t *testing.T) {
			r := start(t, "[upstream.app]\nservers = [\"%s\"]\n[[route]]\nupstream = \"app\"\ncompress = [\"%s\"]\n", o.Address, coding)
			c := r.dial()
			c.send("GET / HTTP/1.1\r\nHost: test\r\nAccept: text/event-stream\r\nAccept-Encoding: " + coding + "\r\n\r\n")
			a, err := http.ReadResponse(c.in, &http.Request{Method: "GET"})
			if err != nil || a.Header.Get("Content-Encoding") != coding {
				t.Fatalf("%v, %v", err, a)
			}
			applied, _ := compress.LookupCoding([]byte(coding))
			d := compress.NewEngine(metrics.New()).Decoder(applied, nil, &chunks{from: a.Body}, compress.Limits{Bytes: 1 << 20, Ratio: 1000}, 1)
			got := ""
			for i := range events {
				want := fmt.Sprintf("id: %d\ndata: event %d\n\n", i, i)
				for len(got) < len(want) {
					piece, err := d.Next()
					if err != nil {
						t.Fatalf("event %d: %v", i, err)
					}
					got += string(piece)
				}
				if got != want {
					t.Fatalf("event %d: %q", i, got)
				}
				got = ""
				seen <- i
			}
			if _, err := d.Next(); err != io.EOF {
				t.Errorf("after the last event: %v", err)
			}
		})
	}
}

// A browser keeps a version of a script and decodes the next one with it.
func TestChromiumDecodesWithDictionaries(t *testing.T) {
	old := "// " + records(40_000) + "\n"
	next := strings.ReplaceAll(old, "Ada Lovelace 99", "Grace Hopper 99")
	page := "<!doctype html><title>page</title><link rel=icon href='data:,'>"
	o := origin.Start(t, func(c *origin.Conn) {
		for {
			q := c.Read()
			if q.Field("Available-Dictionary") != "" {
				t.Error("the origin was told of a dictionary")
			}
			path, _, _ := strings.Cut(q.Target, "?")
			fields, body := "Content-Type: text/html\r\n", page
			switch path {
			case "/origin/1.js":
				fields, body = "Content-Type: text/javascript\r\nCache-Control: max-age=3600\r\nUse-As-Dictionary: match=\"/origin/*.js\"\r\n", old
			case "/auto/1.js":
				fields, body = "Content-Type: text/javascript\r\nCache-Control: max-age=3600\r\n", old
			case "/origin/2.js", "/auto/2.js":
				fields, body = "Content-Type: text/javascript\r\n", next
			}
			c.Write(fmt.Sprintf("HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s", fields, len(body), body))
		}
	})
	r := start(t, `
[upstream.app]
servers = ["%s"]
[[route]]
path = "/origin/*"
upstream = "app"
compress = { dictionary = "origin" }
[[route]]
path = "/auto/*"
upstream = "app"
compress = { dictionary = "auto" }
[[route]]
upstream = "app"
`, o.Address)
	p := browser.Start(t).Open("http://" + r.address + "/page")
	for _, mode := range []string{"origin", "auto"} {
		p.Eval(`fetch("/`+mode+`/1.js").then(r => r.text())`, nil)
		// The browser writes it down in the background.
		var coding, hash string
		n := 0
		r.until("the browser uses the dictionary of mode "+mode, func() bool {
			n++
			path := fmt.Sprintf("/%s/2.js?%d", mode, n)
			p.Eval(`fetch("`+path+`").then(r => r.arrayBuffer()).then(b => crypto.subtle.digest("SHA-256", b)).then(h => new Uint8Array(h).toHex())`, &hash)
			for _, q := range p.Requests() {
				if strings.HasSuffix(q.URL, path) {
					coding = q.Header["content-encoding"]
				}
			}
			return coding == "dcz"
		})
		if hash != fmt.Sprintf("%x", sha256.Sum256([]byte(next))) {
			t.Errorf("%s: another body", mode)
		}
	}
	in, out := r.metric("gateway_compress_bytes_total", `coding="dcz"`, `direction="in"`), r.metric("gateway_compress_bytes_total", `coding="dcz"`, `direction="out"`)
	if in == 0 || out > in/20 {
		t.Errorf("%.0f bytes became %.0f", in, out)
	}
}
