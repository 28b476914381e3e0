package users

import (
	"fmt"
	"net"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"gateway/internal/mallocs"
)

func TestReplyForgetsEverything(t *testing.T) {
	r := new(reply)
	// A field that is added later fails here until it is filled and reset.
	filled := reply{
		page:     Page{Users: []User{{ID: 1, Name: "Ada"}, {ID: 2}}, Total: 2, More: true, Changed: seedEpoch},
		body:     []byte("body"),
		etag:     []byte("etag"),
		keys:     []byte("keys"),
		date:     []byte("date"),
		modified: seedEpoch,
	}
	v := reflect.ValueOf(filled)
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Fatalf("the test leaves %s empty", v.Type().Field(i).Name)
		}
	}
	*r = filled
	r.page.Users = r.page.Users[:1] // what is beyond the length is forgotten, too
	r.reset()
	for i, u := range r.page.Users[:cap(r.page.Users)] {
		if u != (User{}) {
			t.Errorf("user %d is still %+v", i, u)
		}
	}
	r.page.Users = nil
	if len(r.body)+len(r.etag)+len(r.keys)+len(r.date) != 0 {
		t.Errorf("buffers are not empty: %+v", r)
	}
	r.body, r.etag, r.keys, r.date = nil, nil, nil, nil
	if !reflect.ValueOf(*r).IsZero() {
		t.Errorf("something is left: %+v", r)
	}
}

func TestHugeReplyIsNotPooled(t *testing.T) {
	r := &reply{body: make([]byte, 3, maxPooledBody+1)}
	r.release()
	if len(r.body) != 3 {
		t.Error("a huge reply was reset for the pool")
	}
}

func TestListAllocatesNothing(t *testing.T) {
	if mallocs.Race {
		t.Skip("the race detector allocates")
	}
	s, err := New(t.Context(), Options{Seed: 1000, Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { s.listener.Close(); s.end(); s.stop(); s.hasher.close() }()
	f := func(uri, condition string, status int) {
		t.Helper()
		var ctx fasthttp.RequestCtx
		ctx.Init(&fasthttp.Request{}, &net.TCPAddr{}, nil)
		request := func() {
			ctx.Request.Reset()
			ctx.Response.Reset()
			ctx.Request.SetRequestURI(uri)
			if condition != "" {
				ctx.Request.Header.Set("If-None-Match", condition)
			}
			s.handle(&ctx)
		}
		request()
		if ctx.Response.StatusCode() != status {
			t.Fatalf("%s: status %d; want %d", uri, ctx.Response.StatusCode(), status)
		}
		const runs = 10_000
		var before, after runtime.MemStats
		runtime.GC()
		for range 100 {
			request()
		}
		runtime.ReadMemStats(&before)
		for range runs {
			request()
		}
		runtime.ReadMemStats(&after)
		if n := after.Mallocs - before.Mallocs; n > runs/1000 {
			t.Errorf("%s: %d allocations in %d runs", uri, n, runs)
		}
	}
	f("/users?page=3&page_size=20", "", 200)
	f("/users?page=3&page_size=20", "*", 304)
	f("/users?after=1577836800000000-1", "", 200)
	f("/users", "", 200)
}

func BenchmarkList(b *testing.B) {
	s, err := New(b.Context(), Options{Seed: 1000, Name: "a"})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { s.listener.Close(); s.end(); s.stop(); s.hasher.close() }()
	var ctx fasthttp.RequestCtx
	ctx.Init(&fasthttp.Request{}, &net.TCPAddr{}, nil)
	ctx.Request.SetRequestURI("/users?page=3&page_size=20")
	b.ReportAllocs()
	for b.Loop() {
		ctx.Response.Reset()
		s.handle(&ctx)
	}
}

func TestMatches(t *testing.T) {
	f := func(list string, want bool) {
		t.Helper()
		if matches([]byte(list), []byte(`"a-1"`)) != want {
			t.Errorf("%s: %v; want %v", list, !want, want)
		}
	}
	f(`"a-1"`, true)
	f(`W/"a-1"`, true)
	f(`*`, true)
	f(` "x" , W/"a,1",	"a-1"`, true)
	f(`,,"a-1",`, true)
	f(``, false)
	f(`a-1`, false)
	f(`"a-1`, false)
	f(`"x"`, false)
	f(`"x", a-1, "a-1"`, false) // malformed in the middle
	f(`w/"a-1"`, false)
	f(`"a-12"`, false)
}

func FuzzMatches(f *testing.F) {
	for _, s := range []string{`"a"`, `W/"a", "b"`, `*`, `"`, `W/`, `,`} {
		f.Add(s, `"a"`)
	}
	f.Fuzz(func(t *testing.T, list, tag string) {
		tag = `"` + strings.ReplaceAll(tag, `"`, "") + `"`
		if matches([]byte(list), []byte(tag)) && !strings.Contains(list, tag) && !strings.Contains(list, "*") {
			t.Errorf("%q matches %q", list, tag)
		}
		if !matches([]byte(`"other", `+tag), []byte(tag)) {
			t.Errorf("%q does not match a list that ends with it", tag)
		}
	})
}

func TestCacheControl(t *testing.T) {
	f := func(ttl time.Duration, want int) {
		t.Helper()
		if got := cacheControl(ttl); got != fmt.Sprintf("public, max-age=%d", want) {
			t.Errorf("%v: %q; want %d", ttl, got, want)
		}
	}
	f(time.Minute, 10)
	f(time.Second, 1)
	f(24*time.Hour, 60)
	f(-1, 0)
}
