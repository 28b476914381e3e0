package cache

import (
	"fmt"
	"testing"

	"gateway/wire"
)

func describe(c ResponseControl) string {
	return fmt.Sprintf("%b max-age=%d s-maxage=%d swr=%d sie=%d", c.Directive, c.MaxAge, c.SMaxAge, c.StaleWhileRevalidate, c.StaleIfError)
}

func TestRFC9111_5_2_ResponseDirectives(t *testing.T) {
	f := func(want ResponseControl, lines ...string) {
		t.Helper()
		for i := range lines {
			lines[i] = "Cache-Control: " + lines[i]
		}
		if got := ParseResponseControl(fields(t, lines...), nil); got != want {
			t.Errorf("%q: %s, want %s", lines, describe(got), describe(want))
		}
	}
	none := ResponseControl{MaxAge: -1, SMaxAge: -1, StaleWhileRevalidate: -1, StaleIfError: -1}
	age := func(n int64) ResponseControl { c := none; c.MaxAge = n; return c }
	set := func(d Directive) ResponseControl { c := none; c.Directive = d; return c }
	f(none)
	f(none, "")
	f(none, " , ,")
	f(age(60), "max-age=60")
	f(age(60), "MAX-AGE=60")
	f(age(60), ` , max-age="60" ,`)
	f(age(60), "max-age=060")
	f(age(60), "max-age=60", "max-age=60")
	f(age(0), "max-age=60", "max-age=10") // two that differ: stale
	f(age(0), "max-age=10, max-age=60")
	f(age(1<<31), "max-age=2147483648")
	f(age(1<<31), "max-age=99999999999999999999999999")
	f(age(0), "max-age")
	f(age(0), "max-age=")
	f(age(0), "max-age=-1")
	f(age(0), "max-age=1.5")
	f(age(0), "max-age='60'")
	f(age(0), "max-age =60")
	f(age(0), "max-age= 60")
	f(age(0), "max-age=60s")
	f(age(0), "max-age=60 foo")
	f(none, `foo="max-age=60"`)
	f(none, `foo="a, max-age=60", bar`)
	f(age(60), `foo="\", bar=", max-age=60`)
	f(set(NoStore), `foo="never closed, no-store`)
	f(none, "foo-max-age=60, max-age-x=60, =max-age")
	f(set(NoStore|NoCache|Private|Public|MustRevalidate|ProxyRevalidate|MustUnderstand|NoTransform|Immutable),
		"no-store, no-cache, private", "Public, must-revalidate,proxy-revalidate", "must-understand,no-transform,immutable")
	f(set(NoStore), "no-store=1")
	f(set(NoStore), "no-store foo")
	f(set(NoCacheFields), `no-cache="Set-Cookie"`)
	f(set(NoCacheFields), `no-cache=Set-Cookie`)
	f(set(PrivateFields), `private="a, b"`)
	f(set(Private), `private=""`)
	f(set(Private), `private=`)
	f(set(NoCache), `no-cache="a b"`)
	f(set(NoCache|NoCacheFields), `no-cache="a", no-cache`)
	f(ResponseControl{MaxAge: 1, SMaxAge: 2, StaleWhileRevalidate: 3, StaleIfError: 4},
		"stale-if-error=4, stale-while-revalidate=3, s-maxage=2, max-age=1")
	f(ResponseControl{MaxAge: -1, SMaxAge: -1, StaleWhileRevalidate: 0, StaleIfError: 2},
		"stale-if-error=4, stale-while-revalidate=x, stale-if-error=2")
}

