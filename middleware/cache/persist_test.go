package cache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gateway/metrics"
)

func TestWarmRestart(t *testing.T) {
	y := newPlay(t, policy())
	later := time.Now().Add(time.Minute)
	path := filepath.Join(t.TempDir(), "cache")
	for i := range 500 {
		y.fill(fmt.Sprintf("GET /%d", i), nil, 200, strings.Repeat("x", i), fresh, `ETag: "a"`, fmt.Sprintf("Surrogate-Key: t%d", i%3))
	}
	y.fill("GET /v", []string{"Foo: 1"}, 200, "one", fresh, "Vary: Foo")
	y.fill("GET /v", []string{"Foo: 2"}, 200, "two", fresh, "Vary: Foo")
	y.c.PurgeTag("t1", false)
	y.c.PurgeTag("t2", true)
	if n, err := y.c.Save(path, y.now, later); n != 500-167+3 || err != nil {
		t.Fatal(n, err)
	}
	y.c = newCache(t)
	if n, err := y.c.Load(path, y.now, later); n != 500-167+3 || err != nil {
		t.Fatal(n, err)
	}
	for i := range 500 {
		want := [...]Verdict{Hit, Miss, Validate}[i%3]
		y.expect(want, strings.Repeat("x", i), fmt.Sprintf("GET /%d", i))
	}
	y.expect(Hit, "one", "GET /v", "Foo: 1")
	y.expect(Hit, "two", "GET /v", "Foo: 2")
	y.fill("GET /v", []string{"Foo: 3"}, 200, "three", fresh, "Vary: Foo")
	y.expect(Hit, "one", "GET /v", "Foo: 1")
	y.expect(Hit, "three", "GET /v", "Foo: 3")

	// Ages go on, and what is dead stays away.
	y.c = newCache(t)
	y.pass(7200)
	if n, err := y.c.Load(path, y.now, later); n != 0 || err != nil {
		t.Error(n, err)
	}
	// Deadlines.
	if n, err := y.c.Load(path, epoch, time.Now()); n != 0 || err != nil {
		t.Error(n, err)
	}
	if n, err := y.c.Save(path, epoch, time.Now().Add(-time.Second)); n != 0 || err != nil {
		t.Error(n, err)
	}
}

func TestDamagedFilesAreNotLoaded(t *testing.T) {
	y := newPlay(t, policy())
	later := time.Now().Add(time.Minute)
	path := filepath.Join(t.TempDir(), "cache")
	y.fill("GET /", nil, 200, "body", fresh)
	if _, err := y.c.Save(path, y.now, later); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	load := func(b []byte) (int, error) {
		c := newCache(t)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return c.Load(path, y.now, later)
	}
	for at := 0; at < len(whole); at += 5 {
		b := append([]byte(nil), whole...)
		b[at] ^= 0x10
		if n, err := load(b); err == nil && n > 0 && at < len(whole)-recordHeader+4 {
			t.Errorf("byte %d: %d entries", at, n)
		}
		if n, err := load(whole[:at]); !errors.Is(err, ErrSaved) || n > 1 {
			t.Errorf("%d bytes: %d entries, %v", at, n, err)
		}
	}
}

