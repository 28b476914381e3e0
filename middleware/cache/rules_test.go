package cache

import (
	"strings"
	"testing"
	"time"

	"gateway/wire"
)

const date = "Date: Sun, 06 Nov 1994 08:49:37 GMT"

// judge is a GET with these fields and the decision about its answer.
func judge(t *testing.T, p *Policy, asked []string, status int, answer ...string) (Terms, NoStoreReason) {
	t.Helper()
	q := ask(t, "GET /", asked...)
	a := p.Ask(q)
	return p.Judge(&a, &Origin{Status: status, Header: fields(t, answer...), Requested: epoch, Received: epoch})
}

func TestRFC9111_3_Storing(t *testing.T) {
	f := func(want NoStoreReason, status int, asked string, answer ...string) {
		t.Helper()
		var lines []string
		if asked != "" {
			lines = []string{asked}
		}
		if _, got := judge(t, policy(), lines, status, answer...); got != want {
			t.Errorf("%q, %d %q: %s, want %s", asked, status, answer, got, want)
		}
	}
	f(Storable, 200, "", "Cache-Control: max-age=60")
	f(Storable, 200, "", "Cache-Control: s-maxage=60")
	f(Storable, 200, "", date, "Expires: Sun, 06 Nov 1994 08:50:37 GMT")
	f(Storable, 200, "", "Cache-Control: public", `ETag: "a"`)
	f(Storable, 200, "", `ETag: "a"`)
	f(NotFresh, 200, "")
	f(NotFresh, 200, "", "Cache-Control: max-age=0")
	f(Storable, 200, "", "Cache-Control: max-age=0", `ETag: "a"`)
	f(Storable, 200, "", "Cache-Control: no-cache", `ETag: "a"`)
	f(NotFresh, 200, "", "Cache-Control: no-cache, max-age=60")
	f(Storable, 200, "", "Cache-Control: max-age=0, stale-while-revalidate=9")
	f(NotFresh, 200, "", "Cache-Control: max-age=0, stale-while-revalidate=9, must-revalidate")
	f(ResponseNoStore, 200, "", "Cache-Control: max-age=60, no-store")
	f(ResponsePrivate, 200, "", "Cache-Control: max-age=60, private")
	f(Storable, 200, "", `Cache-Control: max-age=60, private="x"`)
	f(RequestNoStore, 200, "Cache-Control: no-store", "Cache-Control: max-age=60")
	f(SetsCookie, 200, "", "Cache-Control: max-age=60", "Set-Cookie: a=b")
	f(Storable, 200, "", `Cache-Control: max-age=60, no-cache="Set-Cookie"`, "Set-Cookie: a=b")
	// Statuses: explicit freshness allows all that are final.
	for _, status := range []int{201, 202, 204, 301, 302, 307, 308, 400, 404, 410, 429, 500, 503, 299, 499, 599} {
		f(Storable, status, "", "Cache-Control: max-age=60")
	}
	f(BadStatus, 304, "", "Cache-Control: max-age=60")
	f(BadStatus, 103, "", "Cache-Control: max-age=60")
	f(BadStatus, 302, "", `ETag: "a"`) // neither explicit nor heuristically cacheable
	f(Storable, 302, "", `ETag: "a"`, "Cache-Control: public")
	f(Storable, 404, "", `ETag: "a"`)
	f(BadRange, 206, "", "Cache-Control: max-age=60")
	f(BadRange, 206, "", "Cache-Control: max-age=60", "Content-Type: multipart/byteranges; boundary=x")
	f(BadRange, 206, "", "Cache-Control: max-age=60", "Content-Range: bytes 0-1/3") // nobody asked for it
	f(Storable, 206, "Range: bytes=0-1", "Cache-Control: max-age=60", "Content-Range: bytes 0-1/3")
	f(BadRange, 206, "Range: bytes=0-1", "Cache-Control: max-age=60", "Content-Range: bytes 0-3/3")
}