func TestRFC9111_5_2_RequestDirectives(t *testing.T) {
	f := func(want RequestControl, lines ...string) {
		t.Helper()
		if got := ParseRequestControl(fields(t, lines...)); got != want {
			t.Errorf("%q: %+v, want %+v", lines, got, want)
		}
	}
	none := RequestControl{MaxAge: -1, MaxStale: -1, MinFresh: -1, StaleIfError: -1}
	with := func(change func(*RequestControl)) RequestControl { c := none; change(&c); return c }
	f(none)
	f(with(func(c *RequestControl) { c.Directive = NoCache }), "Pragma: foo, No-Cache")
	f(none, "Pragma: no-cache", "Cache-Control: max-stale-ish") // Pragma is for those that know nothing else
	f(with(func(c *RequestControl) { c.Directive = NoCache | NoStore | NoTransform | OnlyIfCached }),
		"Cache-Control: no-cache, NO-STORE, no-transform, only-if-cached")
	f(with(func(c *RequestControl) { c.MaxAge = 3 }), "Cache-Control: max-age=5, max-age=3, max-age=4")
	f(with(func(c *RequestControl) { c.MaxAge = 0 }), "Cache-Control: max-age=x")
	f(with(func(c *RequestControl) { c.MinFresh = 5 }), "Cache-Control: min-fresh=5, min-fresh=3")
	f(with(func(c *RequestControl) { c.MinFresh = 1 << 31 }), "Cache-Control: min-fresh")
	f(with(func(c *RequestControl) { c.Directive = MaxStaleAny }), "Cache-Control: max-stale")
	f(with(func(c *RequestControl) { c.MaxStale = 7 }), "Cache-Control: max-stale=7")
	f(with(func(c *RequestControl) { c.MaxStale = 0 }), "Cache-Control: max-stale=x")
	f(with(func(c *RequestControl) { c.StaleIfError = 9 }), "Cache-Control: stale-if-error=9")
}

func TestRFC9213_2_TargetedField(t *testing.T) {
	targeted := []string{"My-Cache-Control", "CDN-Cache-Control"}
	f := func(want string, lines ...string) {
		t.Helper()
		c := ParseResponseControl(fields(t, append(lines, "Cache-Control: max-age=1")...), targeted)
		if got := describe(c); got != want {
			t.Errorf("%q: %s, want %s", lines, got, want)
		}
	}
	ignored := "0 max-age=1 s-maxage=-1 swr=-1 sie=-1"
	f("0 max-age=60 s-maxage=-1 swr=-1 sie=-1", "CDN-Cache-Control: max-age=60")
	f("0 max-age=60 s-maxage=-1 swr=-1 sie=-1", "CDN-Cache-Control: max-age=60;a=1;b")
	f("0 max-age=60 s-maxage=2 swr=3 sie=4", "CDN-Cache-Control: max-age=60, s-maxage=2", "CDN-Cache-Control: stale-while-revalidate=3, stale-if-error=4")
	f("0 max-age=7 s-maxage=-1 swr=-1 sie=-1", "CDN-Cache-Control: max-age=60, max-age=7")
	f("0 max-age=5 s-maxage=-1 swr=-1 sie=-1", "CDN-Cache-Control: max-age=60", "My-Cache-Control: max-age=5")
	f("0 max-age=60 s-maxage=-1 swr=-1 sie=-1", "CDN-Cache-Control: max-age=60", "My-Cache-Control: ")
	f("0 max-age=60 s-maxage=-1 swr=-1 sie=-1", "CDN-Cache-Control: max-age=60", "My-Cache-Control: &")
	f("1 max-age=-1 s-maxage=-1 swr=-1 sie=-1", "CDN-Cache-Control: no-store")
	f("0 max-age=-1 s-maxage=-1 swr=-1 sie=-1", "CDN-Cache-Control: no-store=?0")
	f("100000000000 max-age=-1 s-maxage=-1 swr=-1 sie=-1", `CDN-Cache-Control: no-cache="a"`)
	f("0 max-age=0 s-maxage=-1 swr=-1 sie=-1", `CDN-Cache-Control: max-age="60"`)
	f("0 max-age=0 s-maxage=-1 swr=-1 sie=-1", `CDN-Cache-Control: max-age=-1`)
	f(ignored)
	f(ignored, "CDN-Cache-Control: ")
	f(ignored, "CDN-Cache-Control: max-age=60, &&")
	f(ignored, "CDN-Cache-Control: max-age=60,")
	f(ignored, "CDN-Cache-Control: Max-Age=60")
	f(ignored, "CDN-Cache-Control: max-age=1234567890123456")
}

