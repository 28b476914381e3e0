package cache

import (
	"testing"

	"gateway/internal/mallocs"
)

func TestNothingIsAllocatedOnAHit(t *testing.T) {
	y := newPlay(t, policy(func(o *RouteOptions) { o.Query = "sort" }))
	big := make([]byte, 16<<10)
	y.fill("GET /a?b=1&a=2", nil, 200, string(big), fresh, date, `ETag: "a"`, "Content-Type: text/plain", "Surrogate-Key: a b")
	y.fill("GET /v", []string{"Accept-Encoding: br, gzip", "Accept-Language: de, en;q=0.5"}, 200, "x", fresh,
		"Vary: Accept-Encoding, Accept-Language, Foo")
	y.pass(30)
	f := func(name string, want Verdict, answer Answer, line string, lines ...string) {
		t.Helper()
		q := ask(t, line, lines...)
		u := urlOf(q)
		head := fields(t)
		var part []byte
		out := make([]byte, 0, 1024)
		mallocs.None(t, name, 10_000, func() {
			v := y.c.Lookup(&y.l, y.p, q, u, nil, y.now)
			if v != want || y.l.Answer != answer {
				t.Fatalf("%s: verdict %d, answer %d", name, v, y.l.Answer)
			}
			if v == Hit {
				head.ParseFields(y.l.Entry.Head(), 0)
				r := Report{HasTTL: true, TTL: y.l.Terms.Left(y.now)}
				r.AddStatus(head, "gateway")
				out = head.AppendTo(out[:0])
				part = y.l.Entry.Body()
				if answer == AnswerRanges {
					part = y.l.Entry.Part(y.l.Ranges.List()[0])
					out = AppendContentRange(out, y.l.Ranges.List()[0], y.l.Entry.BodyLen())
				}
			}
			y.l.Release()
		})
		_ = part
	}
	f("hit", Hit, AnswerWhole, "GET /a?a=2&b=1")
	f("HEAD", Hit, AnswerWhole, "HEAD /a?a=2&b=1")
	f("304", Hit, AnswerNotModified, "GET /a?a=2&b=1", `If-None-Match: "x", "a"`)
	f("304 by date", Hit, AnswerNotModified, "GET /a?a=2&b=1", "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT")
	f("range", Hit, AnswerRanges, "GET /a?a=2&b=1", "Range: bytes=100-200", `If-Range: "a"`)
	f("416", Hit, AnswerUnsatisfied, "GET /a?a=2&b=1", "Range: bytes=100000-")
	f("variant", Hit, AnswerWhole, "GET /v", "Accept-Encoding: GZIP, br", "Accept-Language: en;q=0.5, de", "Cache-Control: max-age=1000, min-fresh=1")
	f("miss", Miss, AnswerWhole, "GET /other?x=1")
	y.c.purges.active.Store(true)
	for _, other := range []target{tagTarget(1), urlTarget(nil), hostTarget(nil), prefixTarget(nil, []byte("/"))} {
		y.c.purges.records.add(other, 1, false)
	}
	f("hit during a purge", Hit, AnswerWhole, "GET /a?a=2&b=1")
	y.c.purges.active.Store(false)

	a := y.p.Ask(ask(t, "GET /"))
	o := y.origin(200, fresh, date, "Expires: 0", "Vary: a, b", `CDN-Cache-Control: max-age=5;x=1, private="a"`, `ETag: "a"`)
	mallocs.None(t, "Judge", 10_000, func() { y.p.Judge(&a, o) })
}
