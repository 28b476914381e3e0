package middleware

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"gateway/exchange"
	"gateway/internal/mallocs"
	"gateway/internal/unit"
	"gateway/metrics"
	"gateway/middleware/ratelimit"
	"gateway/wire"
)

// limits are policies by their name, in the order of the names that are given.
func limits(t testing.TB, policies map[string]ratelimit.Options, names ...string) (*Limit, *metrics.Registry) {
	t.Helper()
	counts := metrics.New()
	set, err := ratelimit.NewRegistry(counts, slog.New(slog.NewTextHandler(io.Discard, nil))).Build(policies, ratelimit.RedisOptions{})
	if err != nil {
		t.Fatal(err)
	}
	set.Commit()
	t.Cleanup(set.Close)
	var list []*ratelimit.Limiter
	for _, name := range names {
		list = append(list, set.Limiter(name))
	}
	l, err := NewLimit("users", list, func(x *exchange.Exchange, name string) []byte {
		return x.Request.Header.Find("Claim-" + name)
	})
	if err != nil {
		t.Fatal(err)
	}
	return l, counts
}

func limitOptions(t testing.TB, rate string, burst int, keys ...string) ratelimit.Options {
	t.Helper()
	o := ratelimit.Options{
		Burst: burst, IPv4Prefix: 32, IPv6Prefix: 64, On: "request", DelayQueue: 1,
		Store: "local", RedisDown: "local", MaxKeys: 1000, Headers: "draft", Body: "problem",
	}
	if rate != "" {
		r, err := unit.ParseRate(rate)
		if err != nil {
			t.Fatal(err)
		}
		o.Rate = r
	}
	if len(keys) == 0 {
		keys = []string{"ip"}
	}
	for _, text := range keys {
		s, err := ratelimit.ParseSource(text)
		if err != nil {
			t.Fatal(err)
		}
		o.Key = append(o.Key, s)
	}
	return o
}

// from is ask with the address that identity would set.
func from(t testing.TB, addr, line string, fields ...string) *exchange.Exchange {
	t.Helper()
	x := ask(t, addr, line, fields...)
	x.Addr = plain(x.Peer.Addr())
	return x
}

// passes sends a request through the stage and forgets it.
func passes(l *Limit, x *exchange.Exchange) bool {
	var t ratelimit.Ticket
	defer t.Reset()
	return l.ByAddress(x, &t) && l.ByIdentity(x, &t) && l.ByMiss(x, &t)
}

func TestALimitThatIsOffDoesNothing(t *testing.T) {
	l, err := NewLimit("users", nil, nil)
	x := from(t, "192.0.2.1", "GET a /")
	var ticket ratelimit.Ticket
	if l != nil || err != nil || !passes(l, x) {
		t.Error("a route without limits refuses")
	}
	l.After(x, &ticket)
	l.Pace(x, &ticket, 1<<30)
}