func TestStructuredFieldSyntax(t *testing.T) {
	f := func(ok bool, s string) {
		t.Helper()
		d := dictionary{rest: []byte(s)}
		for {
			if _, _, more := d.next(); !more {
				break
			}
		}
		if d.failed == ok {
			t.Errorf("%q: failed is %v", s, d.failed)
		}
	}
	for _, s := range []string{"", "a", "a=1", "a=?1;b=?0", "a=1.5", "a=-1", `a="x\"y"`, "a=tok/en:x", "a=:aGk=:", "a=@1", `a=%"f%c3%bc"`,
		`a=(1 "b";c=1 d);e`, "a=()", "a ,\tb", "*a_-.1=1"} {
		f(true, s)
	}
	for _, s := range []string{",", "a,", "A", "1", "a=", "a=?2", "a=1.", "a=1.2345", "a=-", `a="`, `a="\x"`, "a=:a", "a=@1.5", "a=(1", "a=(1,2)",
		"a=(1\t2)", "a;", "a;B", "a b", "a=@", `a=%"%C3"`, "a=\"\x7f\"", "a=1234567890123.1"} {
		f(false, s)
	}
}

func TestRFC9110_5_6_7_Dates(t *testing.T) {
	const unix = epoch / second
	f := func(want int64, s string) {
		t.Helper()
		got, ok := ParseDate([]byte(s), unix)
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("%q: %d, want %d", s, got, want)
		}
	}
	f(unix, "Sun, 06 Nov 1994 08:49:37 GMT")
	f(unix, "sun, 06 nov 1994 08:49:37 gmt")
	f(unix, "Sunday, 06-Nov-94 08:49:37 GMT")
	f(unix, "SUNDAY, 06-NOV-94 08:49:37 GMT")
	f(unix, "Sun Nov  6 08:49:37 1994")
	f(unix+86400*9+23, "Tue Nov 15 08:50:00 1994")
	f(951782400, "Tue, 29 Feb 2000 00:00:00 GMT")
	f(253402300799, "Fri, 31 Dec 9999 23:59:59 GMT")
	f(0, "Thu, 01 Jan 1970 00:00:00 GMT")
	if got, _ := ParseDate([]byte("Saturday, 06-Nov-44 08:49:37 GMT"), unix); got/31557600 != 74 { // 50 years ahead: 2044
		t.Errorf("year 44 read in 1994: %d", got)
	}
	if got, _ := ParseDate([]byte("Monday, 06-Nov-45 08:49:37 GMT"), unix); got >= 0 { // 51: the past
		t.Errorf("year 45 read in 1994: %d", got)
	}
	for _, s := range []string{"", "0", "-1", "Sun, 06 Nov 1994 08:49:37 UTC", "Sun, 06 Nov 1994 08:49:37 EST", "Sun, 06 Nov 1994 08:49:37",
		"Sun, 6 Nov 1994 08:49:37 GMT", "Sun, 31 Nov 1994 08:49:37 GMT", "Sun, 29 Feb 1900 08:49:37 GMT", "Sun, 06 Nov 1994 24:00:00 GMT",
		"Sun, 06 Nov 1994 08:60:37 GMT", "Sun, 06 Nov 1994 08:49:61 GMT", "Sun, 00 Nov 1994 08:49:37 GMT", "Xxx, 06 Nov 1994 08:49:37 GMT",
		"Sun, 06 Nov 1994 08.49.37 GMT", "Sun, 06 Nov 1994 08:49:37 +0000", "Sun Nov 6 08:49:37 1994", "1994-11-06T08:49:37Z", "784111777",
		"Sunday, 06-Nov-1994 08:49:37 GMT", "  Sun, 06 Nov 1994 08:49:37 GMT"} {
		f(-1, s)
	}
	for _, unix := range []int64{0, unix, 951782399, 951868800, 4107542399, 253402300799} {
		if got, ok := ParseDate(AppendDate(nil, unix), unix); !ok || got != unix {
			t.Errorf("%d became %s", unix, AppendDate(nil, unix))
		}
	}
}

