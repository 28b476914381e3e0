package proxy

import (
	"fmt"
	"runtime/debug"
	"testing"

	"gateway/internal/mallocs"
	"gateway/internal/origin"
)

// A whole body is coded for each request: nothing is stored.
func TestCodedResponsesAllocNothing(t *testing.T) {
	if mallocs.Race {
		t.Skip("the race detector allocates")
	}
	// The collector would empty the pools of encoders; it has nothing to do.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	body := records(30 << 10)
	o := origin.StartFast(t, fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: no-store\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
	r := begin(t, "[upstream.app]\nservers = [\""+o.Address+"\"]\n", `
[[route]]
path = "/*"
upstream = "app"
compress = { busy = "0%", codings = ["zstd", "br", "gzip", "deflate"] }
`)
	for _, coding := range codingNames {
		before := r.metric("gateway_compress_responses_total", `coding="`+coding+`"`)
		newSteady(r, "GET / HTTP/1.1\r\nHost: test\r\nAccept-Encoding: "+coding+"\r\n\r\n").allocatesNothing("a body coded with " + coding)
		if n := r.metric("gateway_compress_responses_total", `coding="`+coding+`"`) - before; n < 10_000 {
			t.Errorf("%v answers were coded with %s", n, coding)
		}
	}
}
