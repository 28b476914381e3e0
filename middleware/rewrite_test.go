package middleware

import (
	"strings"
	"testing"
)

func TestRewriteTakesAndPutsWholeSegments(t *testing.T) {
	f := func(strip, add, path, want string) {
		t.Helper()
		x := ask(t, "192.0.2.1", "OPTIONS a "+path)
		NewRewrite(RewriteOptions{StripPrefix: strip, AddPrefix: add}).Before(x)
		if string(x.Path) != want {
			t.Errorf("strip %q, add %q: %q becomes %q, want %q", strip, add, path, x.Path, want)
		}
		if string(x.Request.Path) != path {
			t.Errorf("the request's own path %q became %q", path, x.Request.Path)
		}
	}
	f("", "", "/a", "/a")
	f("/", "/", "/a", "/a")
	f("/api", "", "/api/users", "/users")
	f("/api/", "", "/api/users/", "/users/")
	f("/api", "", "/api", "/")
	f("/api", "", "/api/", "/")
	f("/api", "", "/apiary", "/apiary")
	f("/api", "", "/v1/api", "/v1/api")
	f("/api", "", "/api//evil.example/x", "/evil.example/x")
	f("/api", "", "/api///", "/")
	f("/%7ea%2f", "", "/~a%2F/b", "/b")
	f("", "/v2", "/users", "/v2/users")
	f("", "/v2/", "/", "/v2/")
	f("/api", "/v2", "/api/users", "/v2/users")
	f("/api", "/v2", "/other", "/v2/other")
	f("/api", "/v2", "/api", "/v2/")
	f("/api", "/v2", "*", "*")
	long := "/" + strings.Repeat("x", 2000)
	f("/api", "/v2", "/api"+long, "/v2"+long)

	if NewRewrite(RewriteOptions{}) != nil {
		t.Error("a stage without work is not nil")
	}
}

func TestRewriteOptionsAreChecked(t *testing.T) {
	o := RewriteOptions{StripPrefix: "/a/*", AddPrefix: "b"}
	if got := problems(o.Check); !strings.Contains(got, `strip_prefix: unexpected prefix "/a/*"`) || !strings.Contains(got, `add_prefix: unexpected prefix "b"`) {
		t.Errorf("problems: %s", got)
	}
	o = RewriteOptions{StripPrefix: "/", AddPrefix: "/a/b/"}
	if got := problems(o.Check); got != "" {
		t.Errorf("problems: %s", got)
	}
}