func TestRFC9111_3_5_Authorization(t *testing.T) {
	f := func(want NoStoreReason, control string) {
		t.Helper()
		if _, got := judge(t, policy(), []string{"Authorization: Basic x"}, 200, "Cache-Control: "+control); got != want {
			t.Errorf("%s: %s, want %s", control, got, want)
		}
	}
	f(Authorized, "max-age=60")
	f(Authorized, "max-age=60, proxy-revalidate")
	f(Storable, "max-age=60, public")
	f(Storable, "max-age=60, must-revalidate")
	f(Storable, "s-maxage=60")
}

func TestRFC9111_5_2_2_3_MustUnderstand(t *testing.T) {
	f := func(want NoStoreReason, status int, control string) {
		t.Helper()
		if _, got := judge(t, policy(), nil, status, "Cache-Control: max-age=60, "+control); got != want {
			t.Errorf("%d %s: %s, want %s", status, control, got, want)
		}
	}
	f(Storable, 200, "must-understand")
	f(Storable, 200, "must-understand, no-store") // no-store is for those that know no better
	f(NotUnderstood, 299, "must-understand")
	f(NotUnderstood, 299, "must-understand, no-store")
	f(Storable, 299, "public")
}

func TestRFC9110_9_3_1_GetWithBodyIsNotStored(t *testing.T) {
	p := policy()
	a := p.Ask(ask(t, "GET /", "Content-Length: 5"))
	o := &Origin{Status: 200, Header: fields(t, "Cache-Control: max-age=60"), Requested: epoch, Received: epoch}
	if _, got := p.Judge(&a, o); got != RequestBody {
		t.Error(got)
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "FOO"} {
		a := p.Ask(ask(t, method+" /"))
		if _, got := p.Judge(&a, o); got != NotGet {
			t.Error(method, got)
		}
	}
}

func TestRFC9111_4_2_1_Lifetime(t *testing.T) {
	f := func(want int64, answer ...string) {
		t.Helper()
		terms, _ := judge(t, policy(), nil, 200, answer...)
		if got := terms.Lifetime / second; got != want {
			t.Errorf("%q: %d, want %d", answer, got, want)
		}
	}
	expires := "Expires: Sun, 06 Nov 1994 08:50:37 GMT"
	f(0)
	f(60, "Cache-Control: max-age=60")
	f(7, "Cache-Control: max-age=60, s-maxage=7")
	f(60, "Cache-Control: max-age=60", "Expires: Sun, 06 Nov 1994 08:49:00 GMT")
	f(0, "Cache-Control: s-maxage=x, max-age=60")
	f(0, "Cache-Control: max-age=x", date, expires)
	f(60, date, expires)
	f(60, expires) // no Date: the time it came
	f(120, "Date: Sun, 06 Nov 1994 08:48:37 GMT", expires)
	f(60, "Date: yesterday", expires)
	f(0, date, "Expires: 0")
	f(0, date, "Expires: ")
	f(0, date, "Expires: Sun, 06 Nov 1994 08:48:37 GMT")
	f(0, date, expires, "Expires: Sun, 06 Nov 1994 08:51:37 GMT") // two that differ
	f(60, date, expires, expires)
	f(1<<31, date, "Expires: Fri, 31 Dec 9999 23:59:59 GMT")
	f(5, "CDN-Cache-Control: max-age=5", "Cache-Control: max-age=60")
	f(0, "CDN-Cache-Control: public", "Cache-Control: max-age=60", date, expires) // RFC 9213: neither counts
}

func TestRFC9111_4_2_2_Heuristic(t *testing.T) {
	on := policy(func(o *RouteOptions) { o.Heuristic = true })
	f := func(want int64, p *Policy, status int, answer ...string) {
		t.Helper()
		terms, _ := judge(t, p, nil, status, answer...)
		if got := terms.Lifetime / second; got != want {
			t.Errorf("%d %q: %d, want %d", status, answer, got, want)
		}
	}
	modified := "Last-Modified: Sun, 06 Nov 1994 08:33:37 GMT" // 960 s ago
	f(96, on, 200, date, modified)
	f(96, on, 404, date, modified)
	f(96, on, 200, modified)
	f(0, policy(), 200, date, modified)
	f(0, on, 302, date, modified)
	f(96, on, 302, date, modified, "Cache-Control: public")
	f(0, on, 200, date, modified, "Expires: 0") // explicit information rules
	f(5, on, 200, date, modified, "Cache-Control: max-age=5")
	f(0, on, 200, date, "Last-Modified: Sun, 06 Nov 1994 08:49:38 GMT")
	f(0, on, 200, date, "Last-Modified: x")
	f(86400, on, 200, date, "Last-Modified: Sun, 06 Nov 1983 08:49:38 GMT")
}