func TestKeysTellClientsApart(t *testing.T) {
	type request struct {
		addr, line string
		fields     []string
	}
	r := func(addr, line string, fields ...string) request { return request{addr, line, fields} }
	f := func(keys []string, same bool, a, b request) {
		t.Helper()
		l, _ := limits(t, map[string]ratelimit.Options{"a": limitOptions(t, "1/m", 1, keys...)}, "a")
		first := passes(l, from(t, a.addr, a.line, a.fields...))
		second := passes(l, from(t, b.addr, b.line, b.fields...))
		if !first || second == same {
			t.Errorf("%v: %v and %v: %v, %v; want one key: %v", keys, a, b, first, second, same)
		}
	}
	ip := []string{"ip"}
	get := "GET a /"
	f(ip, true, r("192.0.2.1", get), r("192.0.2.1", get))
	f(ip, false, r("192.0.2.1", get), r("192.0.2.2", get))
	f(ip, true, r("::ffff:192.0.2.1", get), r("192.0.2.1", get))
	f(ip, true, r("2001:db8::1", get), r("2001:db8::ffff:1", get))
	f(ip, false, r("2001:db8::1", get), r("2001:db8:0:1::1", get))
	f(ip, true, r("", get), r("", get))
	key := []string{"header:X-Api-Key", "ip"}
	f(key, true, r("192.0.2.1", get, "X-Api-Key: a"), r("192.0.2.2", get, "x-api-key: a"))
	f(key, false, r("192.0.2.1", get, "X-Api-Key: a"), r("192.0.2.1", get, "X-Api-Key: b"))
	f(key, false, r("192.0.2.1", get, "X-Api-Key: a"), r("192.0.2.1", get))
	f(key, true, r("192.0.2.1", get, "X-Api-Key:"), r("192.0.2.1", get))
	f([]string{"header:X-Api-Key"}, true, r("192.0.2.1", get), r("192.0.2.2", get))
	session := []string{"cookie:sid"}
	f(session, true, r("192.0.2.1", get, "Cookie: a=1; sid=x; b=2"), r("192.0.2.1", get, "Cookie: c=d", "Cookie: sid=x"))
	f(session, false, r("192.0.2.1", get, "Cookie: sid=x"), r("192.0.2.1", get, "Cookie: sid=y; sid=x"))
	f(session, false, r("192.0.2.1", get, "Cookie: sid=x"), r("192.0.2.1", get, "Cookie: xsid=x"))
	query := []string{"query:k"}
	f(query, true, r("192.0.2.1", "GET a /?k=ab&z"), r("192.0.2.1", "GET a /?kk=1&%6B=a%62"))
	f(query, false, r("192.0.2.1", "GET a /?k=ab"), r("192.0.2.1", "GET a /?k=ac"))
	f([]string{"path"}, true, r("192.0.2.1", "GET a /p"), r("192.0.2.2", "GET a /q/../p?x"))
	f([]string{"path"}, false, r("192.0.2.1", "GET a /p"), r("192.0.2.1", "GET a /q"))
	f([]string{"route"}, true, r("192.0.2.1", "GET a /p"), r("192.0.2.2", "GET b /q"))
	f([]string{"global"}, true, r("192.0.2.1", "GET a /p"), r("192.0.2.2", "GET b /q"))
	user := []string{"jwt:sub"}
	f(user, true, r("192.0.2.1", get, "Claim-sub: a"), r("192.0.2.2", get, "Claim-sub: a"))
	f(user, false, r("192.0.2.1", get, "Claim-sub: a"), r("192.0.2.1", get, "Claim-sub: b"))
}

func TestPlacesInTheSpine(t *testing.T) {
	miss := limitOptions(t, "1/m", 1)
	miss.On = "miss"
	l, _ := limits(t, map[string]ratelimit.Options{
		"address": limitOptions(t, "1/m", 3), "user": limitOptions(t, "1/m", 2, "jwt:sub"), "miss": miss,
	}, "address", "user", "miss")
	step := func(want string) {
		t.Helper()
		x := from(t, "192.0.2.1", "GET a /", "Claim-sub: a")
		var ticket ratelimit.Ticket
		got := "done"
		switch {
		case !l.ByAddress(x, &ticket):
			got = "address"
		case !l.ByIdentity(x, &ticket):
			got = "user"
		case !l.ByMiss(x, &ticket):
			got = "miss"
		}
		if got != want || want != "done" && ticket.Refused != want {
			t.Errorf("ended at %s (%q), want %s", got, ticket.Refused, want)
		}
		ticket.Reset()
	}
	step("done")
	step("miss") // and gives back what the other two took:
	step("miss")
	step("miss")
	step("miss")
}

func TestADenialTakesFromNoPolicy(t *testing.T) {
	l, counts := limits(t, map[string]ratelimit.Options{
		"wide": limitOptions(t, "1/m", 10, "global"), "narrow": limitOptions(t, "1/m", 2),
	}, "wide", "narrow")
	passed := 0
	for i := range 20 {
		for range 3 {
			if passes(l, from(t, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}).String(), "GET a /")) {
				passed++
			}
		}
	}
	if passed != 10 {
		t.Errorf("%d passed, want 10: two of each of five clients", passed)
	}
	text := counts.String()
	for _, want := range []string{
		`gateway_limit_decisions_total{policy="narrow",decision="allowed",store="local"} 10`,
		`gateway_limit_decisions_total{policy="narrow",decision="denied",store="local"} 4`,
		`gateway_limit_decisions_total{policy="wide",decision="denied",store="local"} 46`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no line %s", want)
		}
	}
}

