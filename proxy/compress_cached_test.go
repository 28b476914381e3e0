package proxy

import (
	"compress/gzip"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"gateway/internal/mallocs"
	"gateway/internal/origin"
)

// Whoever misses together, and whoever hits afterwards, gets what one of them
// has coded.
func TestStoredBodiesAreCodedOnceForAll(t *testing.T) {
	for _, size := range []int{2_000, 30_000, 200_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			body := records(size)
			release := make(chan struct{})
			o := origin.Start(t, func(c *origin.Conn) {
				for {
					c.Read()
					c.Wait(release)
					c.Write(cacheable(body, "Content-Type: application/json", `ETag: "a"`))
				}
			})
			r := begin(t, app(o.Address), caching("true\ncompress = [\"gzip\"]"))
			const clients = 8
			var all sync.WaitGroup
			check := func(a answer) {
				z, err := gzip.NewReader(strings.NewReader(a.body))
				if err != nil || a.Header.Get("Content-Encoding") != "gzip" || a.Header.Get("ETag") != `"a-gzip"` || a.ContentLength != int64(len(a.body)) {
					t.Errorf("%v, %v", err, a.Header)
					return
				}
				if plain, err := io.ReadAll(z); err != nil || string(plain) != body {
					t.Errorf("another body of %d bytes: %v", len(plain), err)
				}
			}
			get := func() {
				c := r.dial()
				defer c.Close()
				c.send("GET / HTTP/1.1\r\nHost: test\r\nAccept-Encoding: gzip\r\n\r\n")
				check(c.receive("GET"))
			}
			for range clients {
				all.Go(get)
			}
			r.until("all have asked", func() bool { return r.metric("gateway_http_in_flight") == clients })
			close(release)
			all.Wait()
			for range 5 {
				get()
			}
			r.counts(clients+4, "gateway_compress_reused_total", `coding="gzip"`)
			r.counts(1, "gateway_compress_responses_total", `coding="gzip"`)
			if n := o.Requests(); n != 1 {
				t.Errorf("%d requests at the origin", n)
			}
			if a := r.get("/"); a.body != body {
				t.Errorf("who accepts no coding gets another body of %d bytes", len(a.body))
			}
		})
	}
}

func TestStoredFormsAllocNothing(t *testing.T) {
	if mallocs.Race {
		t.Skip("the race detector allocates")
	}
	body := records(30 << 10)
	// Of an age whose digits do not become more meanwhile.
	o := origin.StartFast(t, fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: max-age=50000\r\nAge: 1000\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
	uncached := origin.StartFast(t, fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
	r := begin(t, app(o.Address), "[upstream.uncached]\nservers = [\""+uncached.Address+"\"]\n[[route]]\npath = \"/uncached\"\nupstream = \"uncached\"\ncompress = true\n",
		caching("true\ncompress = true"))
	for _, coding := range []string{"zstd", "br", "gzip"} {
		r.do("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: " + coding + "\r\n\r\n")
		newSteady(r, "GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: "+coding+"\r\n\r\n").allocatesNothing("a stored form in " + coding)
	}
	if n := r.metric("gateway_compress_reused_total"); n < 30_000 {
		t.Errorf("%v answers were made of stored forms", n)
	}
}