func TestRFC9111_4_2_3_Age(t *testing.T) {
	f := func(want, took int64, answer ...string) {
		t.Helper()
		p := policy()
		a := p.Ask(ask(t, "GET /"))
		terms, _ := p.Judge(&a, &Origin{Status: 200, Header: fields(t, answer...), Requested: epoch - took*second, Received: epoch})
		if got := terms.Age(epoch) / second; got != want {
			t.Errorf("%q: %d, want %d", answer, got, want)
		}
		if got := terms.Age(epoch + 10*second); got/second != want+10 {
			t.Errorf("%q: %d ten seconds later, want %d", answer, got/second, want+10)
		}
		if got := terms.Age(epoch - 10*second); got/second != want {
			t.Errorf("%q: %d when the clock went back", answer, got/second)
		}
	}
	f(0, 0)
	f(0, 0, date)
	f(30, 0, "Date: Sun, 06 Nov 1994 08:49:07 GMT")
	f(0, 0, "Date: Sun, 06 Nov 1994 08:50:07 GMT") // a clock ahead
	f(7, 0, date, "Age: 7")
	f(9, 2, date, "Age: 7")
	f(2, 2, date)
	f(30, 2, "Date: Sun, 06 Nov 1994 08:49:07 GMT", "Age: 7")
	f(7, 0, "Date: x", "Age: 7")
}

func TestRouteLifetimes(t *testing.T) {
	f := func(want int64, status int, change func(*RouteOptions), answer ...string) {
		t.Helper()
		terms, _ := judge(t, policy(change), nil, status, answer...)
		if got := terms.Left(epoch) / second; got != want {
			t.Errorf("%d %q: %d, want %d", status, answer, got, want)
		}
	}
	ttl := func(o *RouteOptions) {
		o.TTL = time.Minute
		o.StatusTTL = map[string]string{"404": "10s", "410": "0s"}
	}
	f(60, 200, ttl)
	f(60, 200, ttl, "Date: Sun, 06 Nov 1994 08:00:00 GMT") // an origin whose clock is wrong
	f(5, 200, ttl, "Cache-Control: max-age=5")
	f(0, 200, ttl, "Expires: 0")
	f(10, 404, ttl)
	f(5, 404, ttl, "Cache-Control: max-age=5")
	f(0, 500, ttl)
	f(0, 410, ttl)
	clamp := func(o *RouteOptions) { o.MinTTL, o.MaxTTL = 10*time.Second, 20*time.Second }
	f(10, 200, clamp, "Cache-Control: max-age=1")
	f(20, 200, clamp, "Cache-Control: max-age=100")
	f(15, 200, clamp, "Cache-Control: max-age=15")
	ignore := func(o *RouteOptions) { o.Ignore = []string{"cache-control", "expires"}; o.TTL = time.Minute }
	f(60, 200, ignore, "Cache-Control: max-age=5, private, no-store", "Expires: 0")
	f(5, 200, ignore, "Cache-Control: private", "CDN-Cache-Control: max-age=5")
	if _, reason := judge(t, policy(func(o *RouteOptions) { o.Ignore = []string{"set-cookie"} }), nil, 200,
		"Cache-Control: max-age=5", "Set-Cookie: a=b"); reason != Storable {
		t.Error(reason)
	}
}