func TestCostByMethodAndField(t *testing.T) {
	o := limitOptions(t, "1/m", 10)
	o.Cost = map[string]int{"POST": 4, "HEAD": 0, "BREW": 3}
	o.CostHeader = "X-Batch"
	f := func(want int, line string, fields ...string) {
		t.Helper()
		l, _ := limits(t, map[string]ratelimit.Options{"a": o}, "a")
		passed := 0
		for range 15 {
			if passes(l, from(t, "192.0.2.1", line, fields...)) {
				passed++
			}
		}
		if passed != want {
			t.Errorf("%s %v: %d passed, want %d", line, fields, passed, want)
		}
	}
	f(10, "GET a /")
	f(2, "POST a /")
	f(15, "HEAD a /")
	f(3, "BREW a /")
	f(2, "GET a /", "X-Batch: 5")
	f(2, "POST a /", "X-Batch: 1")
	f(1, "GET a /", "X-Batch: 99999999")
	f(10, "GET a /", "X-Batch: -1")
	f(10, "GET a /", "X-Batch: 99999999999999999999")
}

func TestExemptAndDryRunRefuseNobody(t *testing.T) {
	exempt := limitOptions(t, "1/m", 1)
	exempt.Exempt = prefixes(t, "192.0.2.0/24")
	l, _ := limits(t, map[string]ratelimit.Options{"a": exempt}, "a")
	for range 5 {
		if !passes(l, from(t, "192.0.2.7", "GET a /")) {
			t.Fatal("an exempt client is refused")
		}
	}
	if !passes(l, from(t, "198.51.100.1", "GET a /")) || passes(l, from(t, "198.51.100.1", "GET a /")) {
		t.Error("others are not limited")
	}
	dry := limitOptions(t, "1/m", 2)
	dry.DryRun = true
	l, counts := limits(t, map[string]ratelimit.Options{"a": dry}, "a")
	for range 5 {
		if !passes(l, from(t, "192.0.2.7", "GET a /")) {
			t.Fatal("a dry run refuses")
		}
	}
	if want := `gateway_limit_decisions_total{policy="a",decision="dry_run",store="local"} 3`; !strings.Contains(counts.String(), want) {
		t.Errorf("no line %s", want)
	}
}

