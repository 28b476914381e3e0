package wire

import (
	"bytes"
	"strings"
	"testing"
)

// parseTarget is a GET of the target by HTTP/1.1.
func parseTarget(r *Request, target string, rule SlashRule) Fault {
	return r.ParseParts([]byte("GET"), []byte(target), []byte("HTTP/1.1"), []byte("Host: h\r\n"), &Limits{EncodedSlash: rule})
}

func TestPathsAreNormalised(t *testing.T) {
	for _, c := range []struct{ target, path, query string }{
		{"/", "/", "-"},
		{"/a/b.c", "/a/b.c", "-"},
		{"/a?", "/a", ""},
		{"/a?b=c?d/e", "/a", "b=c?d/e"},
		{"/a?/../b/./c", "/a", "/../b/./c"},
		{"/.", "/", "-"},
		{"/./", "/", "-"},
		{"/a/.", "/a/", "-"},
		{"/a/./b", "/a/b", "-"},
		{"/a/..", "/", "-"},
		{"/a/../", "/", "-"},
		{"/a/b/..", "/a/", "-"},
		{"/a/b/../c", "/a/c", "-"},
		{"/a/./b/../../c/./d?q", "/c/d", "q"},
		{"/a/b/../../c", "/c", "-"},
		{"/a//b", "/a//b", "-"},
		{"/a//../b", "/a/b", "-"},
		{"/a/b//", "/a/b//", "-"},
		{"/.well-known/x", "/.well-known/x", "-"},
		{"/...", "/...", "-"},
		{"/..a/.b/c./d..", "/..a/.b/c./d..", "-"},
		{"/a/..;/b", "/a/..;/b", "-"},
		{"/%7Euser/%41%2d%5f", "/~user/A-_", "-"},
		{"/%2e%2e/", "", "above"},
		{"/a/%2e%2E/b", "/b", "-"},
		{"/a/.%2e/b", "/b", "-"},
		{"/a/%2e/b", "/a/b", "-"},
		{"/a%2fb", "/a%2Fb", "-"},
		{"/a/..%2Fb", "/a/..%2Fb", "-"},
		{"/%c3%a4", "/%C3%A4", "-"},
		{"/\xc3\xa4", "/%C3%A4", "-"},
		{"/%252e%252e/x", "/%252e%252e/x", "-"},
		{"/%0a%0D%7f%5c", "/%0A%0D%7F%5C", "-"},
		{"/a%3fb%23c", "/a%3Fb%23c", "-"},
		{"/a\"<>^`{|}b?\"<>^`{|}\xff", "/a%22%3C%3E%5E%60%7B%7C%7Db", "%22%3C%3E%5E%60%7B%7C%7D%FF"},
		{"/a[1]?b[]=1&c='()*!$,;:@'", "/a[1]", "b[]=1&c='()*!$,;:@'"},
		{"/a?%zz&%2e&%", "/a", "%zz&%2e&%"},
		{"/a?%zz|%", "/a", "%zz%7C%"},
		{"http://h", "/", "-"},
		{"http://h/", "/", "-"},
		{"HTTP://H/a/../b?c", "/b", "c"},
		{"https://h?a=b", "/", "a=b"},
		{"http://h?|", "/", "%7C"},
	} {
		var r Request
		f := parseTarget(&r, c.target, SlashKeep)
		if c.query == "above" {
			if f != AboveRoot {
				t.Errorf("%q gives %q %q, want %q", c.target, r.Path, f, AboveRoot)
			}
			continue
		}
		query := "-"
		if r.Query != nil {
			query = string(r.Query)
		}
		if f != NoFault || string(r.Path) != c.path || query != c.query {
			t.Errorf("%q gives %q ? %q %q, want %q ? %q", c.target, r.Path, query, f, c.path, c.query)
		}
	}
}