func TestCodings(t *testing.T) {
	y := newPlay(t, policy())
	y.fill("GET /", nil, 200, "body", fresh, `ETag: "a"`, "Surrogate-Key: t")
	coded := func() string {
		t.Helper()
		if !y.look("GET /").stored() {
			t.Fatal("no entry")
		}
		e, found := y.c.Coded(&y.l, &y.l.Entry, "br", y.now)
		if !found {
			return "none"
		}
		defer e.Release()
		return string(e.Body())
	}
	if got := coded(); got != "none" {
		t.Error(got)
	}
	if !y.c.KeepCoded(&y.l, &y.l.Entry, "br", []byte("bdy"), y.now) {
		t.Fatal("no room")
	}
	if got := coded(); got != "bdy" {
		t.Error(got)
	}
	if _, found := y.c.Coded(&y.l, &y.l.Entry, "gzip", y.now); found {
		t.Error("another coding")
	}
	// Validation keeps the body, and so its codings.
	y.pass(100)
	q := ask(t, "GET /")
	y.look("GET /")
	_, f, _ := y.c.Begin(&y.l, q, y.now, true)
	e, _, _ := f.NotModified(&y.l.Entry, y.origin(304, `ETag: "a"`))
	e.Release()
	if got := coded(); got != "bdy" {
		t.Error("after validation:", got)
	}
	y.fill("GET /", nil, 200, "another", fresh, `ETag: "b"`, "Surrogate-Key: t")
	if got := coded(); got != "none" {
		t.Error("of another body:", got)
	}
	y.c.KeepCoded(&y.l, &y.l.Entry, "br", []byte("x"), y.now)
	entries := y.c.Stats().Entries
	y.l.Release()
	y.c.PurgeTag("t", false)
	await(t, "the walk", func() bool { return y.c.Stats().Entries == entries-2 })
}

func TestBodiesAreCodedOnceInTheBackground(t *testing.T) {
	y := newPlay(t, policy())
	y.now = time.Now().UnixNano()
	y.fill("GET /", nil, 200, "a body, a body, a body", fresh, `ETag: "a"`)
	y.fill("GET /small", nil, 200, "x", fresh)
	y.fill("GET /part", []string{"Range: bytes=0-3"}, 206, "part", fresh, `ETag: "p"`, "Content-Range: bytes 0-3/10")
	var calls, running atomic.Int64
	hold := make(chan struct{})
	code := func(body []byte) []byte {
		if running.Add(1) != 1 {
			t.Error("two at a time")
		}
		defer running.Add(-1)
		calls.Add(1)
		<-hold
		if len(body) < 10 {
			return nil
		}
		return body[:6]
	}
	look := func(line string) (string, bool) {
		t.Helper()
		y.look(line)
		defer y.l.Release()
		coded, made := y.c.Coded(&y.l, &y.l.Entry, "br", y.now)
		defer coded.Release()
		if !made {
			y.c.CodeLater(&y.l.Entry, "br", code)
			return "", false
		}
		return string(coded.Body()), true
	}
	for range 5 {
		look("GET /")
		look("GET /small")
	}
	y.look("GET /part", "Range: bytes=0-3")
	y.c.CodeLater(&y.l.Entry, "br", code) // never
	y.l.Release()
	close(hold)
	await(t, "the coded forms", func() bool {
		_, one := look("GET /")
		_, other := look("GET /small")
		return one && other
	})
	if body, _ := look("GET /"); body != "a body" {
		t.Errorf("coded form %q", body)
	}
	if body, _ := look("GET /small"); body != "" { // is not coded again and again
		t.Errorf("coded form %q", body)
	}
	if n := calls.Load(); n != 2 {
		t.Errorf("coded %d times", n)
	}
	// More than may wait.
	hold = make(chan struct{})
	for i := range 2 * maxCoding {
		y.fill(fmt.Sprintf("GET /%d", i), nil, 200, "a body, a body, a body", fresh)
		look(fmt.Sprintf("GET /%d", i))
	}
	y.c.coding.mu.Lock()
	if n := len(y.c.coding.jobs); n > maxCoding {
		t.Errorf("%d bodies wait", n)
	}
	y.c.coding.mu.Unlock()
	close(hold)
}

func (v Verdict) stored() bool { return v == Hit || v == Validate }

func TestMetricsAreShown(t *testing.T) {
	y := newPlay(t, policy())
	y.fill("GET /", nil, 200, "body", fresh)
	y.fill("GET /", nil, 200, "body", fresh)
	r := metrics.New()
	y.c.Register(r)
	text := r.String()
	for _, want := range []string{"gateway_cache_entries 1\n", `gateway_cache_evictions_total{cause="replaced"} 1` + "\n", "gateway_cache_bytes "} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}