func TestARefusalSaysByWhomAndForHowLong(t *testing.T) {
	refused := func(change func(o *ratelimit.Options)) *exchange.Exchange {
		t.Helper()
		o := limitOptions(t, "2/m", 1)
		change(&o)
		l, _ := limits(t, map[string]ratelimit.Options{"api": o}, "api")
		passes(l, from(t, "192.0.2.1", "GET a /"))
		x := from(t, "192.0.2.1", "GET a /")
		x.ID = []byte("id-1")
		if passes(l, x) || x.Response.Status != 429 || x.Response.Length != int64(len(x.Response.Body)) {
			t.Fatalf("status %d", x.Response.Status)
		}
		return x
	}
	x := refused(func(*ratelimit.Options) {})
	h := x.Response.Header
	if got := values(h, "Retry-After") + " " + values(h, "RateLimit") + " " + values(h, "RateLimit-Policy"); got != `30 "api";r=0;t=30 "api";q=2;w=60` {
		t.Errorf("fields %s", got)
	}
	var problem struct {
		Type     string   `json:"type"`
		Status   int      `json:"status"`
		Violated []string `json:"violated-policies"`
		After    int      `json:"retry_after"`
		Reason   string   `json:"reason"`
		ID       string   `json:"request_id"`
	}
	if err := json.Unmarshal(x.Response.Body, &problem); err != nil || problem.Status != 429 || len(problem.Violated) != 1 ||
		problem.Violated[0] != "api" || problem.After != 30 || problem.Reason != "rate_limited" || problem.ID != "id-1" ||
		!strings.HasSuffix(problem.Type, "#quota-exceeded") || values(h, "Content-Type") != "application/problem+json" {
		t.Errorf("%v: %s", err, x.Response.Body)
	}
	x = refused(func(o *ratelimit.Options) { o.Headers, o.Body = "x-ratelimit", "text" })
	h = x.Response.Header
	if got := values(h, "X-RateLimit-Limit") + values(h, "X-RateLimit-Remaining") + values(h, "X-RateLimit-Reset") + values(h, "RateLimit"); got != "2030" {
		t.Errorf("fields %s", got)
	}
	if got := string(x.Response.Body); got != "Too many requests (limit api). Try again in 30 s.\n" {
		t.Errorf("%s", got)
	}
	x = refused(func(o *ratelimit.Options) { o.Headers, o.Body = "none", "json" })
	h = x.Response.Header
	if values(h, "RateLimit") != "" || values(h, "Retry-After") != "30" || values(h, "Content-Type") != "application/json" {
		t.Errorf("%s", h.AppendTo(nil))
	}
	page := filepath.Join(t.TempDir(), "page.html")
	if err := os.WriteFile(page, []byte("<p>later"), 0o600); err != nil {
		t.Fatal(err)
	}
	x = refused(func(o *ratelimit.Options) { o.Page = page })
	if string(x.Response.Body) != "<p>later" || !strings.HasPrefix(values(x.Response.Header, "Content-Type"), "text/html") {
		t.Errorf("%s: %s", values(x.Response.Header, "Content-Type"), x.Response.Body)
	}
}

func TestAllowedResponsesSayWhatIsLeft(t *testing.T) {
	a, b := limitOptions(t, "100/s", 50), limitOptions(t, "10/m", 10)
	a.Announce, b.Announce = true, true
	l, _ := limits(t, map[string]ratelimit.Options{"a": a, "b": b}, "a", "b")
	x := from(t, "192.0.2.1", "GET a /")
	var ticket ratelimit.Ticket
	if !l.ByAddress(x, &ticket) {
		t.Fatal("refused")
	}
	x.Own(200)
	l.After(x, &ticket)
	h := x.Response.Header
	if got := values(h, "RateLimit") + " " + values(h, "RateLimit-Policy"); got != `"a";r=49;t=1, "b";r=9;t=6 "a";q=100;w=1, "b";q=10;w=60` {
		t.Errorf("fields %s", got)
	}
}

func TestRetryAfterIsHonest(t *testing.T) {
	l, _ := limits(t, map[string]ratelimit.Options{"a": limitOptions(t, "7/m", 2)}, "a")
	now := int64(time.Hour)
	for range 50 {
		x := from(t, "192.0.2.1", "GET a /")
		x.Start = now
		if !passes(l, x) {
			after, err := strconv.Atoi(values(x.Response.Header, "Retry-After"))
			if err != nil {
				t.Fatal(err)
			}
			x = from(t, "192.0.2.1", "GET a /")
			now += int64(after) * int64(time.Second)
			if x.Start = now; !passes(l, x) {
				t.Fatalf("refused after %d s", after)
			}
		}
	}
}

func TestDelayWaitsInsteadOfRefusing(t *testing.T) {
	o := limitOptions(t, "20/s", 1)
	o.Delay = time.Second
	l, counts := limits(t, map[string]ratelimit.Options{"a": o}, "a")
	began := time.Now()
	for range 5 {
		if !passes(l, from(t, "192.0.2.1", "GET a /")) {
			t.Fatal("refused")
		}
	}
	if took := time.Since(began); took < 190*time.Millisecond {
		t.Errorf("five requests of 20/s took %v", took)
	}
	if want := `gateway_limit_decisions_total{policy="a",decision="delayed",store="local"} 4`; !strings.Contains(counts.String(), want) {
		t.Errorf("no line %s", want)
	}
	// The queue has one place.
	done := make(chan bool)
	blocked := limitOptions(t, "6/m", 1)
	blocked.Delay = 30 * time.Second
	l, counts = limits(t, map[string]ratelimit.Options{"a": blocked}, "a")
	passes(l, from(t, "192.0.2.1", "GET a /"))
	waiting := from(t, "192.0.2.1", "GET a /")
	go func() { done <- passes(l, waiting) }()
	for deadline := time.Now().Add(8 * time.Second); !strings.Contains(counts.String(), "gateway_limit_waiting{policy=\"a\"} 1"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the second request does not wait")
		}
	}
	if passes(l, from(t, "192.0.2.1", "GET a /")) {
		t.Error("a request beyond the queue passes")
	}
	waiting.Abandon() // the client left: nobody waits any more
	<-done
}