func TestRFC9111_4_Reuse(t *testing.T) {
	// f is what may be done with a response of that age.
	f := func(want Use, age int64, control string, asked ...string) {
		t.Helper()
		terms, _ := judge(t, policy(), nil, 200, "Cache-Control: "+control, `ETag: "a"`)
		q := ParseRequestControl(fields(t, asked...))
		if got := terms.May(&q, epoch+age*second, false); got != want {
			t.Errorf("%s after %d s, asked %q: %d, want %d", control, age, asked, got, want)
		}
	}
	f(UseFresh, 0, "max-age=60")
	f(UseFresh, 59, "max-age=60")
	f(UseValidate, 60, "max-age=60") // section 4.2: fresh while the lifetime exceeds the age
	f(UseValidate, 0, "max-age=60, no-cache")
	f(UseFresh, 0, `max-age=60, no-cache="x"`)
	// Section 5.2.1: the client's wishes.
	f(UseValidate, 0, "max-age=60", "Cache-Control: no-cache")
	f(UseValidate, 0, "max-age=60", "Pragma: no-cache")
	f(UseValidate, 10, "max-age=60", "Cache-Control: max-age=5")
	f(UseFresh, 5, "max-age=60", "Cache-Control: max-age=5")
	f(UseValidate, 0, "max-age=60", "Cache-Control: max-age=0")
	f(UseFresh, 30, "max-age=60", "Cache-Control: min-fresh=30")
	f(UseValidate, 31, "max-age=60", "Cache-Control: min-fresh=30")
	f(UseStale, 100, "max-age=60", "Cache-Control: max-stale")
	f(UseStale, 100, "max-age=60", "Cache-Control: max-stale=40")
	f(UseValidate, 101, "max-age=60", "Cache-Control: max-stale=40")
	f(UseValidate, 100, "max-age=60", "Cache-Control: max-stale=x")
	// Section 4.2.4: what forbids stale responses.
	for _, control := range []string{"max-age=60, must-revalidate", "max-age=60, proxy-revalidate", "s-maxage=60", "max-age=60, no-cache"} {
		f(UseValidate, 100, control, "Cache-Control: max-stale")
		f(UseValidate, 61, control+", stale-while-revalidate=60")
	}
	// RFC 5861 section 3.
	f(UseFresh, 59, "max-age=60, stale-while-revalidate=10")
	f(UseRefresh, 60, "max-age=60, stale-while-revalidate=10")
	f(UseRefresh, 69, "max-age=60, stale-while-revalidate=10")
	f(UseValidate, 70, "max-age=60, stale-while-revalidate=10")
	f(UseValidate, 65, "max-age=60, stale-while-revalidate=10", "Cache-Control: max-age=1000")
	// RFC 8246.
	f(UseFresh, 10, "max-age=60, immutable", "Cache-Control: max-age=0")
	f(UseValidate, 10, "max-age=60, immutable", "Cache-Control: no-cache")
	f(UseValidate, 60, "max-age=60, immutable", "Cache-Control: max-age=0")
	f(UseFresh, 10, `max-age=60, immutable=1, immutable="x"`, "Cache-Control: max-age=0") // RFC 8246: arguments have no meaning
	f(UseValidate, 10, "max-age=60", "Cache-Control: max-age=0, immutable")
}

func TestRFC5861_4_StaleIfError(t *testing.T) {
	f := func(want bool, age int64, control string, asked ...string) {
		t.Helper()
		terms, _ := judge(t, policy(), nil, 200, "Cache-Control: "+control, `ETag: "a"`)
		q := ParseRequestControl(fields(t, asked...))
		if got := terms.MayOnError(&q, epoch+age*second); got != want {
			t.Errorf("%s after %d s, asked %q: %v", control, age, asked, got)
		}
	}
	f(true, 69, "max-age=60, stale-if-error=10")
	f(false, 70, "max-age=60, stale-if-error=10")
	f(false, 61, "max-age=60")
	f(true, 61, "max-age=60", "Cache-Control: stale-if-error=5")
	f(false, 61, "max-age=60, must-revalidate, stale-if-error=10")
	f(false, 61, "s-maxage=60, stale-if-error=10")
	for status, want := range map[int]bool{500: true, 502: true, 503: true, 504: true, 501: false, 404: false, 200: false} {
		if IsError(status) != want {
			t.Error(status)
		}
	}
}