func TestTargetsAreRefused(t *testing.T) {
	for _, c := range []struct {
		target string
		want   Fault
	}{
		{"", BadRequestLine},
		{"*", BadTarget},
		{"a", BadTarget},
		{"a/b", BadTarget},
		{"h:80", BadTarget},
		{"?a", BadTarget},
		{"//", BadTarget},
		{"//evil.example/x", BadTarget},
		{"//evil.example:80", BadTarget},
		{"http://h//evil.example/x", BadTarget},
		{"/.//evil", BadTarget},
		{"/a/..//evil", BadTarget},
		{"/a/b/../..//evil", BadTarget},
		{"/%2e//evil", BadTarget},
		{"/\\evil", BadTarget},
		{"\\\\evil", BadTarget},
		{"/a?\\", BadTarget},
		{"/a b", BadTarget},
		{"/a\x00", BadTarget},
		{"/a?\x00", BadTarget},
		{"/a\tb", BadTarget},
		{"/a\x7f", BadTarget},
		{"/a?\x1b", BadTarget},
		{"/a\rb", BareCR},
		{"/a\nb", BareLF},
		{"/a?b\nc", BareLF},
		{"/a#b", Fragment},
		{"/a?b#c", Fragment},
		{"/#", Fragment},
		{"http://h#b", Fragment},
		{"http://h/?#b", Fragment},
		{"/%", BadPercent},
		{"/%4", BadPercent},
		{"/%4g", BadPercent},
		{"/%g4", BadPercent},
		{"/%%34%31", BadPercent},
		{"/%zz?a", BadPercent},
		{"/a%2?b", BadPercent},
		{"/%00", BadPercent},
		{"/a%00.png", BadPercent},
		{"/%u0041", BadPercent},
		{"/..", AboveRoot},
		{"/../", AboveRoot},
		{"/../etc/passwd", AboveRoot},
		{"/a/../..", AboveRoot},
		{"/a/../../b", AboveRoot},
		{"/./../b", AboveRoot},
		{"/%2e%2e/b", AboveRoot},
		{"ftp://h/", BadTarget},
		{"file:///etc/passwd", BadTarget},
		{"http:/h/", BadTarget},
		{"http:h/", BadTarget},
		{"http://", BadTarget},
		{"http:///", BadHost},
		{"http://?a", BadHost},
		{"http://:80/", BadHost},
		{"http://h\\@evil/", BadTarget},
		{"http://user@h/", Userinfo},
		{"http://user:pass@h/", Userinfo},
		{"http://@h/", Userinfo},
		{"http://h:0/", BadHost},
		{"http://h:65536/", BadHost},
		{"http://other/", HostMismatch},
		{"http://h:80/", HostMismatch},
	} {
		var r Request
		if got := parseTarget(&r, c.target, SlashKeep); got != c.want {
			t.Errorf("%q gives %q (path %q), want %q", c.target, got, r.Path, c.want)
		}
	}
}

func TestEncodedSlashRule(t *testing.T) {
	for _, c := range []struct {
		target string
		rule   SlashRule
		path   string
		want   Fault
	}{
		{"/a%2Fb", SlashKeep, "/a%2Fb", NoFault},
		{"/a%2Fb", SlashDecode, "/a/b", NoFault},
		{"/a%2fb", SlashReject, "", EncodedSlash},
		{"/a%2f..%2Fb", SlashDecode, "/b", NoFault},
		{"/a/..%2f..", SlashDecode, "", AboveRoot},
		{"/%2Fevil", SlashDecode, "", BadTarget},
		{"/%2Fevil", SlashKeep, "/%2Fevil", NoFault},
		{"/a%252Fb", SlashDecode, "/a%252Fb", NoFault},
		{"/a%252Fb", SlashReject, "/a%252Fb", NoFault},
		{"/a?%2F", SlashReject, "/a", NoFault},
	} {
		var r Request
		f := parseTarget(&r, c.target, c.rule)
		if f != c.want || f == NoFault && string(r.Path) != c.path {
			t.Errorf("%q by rule %d gives %q %q, want %q %q", c.target, c.rule, r.Path, f, c.path, c.want)
		}
	}
}

func TestNormalTargetsAreNotCopied(t *testing.T) {
	for _, target := range []string{"/", "/a/b?c=d", "/a%2Fb%C3%A4/.x?%zz", "http://h/a?b"} {
		var r Request
		if f := parseTarget(&r, target, SlashKeep); f != NoFault {
			t.Fatal(target, f)
		}
		if len(r.norm) > 0 {
			t.Errorf("%q was copied: %q", target, r.norm)
		}
	}
}

func FuzzPath(f *testing.F) {
	for _, seed := range []string{
		"/", "/a/../b", "/a/..//b", "/%2e%2E/x", "/a%2f..%2fb", "/%", "/\x80\"/./", "/a/b/../../..", "/.//", "/%00", "/a;/..;/",
	} {
		for rule := SlashKeep; rule <= SlashReject; rule++ {
			f.Add([]byte(seed), uint8(rule))
		}
	}
	f.Fuzz(func(t *testing.T, path []byte, ruleByte uint8) {
		rule := SlashRule(ruleByte % 3)
		if len(path) == 0 || path[0] != '/' || bytes.IndexByte(path, '?') >= 0 {
			return
		}
		got, fault := appendPath([]byte("before"), path, rule)
		if fault == NoFault {
			got = got[len("before"):]
			again, fault := appendPath(nil, got, rule)
			if fault != NoFault || !bytes.Equal(got, again) {
				t.Errorf("%q becomes %q, and that %q (%s)", path, got, again, fault)
			}
			for i, segment := range strings.Split(string(got), "/") {
				if segment == "." || segment == ".." || i == 0 && segment != "" {
					t.Errorf("%q becomes %q with segment %q", path, got, segment)
				}
			}
			if len(got) > 1 && got[1] == '/' {
				t.Errorf("%q becomes %q", path, got)
			}
			for _, c := range got {
				if c <= ' ' || c >= 0x7f || strings.IndexByte("\"<>\\^`{|}#?", c) >= 0 {
					t.Errorf("%q becomes %q with %q", path, got, c)
				}
			}
		}
		// The quick look must come to the same end as the slow one.
		var r Request
		quick := r.splitTarget(path, rule)
		if len(path) > 1 && path[1] == '/' {
			if quick != BadTarget {
				t.Errorf("target %q: %s", path, quick)
			}
			return
		}
		if (quick == NoFault) != (fault == NoFault) || quick == NoFault && !bytes.Equal(r.Path, got) {
			t.Errorf("target %q: %q (%s), path %q (%s)", path, r.Path, quick, got, fault)
		}
	})
}
