package compress

import "testing"

func TestCodedFormsHaveTagsOfTheirOwn(t *testing.T) {
	f := func(tag string, c Coding, want string) {
		t.Helper()
		got, ok := AppendETag([]byte("a"), []byte(tag), c)
		if string(got) != "a"+want || ok != (want != "") {
			t.Errorf("%s with %v: %s, %v; want %s", tag, c, got, ok, want)
		}
	}
	f(`"x"`, Zstd, `"x-zstd"`)
	f(`"x"`, Brotli, `"x-br"`)
	f(`""`, Gzip, `"-gzip"`)
	f(`W/"x"`, Zstd, "")
	f(`x`, Zstd, "")
	f(`"`, Zstd, "")
	f(``, Zstd, "")
	f(`"x`, Zstd, "")
}

func TestConditionalRequestsAreForThePlainForm(t *testing.T) {
	f := func(list, want, kept string) {
		t.Helper()
		for keep, want := range map[bool]string{false: want, true: kept} {
			got, changed := AppendPlainETags(nil, []byte(list), keep)
			if string(got) != want || changed != (want != "") {
				t.Errorf("%s: %s, %v; want %s", list, got, changed, want)
			}
		}
	}
	f(`"x-zstd"`, `"x"`, `"x", "x-zstd"`)
	f(`"x-br"`, `"x"`, `"x", "x-br"`)
	f(`W/"x-gzip"`, `W/"x"`, `W/"x", W/"x-gzip"`)
	f(`"-deflate"`, `""`, `"", "-deflate"`)
	f(`"a", "b-zstd" , W/"c"`, `"a", "b", W/"c"`, `"a", "b", "b-zstd", W/"c"`)
	f(`"a,b-br"  ,,"c, d"`, `"a,b", "c, d"`, `"a,b", "a,b-br", "c, d"`)
	f(`"a-zstd""b-br"`, `"a", "b"`, `"a", "a-zstd", "b", "b-br"`)
	f(`"x"`, "", "")
	f(`"x-identity"`, "", "")
	f(`"xzstd"`, "", "")
	f(`"x-zstd-1"`, "", "")
	f(`*`, "", "")
	f(``, "", "")
	f(`x-zstd`, "", "")
	f(`"x-zstd`, "", "")
	f(`"x-zstd", y`, "", "")
	f(`W/`, "", "")
}

func TestClientsKnowTheirTagAgain(t *testing.T) {
	f := func(list, tag string, now Coding, want string) {
		t.Helper()
		got, ok := AppendAskedETag(nil, []byte(list), []byte(tag), now)
		if string(got) != want || ok != (want != "") {
			t.Errorf("%s in %s: %s, %v; want %s", tag, list, got, ok, want)
		}
	}
	f(`"x-zstd"`, `"x"`, Zstd, `"x-zstd"`)
	f(`"x-br"`, `"x"`, Zstd, `"x-br"`)
	f(`"x-br", "x-zstd"`, `"x"`, Zstd, `"x-zstd"`)
	f(`"x-br", "x-zstd"`, `"x"`, Brotli, `"x-br"`)
	f(`W/"x-br"`, `"x"`, Identity, `"x-br"`)
	f(`"x", "x-zstd"`, `"x"`, Zstd, "")
	f(`"y-zstd"`, `"x"`, Zstd, "")
	f(`"x-zstd"`, `W/"x"`, Zstd, "")
	f(`"x-zstd"`, ``, Zstd, "")
}

func FuzzETags(f *testing.F) {
	for _, list := range []string{`"x-zstd"`, `W/"a-br", "b"`, `*`, `"a" "b-gzip"`, `"`, `W/`, `,,`} {
		f.Add(list)
	}
	f.Fuzz(func(t *testing.T, list string) {
		plain, changed := AppendPlainETags(nil, []byte(list), false)
		if !changed {
			if len(plain) > 0 {
				t.Fatalf("%q: %q though nothing was changed", list, plain)
			}
			return
		}
		tags := 0
		for rest := plain; ; tags++ {
			tag, after, ok := nextTag(rest)
			if !ok {
				t.Fatalf("%q became %q, which is no list", list, plain)
			}
			if tag == nil {
				break
			}
			rest = after
		}
		for rest := []byte(list); tags > 0; tags-- {
			tag, after, _ := nextTag(rest)
			if tag == nil {
				t.Fatalf("%q became the longer %q", list, plain)
			}
			rest = after
		}
	})
}
