package proxy

import (
	"bytes"
	"os"
	"os/exec"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"gateway/internal/clock"
	"gateway/internal/origin"
	"gateway/middleware/cache"
	"gateway/wire"
)

// uncopiedProcess is the variable that makes TestHitsCopyNoBody take away the
// memory of stored bodies.
const uncopiedProcess = "GATEWAY_TEST_UNCOPIED"

// TestHitsCopyNoBody takes the pages of a stored body away from the process while
// it is served. The kernel, which is given their address, then refuses to send
// them; a copy in user space would be a fault that ends the process, which is
// therefore one of its own.
func TestHitsCopyNoBody(t *testing.T) {
	if os.Getenv(uncopiedProcess) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestHitsCopyNoBody$", "-test.v", "-test.timeout=1m")
		cmd.Env = append(os.Environ(), uncopiedProcess+"=1")
		if out, err := cmd.CombinedOutput(); err != nil || bytes.Count(out, []byte("uncopied on")) != 2 {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	for _, front := range []string{"true", "false"} {
		uncopied(t, front)
		t.Logf("uncopied on plain_front = %s", front)
	}
}

func uncopied(t *testing.T, front string) {
	const size = 16 << 10
	body := origin.Filler(size)
	o := record(t, cacheable(body, `ETag: "a"`))
	r := begin(t, "[client]\nplain_front = "+front+"\n", app(o.Address), caching("true"))
	r.get("/").expect(t, 200, body, "stored")
	r.get("/").expect(t, 200, body, "hit")

	var q wire.Request
	if fault := q.ParseParts([]byte("GET"), []byte("/"), []byte("HTTP/1.1"), []byte("Host: test\r\n"), &wire.Limits{}); fault != wire.NoFault {
		t.Fatal(fault)
	}
	var l cache.Lookup
	if v := r.cache.Lookup(&l, r.snapshot.Load().policies[0], &q, &cache.URL{Host: q.Host, Path: q.Path}, nil, clock.Nanos()); v != cache.Hit {
		t.Fatalf("the test does not find the response: %v", v)
	}
	defer l.Release()
	stored := l.Entry.Body()
	if string(stored) != body {
		t.Fatalf("another body of %d bytes", len(stored))
	}
	page := os.Getpagesize()
	before := -int(uintptr(unsafe.Pointer(unsafe.SliceData(stored)))) & (page - 1)
	pages := stored[before : before+(size-before)/page*page]
	protect := func(how int) {
		t.Helper()
		if err := unix.Mprotect(pages, how); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		protect(unix.PROT_NONE)
		c := r.dial()
		c.SetDeadline(time.Now().Add(patience))
		c.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
		text, err := c.rest()
		protect(unix.PROT_READ | unix.PROT_WRITE)
		_, got, _ := bytes.Cut([]byte(text), []byte("\r\n\r\n"))
		if len(got) > before || string(got) != body[:len(got)] {
			t.Errorf("%d bytes of the body arrive, %v; %d are there", len(got), err, before)
		}
		r.get("/").expect(t, 200, body, "hit")
		// 304 and the head alone do not even name the body to the kernel.
		protect(unix.PROT_NONE)
		r.get("/", `If-None-Match: "a"`).expect(t, 304, "", "hit")
		r.do("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n").expect(t, 200, "", "hit")
		protect(unix.PROT_READ | unix.PROT_WRITE)
	}
	if n := r.metric("gateway_panics_total"); n != 0 || o.Requests() != 1 {
		t.Errorf("%v panics, %d requests at the origin", n, o.Requests())
	}
}