func TestRFC9111_4_1_Vary(t *testing.T) {
	y := newPlay(t, policy())
	y.fill("GET /", []string{"Foo: 1"}, 200, "one", "Cache-Control: max-age=60", "Vary: Foo, BAR")
	y.expect(Hit, "one", "GET /", "Foo: 1")
	y.expect(Hit, "one", "GET /", "foo:   1  ")
	y.expect(Miss, "", "GET /", "Foo: 2")
	if y.l.Forward != ForwardVaryMiss {
		t.Error("reason is", y.l.Forward)
	}
	y.expect(Miss, "", "GET /")
	y.expect(Miss, "", "GET /", "Foo: 1", "Bar: 1") // absent is not the same as present
	y.expect(Miss, "", "GET /", "Foo: 1", "Bar: ")
	y.fill("GET /", []string{"Foo: 2"}, 200, "two", "Cache-Control: max-age=60", "Vary: bar", "Vary: foo")
	y.expect(Hit, "two", "GET /", "Foo: 2")
	y.expect(Hit, "one", "GET /", "Foo: 1")
	// Lines are joined, and white space around commas means nothing.
	y.fill("GET /", []string{"Foo: a, b", "Foo: c"}, 200, "list", "Cache-Control: max-age=60", "Vary: Foo, Bar")
	y.expect(Hit, "list", "GET /", "Foo: a ,b,c")
	y.expect(Miss, "", "GET /", "Foo: a, c, b")
	y.expect(Miss, "", "GET /", `Foo: "a ,b",c`)
	// Another set of names: the newer answer is looked at first.
	y.fill("GET /", []string{"Foo: 9", "Baz: 1"}, 200, "baz", "Cache-Control: max-age=60", "Vary: Baz")
	y.expect(Hit, "baz", "GET /", "Foo: 1", "Baz: 1")
	y.expect(Hit, "one", "GET /", "Foo: 1")
	// Names in the key, and those that the gateway writes.
	for vary, want := range map[string]NoStoreReason{"*": VariesByAnything, "Foo, *": VariesByAnything, "Host, X-Forwarded-Proto": Storable,
		"X-Forwarded-For": VariesByAnything, "Forwarded": VariesByAnything, "a b": VariesByAnything,
		strings.Repeat("a,", 17): TooManyVary, "": Storable} {
		if got := y.fill("GET /v", nil, 200, "x", "Cache-Control: max-age=60", "Vary: "+vary); got != want {
			t.Errorf("Vary: %s: %s, want %s", vary, got, want)
		}
	}
}

func TestVaryValuesAreNormalised(t *testing.T) {
	f := func(same bool, name, a, b string) {
		t.Helper()
		vary := []byte(strings.ToLower(name) + ",")
		va := appendVariant(nil, vary, fields(t, name+": "+a))
		vb := appendVariant(nil, vary, fields(t, name+": "+b))
		if (string(va) == string(vb)) != same {
			t.Errorf("%s: %q and %q: same is %v", name, a, b, !same)
		}
	}
	f(true, "Accept-Encoding", "gzip, br", "BR,gzip")
	f(true, "Accept-Encoding", "gzip;q=0.5, br", "br, gzip ; q=0.5")
	f(false, "Accept-Encoding", "gzip;q=0.5, br", "br, gzip")
	f(true, "Accept-Language", "en, de;q=0.5", "DE; q=0.5 ,en")
	f(false, "Accept-Language", "en, de", "de, en") // some take the order for a preference
	f(true, "Accept", "text/html;q=0.9, */*;q=0.1", "*/*;q=0.1,text/html;q=0.9")
	f(false, "Foo", "A", "a")
	f(false, "Foo", "a b", "a  b")
}

func TestKeysAreInjective(t *testing.T) {
	seen := map[string]string{}
	p, other := policy(), NewPolicy(standard(), "other")
	add := func(what string, p *Policy, u URL, m wire.Method) {
		t.Helper()
		var digest [DigestSize]byte
		key := string(p.appendKey(nil, &u, m, &digest))
		if before, ok := seen[key]; ok {
			t.Errorf("%s has the key of %s", what, before)
		}
		seen[key] = what
		if k, ok := splitKey([]byte(key)); !ok || string(k.host) != string(u.Host) || string(k.path) != string(u.Path) ||
			string(k.query) != string(u.Query) || string(k.namespace) != p.namespace {
			t.Errorf("%s: parts of the key are %q", what, k)
		}
	}
	url := func(host, path, query string) URL {
		u := URL{Host: []byte(host), Path: []byte(path)}
		if query != "-" {
			u.Query = []byte(query)
		}
		return u
	}
	add("plain", p, url("a", "/b", "-"), wire.MethodGet)
	add("empty query", p, url("a", "/b", ""), wire.MethodGet)
	add("query", p, url("a", "/b", "c"), wire.MethodGet)
	add("shifted", p, url("a/", "b", "-"), wire.MethodGet)
	add("path with query", p, url("a", "/b?c", "-"), wire.MethodGet)
	add("namespace", other, url("a", "/b", "-"), wire.MethodGet)
	add("query method", p, url("a", "/b", "-"), wire.MethodQuery)
	u := url("a", "/b", "-")
	u.Secure = true
	add("https", p, u, wire.MethodGet)
}