func TestBandwidthIsPaced(t *testing.T) {
	o := limitOptions(t, "", 0)
	o.Bandwidth = 1 << 20
	l, _ := limits(t, map[string]ratelimit.Options{"a": o}, "a")
	x := from(t, "192.0.2.1", "GET a /")
	var ticket ratelimit.Ticket
	if !l.ByAddress(x, &ticket) {
		t.Fatal("refused")
	}
	began := time.Now()
	for range 8 {
		l.Pace(x, &ticket, 64<<10) // half a second's worth, of which half goes at once
	}
	if took := time.Since(began); took < 240*time.Millisecond {
		t.Errorf("took %v", took)
	}
}

func TestPlacesAreGivenBack(t *testing.T) {
	o := limitOptions(t, "", 0)
	o.Concurrency = 2
	l, _ := limits(t, map[string]ratelimit.Options{"places": o, "rate": limitOptions(t, "1000/s", 1000)}, "places", "rate")
	var tickets [3]ratelimit.Ticket
	ask := func(i int) bool { return l.ByAddress(from(t, "192.0.2.1", "GET a /"), &tickets[i]) }
	if !ask(0) || !ask(1) || ask(2) {
		t.Fatal("two at once do not pass, or three do")
	}
	tickets[0].Release()
	if !ask(2) {
		t.Error("the place is not given back")
	}
	if tickets[2].Refused != "places" { // of the refusal before
		t.Errorf("refused by %q", tickets[2].Refused)
	}
	for i := range tickets {
		tickets[i].Reset()
	}
}

func TestLimitsAllocateNothing(t *testing.T) {
	policies := map[string]ratelimit.Options{
		"a": limitOptions(t, "1000000/s", 1_000_000, "header:X-Key", "cookie:sid", "query:k", "ip"),
		"b": limitOptions(t, "1000000/s", 1_000_000, "ip"), "c": limitOptions(t, "1/d", 1, "path"), "d": limitOptions(t, "", 0),
	}
	set := func(name string, change func(o *ratelimit.Options)) {
		o := policies[name]
		change(&o)
		policies[name] = o
	}
	set("a", func(o *ratelimit.Options) { o.Announce, o.Cost = true, map[string]int{"POST": 2} })
	set("d", func(o *ratelimit.Options) { o.Concurrency = 3 })
	f := func(name, fields string, names ...string) {
		t.Run(name, func(t *testing.T) {
			l, _ := limits(t, policies, names...)
			section := []byte("Host: a\r\nCookie: a=b; c=d\r\n" + fields + "\r\n")
			verb, target, version := []byte("GET"), []byte("/users?a=b&k=%41"), []byte("HTTP/1.1")
			var ticket ratelimit.Ticket
			peer := netip.MustParseAddr("2001:db8::1")
			mallocs.None(t, t.Name(), 50_000, func() {
				x := exchange.Acquire()
				if x.Request.ParseParts(verb, target, version, section, &wire.Limits{}) != wire.NoFault {
					t.Fatal("the request is not valid")
				}
				x.Addr, x.Path, x.Query = peer, x.Request.Path, x.Request.Query
				if l.ByAddress(x, &ticket) && l.ByIdentity(x, &ticket) {
					x.Own(200)
					l.After(x, &ticket)
				}
				ticket.Reset()
				exchange.Release(x)
			})
		})
	}
	f("allowed", "", "a", "b", "d")
	f("by header", "X-Key: 0123456789\r\n", "a")
	f("denied", "", "a", "b", "c", "d")
}
