package match

import (
	"strings"
	"testing"

	"gateway/wire"
)

func TestPathPatternsMatchWhatTheyDocument(t *testing.T) {
	f := func(pattern, path string, want bool) {
		t.Helper()
		p, err := ParsePath(pattern)
		if err != nil {
			t.Errorf("ParsePath(%q): %v", pattern, err)
			return
		}
		if got := p.Matches(path); got != want {
			t.Errorf("%q matches %q: %v, want %v", pattern, path, got, want)
		}
	}
	f("/", "/", true)
	f("/", "/a", false)
	f("/", "*", false)
	f("/a", "/a", true)
	f("/a", "/a/", false)
	f("/a", "/A", false)
	f("/a", "/ab", false)
	f("/a/", "/a/", true)
	f("/a/", "/a", false)
	f("/a//b", "/a//b", true)
	f("/a//b", "/a/b", false)
	f("/a/*", "/a", true)
	f("/a/*", "/a/", true)
	f("/a/*", "/a/b/c", true)
	f("/a/*", "/ab", false)
	f("/a/*", "/", false)
	f("/*", "/", true)
	f("/*", "/a/b", true)
	f("/*", "*", true)
	f("*", "*", true)
	f("*", "/a", true)
	f("/users/{id}", "/users/7", true)
	f("/users/{id}", "/users/", false)
	f("/users/{id}", "/users", false)
	f("/users/{id}", "/users/7/", false)
	f("/users/{id}/posts", "/users/7/posts", true)
	f("/users/{id}/posts", "/users/7/8/posts", false)
	f("/users/{id}/*", "/users/7", true)
	f("/users/{id}/*", "/users/7/x/y", true)
	f("/users/{id}/*", "/users/", false)
	f("/{a}/{b}", "/x/y", true)
	f("/{a}/{b}", "/x", false)
	// Literal parts are normalised as requests are.
	f("/%7euser", "/~user", true)
	f("/a%2fb", "/a%2Fb", true)
	f("/a%2fb", "/a/b", false)
	f("/a[1]", "/a[1]", true)
	f("/ä b", "/%C3%A4%20b", true)
	f("/a%20b/*", "/a%20b/c", true)
	f("/%7Bx%7D", "/%7Bx%7D", true)
}

func TestPathPatternsThatMeanNothingAreRefused(t *testing.T) {
	f := func(pattern, want string) {
		t.Helper()
		if _, err := ParsePath(pattern); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParsePath(%q): %v, want %q", pattern, err, want)
		}
	}
	f("", "empty")
	f("a", "start with")
	f("**", "start with")
	f("//a", "two slashes")
	f("//*", "two slashes")
	f("/a*", "last segment")
	f("/*/a", "last segment")
	f("/a/**", "last segment")
	f("/a?b=c", "query")
	f("/a#b", "fragment")
	f("/a/../b", "dot segments")
	f("/./b", "dot segments")
	f("/%2e%2E/b", "dot segments")
	f("/a%2", "hexadecimal")
	f("/a%zz", "hexadecimal")
	f("/a%00", "never part")
	f("/a\x01", "control")
	f("/x{id}", "whole segment")
	f("/{id}x", "whole segment")
	f("/{id", "whole segment")
	f("/id}", "whole segment")
	f("/{{id}}", "whole segment")
	f("/{}", "name")
	f("/{1a}", "no name")
	f("/{a-b}", "no name")
	f("/{id}/{id}", "twice")
	f(strings.Repeat("/a", 65), "segments")
}

func TestPrefixesArePlainPathsWithoutASlashAtTheEnd(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		if got, err := ParsePrefix(text); err != nil || got != want {
			t.Errorf("ParsePrefix(%q) = %q, %v, want %q", text, got, err, want)
		}
	}
	f("/", "")
	f("/a", "/a")
	f("/a/", "/a")
	f("/a/b%7e", "/a/b~")
	for _, text := range []string{"", "a", "*", "/a/*", "/{id}", "/a/..", "//a", "/a//", "/a//b"} {
		if got, err := ParsePrefix(text); err == nil {
			t.Errorf("ParsePrefix(%q) = %q, want an error", text, got)
		}
	}
}

// A literal pattern must have exactly the form that requests for it have.
func FuzzPathIsNormalizedLikeRequests(f *testing.F) {
	for _, s := range []string{"/", "/a/b/", "/%7e%2f%2e.", "/ä b", "/a//b", "/a'b(c)", "/%c3%a4", "/...", "/a[b]", "/a|b^c\"<>`\\"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.ContainsAny(text, "*{}") {
			return
		}
		p, err := ParsePath(text)
		if err != nil {
			return
		}
		var q wire.Request
		if fault := q.ParseParts([]byte("GET"), []byte(text), []byte("HTTP/1.1"), []byte("Host: a\r\n\r\n"), &wire.Limits{}); fault != wire.NoFault {
			return
		}
		if string(q.Path) != p.String() {
			t.Errorf("%q is %q as a pattern and %q in a request", text, p, q.Path)
		}
		if !p.Matches(string(q.Path)) {
			t.Errorf("pattern %q does not match its own path %q", text, q.Path)
		}
	})
}

func FuzzParsePath(f *testing.F) {
	for _, s := range []string{"/", "*", "/a/{b}/*", "/%7b/{c}", "/{", "/a%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePath(text)
		if err != nil {
			return
		}
		again, err := ParsePath(p.String())
		if err != nil || again.String() != p.String() {
			t.Fatalf("%q reads as %q, which reads as %q, %v", text, p, again, err)
		}
		if !p.covers(p) {
			t.Fatalf("%q does not cover itself", p)
		}
	})
}
