package cache

import (
	"strings"
	"testing"
	"time"

	"gateway/internal/unit"
	"gateway/wire"
)

// epoch is when the tests take place: Sun, 06 Nov 1994 08:49:37 GMT.
const epoch = int64(784111777) * second

// fields parses "Name: value" lines.
func fields(t testing.TB, lines ...string) *wire.Header {
	t.Helper()
	h := new(wire.Header)
	raw := strings.Join(lines, "\r\n")
	if raw != "" {
		raw += "\r\n"
	}
	if f := h.ParseFields([]byte(raw), 0); f != wire.NoFault {
		t.Fatalf("%q: %s", lines, f)
	}
	return h
}

// ask parses a request, "GET /path" and its fields.
func ask(t testing.TB, line string, lines ...string) *wire.Request {
	t.Helper()
	method, target, _ := strings.Cut(line, " ")
	raw := "Host: example.com\r\n"
	for _, l := range lines {
		raw += l + "\r\n"
	}
	q := new(wire.Request)
	if f := q.ParseParts([]byte(method), []byte(target), []byte("HTTP/1.1"), []byte(raw), &wire.Limits{}); f != wire.NoFault {
		t.Fatalf("%s %q: %s", line, lines, f)
	}
	return q
}

func urlOf(q *wire.Request) *URL { return &URL{Host: q.Host, Path: q.Path, Query: q.Query} }

// standard are the options of a route at their defaults.
func standard() RouteOptions {
	return RouteOptions{Keep: time.Hour, Targeted: []string{"CDN-Cache-Control"}, Query: "keep", Collapse: true}
}

func policy(change ...func(*RouteOptions)) *Policy {
	o := standard()
	for _, f := range change {
		f(&o)
	}
	return NewPolicy(o, "route")
}

func newCache(t testing.TB, change ...func(*Options)) *Cache {
	t.Helper()
	o := Options{Memory: 8 * unit.MiB, MaxObject: unit.MiB, UncacheableTTL: 10 * time.Second, CollapseTimeout: 5 * time.Second,
		Status: true, Identifier: "gateway"}
	for _, f := range change {
		f(&o)
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// play is a client and an origin around a cache, with a clock of its own.
type play struct {
	testing.TB
	c   *Cache
	p   *Policy
	now int64
	l   Lookup
}

func newPlay(t testing.TB, p *Policy) *play {
	return &play{TB: t, c: newCache(t), p: p, now: epoch}
}

func (y *play) pass(seconds int64) { y.now += seconds * second }

// look is a lookup; the entry stays in y.l until the next one.
func (y *play) look(line string, lines ...string) Verdict {
	y.Helper()
	q := ask(y, line, lines...)
	return y.c.Lookup(&y.l, y.p, q, urlOf(q), nil, y.now)
}

// fill is a request that misses, and the origin's answer.
func (y *play) fill(line string, asked []string, status int, body string, answer ...string) NoStoreReason {
	y.Helper()
	q := ask(y, line, asked...)
	y.c.Lookup(&y.l, y.p, q, urlOf(q), nil, y.now)
	_, f, _ := y.c.Begin(&y.l, q, y.now, true)
	if f == nil {
		y.Fatalf("%s %q: not for the cache (%d)", line, asked, y.l.Verdict)
	}
	return f.Whole(y.origin(status, answer...), []byte(body))
}

func (y *play) origin(status int, answer ...string) *Origin {
	y.Helper()
	return &Origin{Status: status, Header: fields(y, answer...), Requested: y.now, Received: y.now}
}

// expect is a lookup with its verdict and, for a hit, the body.
func (y *play) expect(want Verdict, body, line string, lines ...string) {
	y.Helper()
	if got := y.look(line, lines...); got != want {
		y.Errorf("%s %q: verdict %d, want %d", line, lines, got, want)
	} else if y.l.Entry.Valid() && string(y.l.Entry.Body()) != body {
		y.Errorf("%s %q: body %q, want %q", line, lines, y.l.Entry.Body(), body)
	}
	y.l.Entry.Release()
}

// await polls until a condition holds.
func await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long: %s", what)
		}
	}
}
