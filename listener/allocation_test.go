package listener

import (
	"bytes"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"gateway/exchange"
	"gateway/internal/mallocs"
)

func TestRequestsAllocateNothing(t *testing.T) {
	if mallocs.Race {
		t.Skip("the race detector allocates")
	}
	body, p := []byte("hello, world"), make([]byte, 64)
	_, s := start(t, options(), func(x *exchange.Exchange) {
		h := x.Own(200)
		h.AddString("Content-Type", "text/plain")
		x.Response.Length = int64(len(body))
		for {
			if _, err := x.Client.ReadBody(p); err != nil {
				break
			}
		}
		x.Client.Begin(x, body, true)
	})
	for _, request := range []string{
		"GET /a?b HTTP/1.1\r\nHost: example.com\r\nUser-Agent: x\r\nAccept: */*\r\n\r\n",
		"POST /a HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\n\r\nhello",
		"POST /a HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
	} {
		conn, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(time.Minute))
		req, b := []byte(request), make([]byte, 4096)
		once := func() {
			if _, err := conn.Write(req); err != nil {
				t.Fatal(err)
			}
			for n := 0; !bytes.HasSuffix(b[:n], body); {
				m, err := conn.Read(b[n:])
				if err != nil {
					t.Fatal(err)
				}
				n += m
			}
		}
		for range 1000 {
			once()
		}
		const runs = 10_000
		allocations := func() uint64 {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range runs {
				once()
			}
			runtime.ReadMemStats(&after)
			return after.Mallocs - before.Mallocs
		}
		// What the rest of the process does meanwhile can only add.
		n := allocations()
		for try := 1; try < 3 && n > runs/1000; try++ {
			n = min(n, allocations())
		}
		if n > runs/1000 {
			t.Errorf("%.20q: %d allocations in %d requests", request, n, runs)
		}
	}
}

func BenchmarkKeepAliveGet(b *testing.B) {
	body := []byte("hello, world")
	_, s := start(b, options(), func(x *exchange.Exchange) {
		x.Own(200)
		x.Response.Length = int64(len(body))
		x.Client.Begin(x, body, true)
	})
	conn, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	req, buf := []byte("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"), make([]byte, 4096)
	for b.Loop() {
		conn.Write(req)
		if n, err := conn.Read(buf); err == io.EOF || !bytes.HasSuffix(buf[:n], body) {
			b.Fatal("no answer")
		}
	}
}