func TestRFC9111_5_1_Age(t *testing.T) {
	f := func(want int64, lines ...string) {
		t.Helper()
		if got := ParseAge(fields(t, lines...)); got != want {
			t.Errorf("%q: %d, want %d", lines, got, want)
		}
	}
	f(0)
	f(7, "Age: 7")
	f(7, "Age: 7, 8")
	f(7, "Age: 7", "Age: 800")
	f(1<<31, "Age: 99999999999999999999")
	f(0, "Age: -7")
	f(0, "Age: 7.5")
	f(0, "Age: x")
	f(0, "Age: 7;a=b")
	f(0, `Age: "7"`)
	f(0, "Age: ,7")
	f(0, "Age: ")
}

func FuzzCacheControl(f *testing.F) {
	for _, s := range []string{"", "max-age=60", `no-cache="a, b", private`, `a="\"`, "max-age=60,,s-maxage=\"1", "no-store ,public=x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h := new(wire.Header)
		if h.ParseFields([]byte("Cache-Control: "+s+"\r\nCDN-Cache-Control: "+s+"\r\n"), 0) != wire.NoFault {
			return
		}
		for _, targeted := range [][]string{nil, {"CDN-Cache-Control"}} {
			c := ParseResponseControl(h, targeted)
			for _, n := range []int64{c.MaxAge, c.SMaxAge, c.StaleIfError, c.StaleWhileRevalidate} {
				if n < -1 || n > maxDelta {
					t.Fatalf("%q: %+v", s, c)
				}
			}
			eachQualified(h, targeted, func(name []byte) {
				if len(name) == 0 {
					t.Fatalf("%q names nothing", s)
				}
			})
		}
		q := ParseRequestControl(h)
		if q.MaxAge < -1 || q.MaxAge > maxDelta || q.MinFresh > maxDelta {
			t.Fatalf("%q: %+v", s, q)
		}
	})
}

func FuzzStructuredField(f *testing.F) {
	for _, s := range []string{"", "a=1, b;c=?1", `a=("x" y);z`, `a=%"f%c3%bc", b=@1, c=:aGk=:`, "a=1.5,", "a=@", "-"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, s []byte) {
		for _, list := range []bool{false, true} {
			d := dictionary{rest: s}
			for range len(s) + 1 {
				var more bool
				if list {
					_, more = d.nextItem()
				} else {
					_, _, more = d.next()
				}
				if !more {
					return
				}
			}
			t.Fatalf("%q does not end", s)
		}
	})
}

func FuzzDate(f *testing.F) {
	for _, s := range []string{"Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", "0"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, s []byte) {
		unix, ok := ParseDate(s, epoch/second)
		if !ok || unix < 0 {
			return
		}
		if again, ok := ParseDate(AppendDate(nil, unix), epoch/second); !ok || again != unix {
			t.Fatalf("%q is %d, and back %d", s, unix, again)
		}
	})
}

func FuzzAge(f *testing.F) {
	for _, s := range []string{"", "7", "7, 8", "-1", "99999999999999999999", "1.5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h := new(wire.Header)
		if h.ParseFields([]byte("Age: "+s+"\r\n"), 0) != wire.NoFault {
			return
		}
		if n := ParseAge(h); n < 0 || n > maxDelta {
			t.Fatalf("%q: %d", s, n)
		}
	})
}
