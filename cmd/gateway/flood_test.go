package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gateway/internal/mallocs"
	"gateway/internal/origin"
)

func TestRandomQueriesAllocNoMoreThanTheLimit(t *testing.T) {
	if mallocs.Race {
		t.Skip("clients and the origin would take twice the time")
	}
	flood(t, 200_000, 5*time.Minute)
}

// flood asks a route that caches for so many random queries, each of which is
// stored, over real sockets, and fails the test when the process ever holds
// more than before, the cache's limit and a tenth of that. All must be done in
// a time that is only a bound for machines that hang.
func flood(t *testing.T, requests int, longest time.Duration) {
	const (
		limit       = 128 << 20
		size        = 1 << 10
		connections = 8
		window      = 64 // requests in one write
	)
	body := origin.Filler(size-1) + "\x00" // whoever counts zeros counts answers
	o := origin.StartFast(t, fmt.Sprintf("HTTP/1.1 200 OK\r\nCache-Control: max-age=86400\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", size, body))
	c := runs(t, fmt.Sprintf(`
[cache]
memory = %q
[upstream.app]
servers = [%q]
[[route]]
name = "plain"
path = "/plain"
upstream = "app"
[[route]]
name = "cached"
upstream = "app"
cache = true
`, fmt.Sprintf("%dMiB", limit>>20), o.Address))

	var conns [connections]net.Conn
	for i := range conns {
		conn, err := net.DialTimeout("tcp", c.address(), patience)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns[i] = conn
	}
	var done atomic.Int64
	// ask sends so many requests for queries that begin like path.
	ask := func(path string, requests int, end time.Time) {
		t.Helper()
		done.Store(0)
		var all sync.WaitGroup
		for i, conn := range conns {
			all.Go(func() {
				random := rand.NewChaCha8([32]byte{byte(i), byte(len(path))})
				var text bytes.Buffer
				in := make([]byte, 64<<10)
				for sent := 0; sent < requests/connections && time.Now().Before(end); sent += window {
					text.Reset()
					for range window {
						fmt.Fprintf(&text, "GET %s%016x HTTP/1.1\r\nHost: test\r\n\r\n", path, random.Uint64())
					}
					conn.SetDeadline(time.Now().Add(patience))
					if _, err := conn.Write(text.Bytes()); err != nil {
						t.Error(err)
						return
					}
					for answers := 0; answers < window; {
						n, err := conn.Read(in)
						if err != nil {
							t.Errorf("after %d answers: %v", done.Load(), err)
							return
						}
						answers += bytes.Count(in[:n], []byte{0})
					}
					done.Add(window)
				}
			})
		}
		all.Wait()
	}
	end := time.Now().Add(longest)
	ask("/plain?", max(requests/20, 10_000), end) // what connections and buffers need
	before := c.memory("VmHWM")

	over := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		for begun := time.Now(); ; {
			select {
			case <-over:
				return
			case <-time.After(15 * time.Second):
				t.Logf("%v: %d requests, %d MiB", time.Since(begun).Round(time.Second), done.Load(), c.memory("VmRSS")>>20)
			}
		}
	})
	begun := time.Now()
	ask("/q?", requests, end)
	took := time.Since(begun)
	close(over)
	watch.Wait()
	if t.Failed() {
		return
	}
	n := done.Load()
	most := c.memory("VmHWM")
	t.Logf("%d random queries in %v, %.0f a second: %d MiB at most, %d MiB before; the limit is %d MiB",
		n, took.Round(time.Millisecond), float64(n)/took.Seconds(), most>>20, before>>20, limit>>20)
	if n < int64(requests/connections/window*window*connections) {
		t.Errorf("only %d of %d requests in %v", n, requests, longest)
	}
	if most > before+limit+limit/10 {
		t.Errorf("the process has held %d bytes, want at most %d + %d + 10 %%", most, before, limit)
	}
	_, text := c.ask("GET", "/metrics")
	m := parseSamples(t, text)
	if got := m.sum("gateway_cache_requests_total{", `route="cached"`, `result="miss"`); got < float64(n) {
		t.Errorf("%v misses, want %d", got, n)
	}
	used, space := m["gateway_cache_bytes"], m.sum("gateway_cache_evictions_total{", `cause="space"`)
	t.Logf("%v entries in %.1f MiB, %v have made room", m["gateway_cache_entries"], used/(1<<20), space)
	if used > limit || used < limit*3/4 || space == 0 {
		t.Errorf("the cache uses %v of %d bytes, %v entries have made room", used, limit, space)
	}
	if strings.Contains(c.stderr.String(), "panic") {
		t.Error("a panic is logged")
	}
}
