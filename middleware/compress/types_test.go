package compress

import (
	"strings"
	"testing"
)

func TestTypes(t *testing.T) {
	types := NewTypes([]string{"text/*", "application/json", "image/SVG+xml", "+json"})
	f := func(contentType string, want bool) {
		t.Helper()
		if got := types.Match([]byte(contentType)); got != want {
			t.Errorf("%q: %v", contentType, got)
		}
	}
	f("text/html", true)
	f("Text/HTML; charset=utf-8", true)
	f("text/event-stream", true)
	f("application/json", true)
	f("application/json ;charset=utf-8", true)
	f("application/problem+json", true)
	f("image/svg+xml", true)
	f("application/jsonp", false)
	f("application/jso", false)
	f("application/atom+xml", false)
	f("image/png", false)
	f("text/", false)
	f("+json", false)
	f("", false)
	f("x"+strings.Repeat("y", longestType)+"+json", false)
}

func TestTypePatterns(t *testing.T) {
	f := func(pattern string, want bool) {
		t.Helper()
		if err := CheckType(pattern); (err == nil) != want {
			t.Errorf("%q: %v", pattern, err)
		}
	}
	f("text/*", true)
	f("application/vnd.ms-fontobject", true)
	f("+json", true)
	f("json", false)
	f("*/*", false)
	f("text/", false)
	f("/html", false)
	f("text/html; charset=utf-8", false)
	f("a/b/c", false)
	f("+", false)
	f("", false)
	f("text/"+strings.Repeat("y", longestType), false)
}

func TestOptionsAreChecked(t *testing.T) {
	f := func(o Options, want string) {
		t.Helper()
		var list []string
		o.Check(func(key, problem string) { list = append(list, key+": "+problem) })
		if got := strings.Join(list, "|"); !strings.Contains(got, want) || (want == "") != (got == "") {
			t.Errorf("%v: %q, want %q", o, got, want)
		}
	}
	f(Options{Codings: []string{"zstd", "br", "gzip", "deflate"}, Types: []string{"text/*"}}, "")
	f(Options{}, "codings: no coding is offered")
	f(Options{Codings: []string{"lzma"}}, `unknown coding "lzma"`)
	f(Options{Codings: []string{"identity"}}, `unknown coding "identity"`)
	f(Options{Codings: []string{"x-gzip"}}, `unknown coding "x-gzip"`)
	f(Options{Codings: []string{"br", "br"}}, `"br" is given twice`)
	f(Options{Codings: []string{"br"}, Types: []string{"html"}}, `unexpected media type "html"`)
}