func TestQueriesInKeys(t *testing.T) {
	f := func(want, query string, change func(*RouteOptions)) {
		t.Helper()
		o := standard()
		change(&o)
		r := newQueryRule(o)
		if got := string(r.append(nil, []byte(query))); got != want {
			t.Errorf("%q became %q, want %q", query, got, want)
		}
	}
	f("b=1&a=2&&", "b=1&a=2&&", func(o *RouteOptions) {})
	f("a=2&a=1&b=1", "b=1&a=2&a=1", func(o *RouteOptions) { o.Query = "sort" })
	f("b=1", "utm_x=1&b=1&utm_y&gclid=2", func(o *RouteOptions) { o.QueryExcept = []string{"utm_*", "gclid"} })
	f("page=2", "utm_x=1&page=2&pages=3", func(o *RouteOptions) { o.QueryOnly = []string{"page"} })
	f("utm_a=2", "utm_x=1&utm_a=2", func(o *RouteOptions) { o.QueryOnly, o.QueryExcept = []string{"utm_*"}, []string{"utm_x"} })
	f("a=1&b=2", "b=2&x=1&a=1", func(o *RouteOptions) { o.Query = "sort"; o.QueryOnly = []string{"a", "b"} })
	long := strings.Repeat("b&a&", maxSorted)
	f(long, long, func(o *RouteOptions) { o.Query = "sort" })
}

func TestRouteOptionsAreChecked(t *testing.T) {
	f := func(want string, change func(*RouteOptions)) {
		t.Helper()
		o := standard()
		change(&o)
		got := ""
		o.Check(func(key, problem string) { got += key + " " })
		if strings.TrimSpace(got) != want {
			t.Errorf("problems with %q, want %q", got, want)
		}
	}
	f("", func(o *RouteOptions) {})
	f("min_ttl", func(o *RouteOptions) { o.MinTTL, o.MaxTTL = 2, 1 })
	f("status_ttl", func(o *RouteOptions) { o.StatusTTL = map[string]string{"304": "1s"} })
	f("status_ttl", func(o *RouteOptions) { o.StatusTTL = map[string]string{"404": "1"} })
	f("targeted", func(o *RouteOptions) { o.Targeted = []string{"a b"} })
	f("query", func(o *RouteOptions) { o.Query, o.QueryOnly = "ignore", []string{"a"} })
	f("query_only", func(o *RouteOptions) { o.QueryOnly = []string{"a*b"} })
}

func FuzzVary(f *testing.F) {
	f.Add("Accept-Encoding, Foo", "gzip;q=0.5, br", "a,\"b,")
	f.Add("*", "", "")
	f.Add("accept, accept-language", "text/html;q=1.000,*/*", "de, en;q=")
	f.Fuzz(func(t *testing.T, vary, a, b string) {
		h, q := new(wire.Header), new(wire.Header)
		if h.ParseFields([]byte("Vary: "+vary+"\r\n"), 0) != wire.NoFault ||
			q.ParseFields([]byte("Accept-Encoding: "+a+"\r\nAccept: "+b+"\r\nFoo: "+b+"\r\nAccept-Language: "+a+"\r\n"), 0) != wire.NoFault {
			return
		}
		if judgeVary(h) != Storable {
			return
		}
		names := appendVary(nil, h)
		if len(names) > 0 && names[len(names)-1] != ',' {
			t.Fatalf("%q became %q", vary, names)
		}
		one := appendVariant(nil, names, q)
		if two := appendVariant(nil, names, q); string(one) != string(two) {
			t.Fatalf("%q and %q", one, two)
		}
	})
}
