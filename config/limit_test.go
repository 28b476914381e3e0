package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gateway/middleware/ratelimit"
)

// described are the route's policies as name:number.
func described(r *Route) []string {
	var list []string
	for _, l := range r.Limits() {
		list = append(list, describeLimit(l.Name, l.Options))
	}
	return list
}

func describeLimit(name string, o ratelimit.Options) string {
	return strings.TrimSuffix(fmt.Sprintf("%s:%s%d", name, o.Rate, o.Concurrency), "0")
}

func TestLimitTakesNamesTablesTrueAndLists(t *testing.T) {
	const policies = `
[limit.default]
rate = "1/s"
[limit.api]
rate = "2/s"
[limit.users]
rate = "3/s"
[[route]]
name = "users"
upstream = "users"
`
	f := func(limit string, want ...string) {
		t.Helper()
		c := parse(t, base+policies+limit)
		if got := described(&c.Routes[0]); !slices.Equal(got, want) {
			t.Errorf("%s: %q; want %q", limit, got, want)
		}
	}
	f(``, "default:1/s")
	f(`limit = true`, "default:1/s")
	f(`limit = false`)
	f(`limit = []`)
	f(`limit = "api"`, "api:2/s")
	f(`limit = ["api"]`, "api:2/s")
	f(`limit = ["api", true]`, "api:2/s", "default:1/s")
	f(`limit = { concurrency = 7 }`, "users-2:7") // a table has the route's name already
	f(`limit = [{ rate = "9/m" }, "users", { concurrency = 7 }]`, "users-2:9/m", "users:3/s", "users-3:7")
}

func TestRoutesWithoutDefaultLimitAreNotLimited(t *testing.T) {
	c := parse(t, base+"[limit.api]\nrate = \"2/s\"")
	if r := &c.Routes[0]; r.Limit != nil || r.Limits() != nil {
		t.Errorf("%+v", r.Limit)
	}
}

func TestAllLimitsHasThoseInLine(t *testing.T) {
	c := parse(t, base+`
[limit.a]
rate = "1/s"
[[route]]
name = "a"
path = "/a"
upstream = "users"
limit = ["a", { concurrency = 5 }]
[[route]]
name = "b"
upstream = "users"
limit = { rate = "2/s" }
`)
	var got []string
	all := c.AllLimits()
	for _, name := range names(all) {
		got = append(got, describeLimit(name, all[name]))
	}
	if want := []string{"a:1/s", "a-2:5", "b:2/s"}; !slices.Equal(got, want) {
		t.Errorf("%q; want %q", got, want)
	}
	if len(c.Limits) != 1 {
		t.Error("the file's tables have grown")
	}
}

func TestRateLimitInTheEnvironmentSetsTheDefaultLimit(t *testing.T) {
	f := func(variable, file string, want ...string) {
		t.Helper()
		c, err := parseWith(base+file, map[string]string{"RATE_LIMIT": variable})
		if err != nil {
			t.Errorf("%s: %v", variable, err)
			return
		}
		if got := described(&c.Routes[0]); !slices.Equal(got, want) {
			t.Errorf("%s: %q; want %q", variable, got, want)
		}
		if effective := string(c.Effective()); variable != "" && !strings.Contains(effective, "\"  # from RATE_LIMIT\n") {
			t.Errorf("not marked in\n%s", effective)
		}
	}
	f("", "")
	f("100", "", "default:100/s")
	f("100/s", "", "default:100/s")
	f("10/m", "[limit.default]\nrate = \"5/s\"\nburst = 3", "default:10/m")
	f("10", "[limit]\ndefault = { rate = \"5/s\" }", "default:10/s")
	f("10", "[limit.default]\nburst = 3", "default:10/s")
	f("10", "[limit.api]\nrate = \"5/s\"\n[[route]]\nupstream = \"users\"\nlimit = \"api\"", "api:5/s")
	f("10", "[[route]]\nupstream = \"users\"\nlimit = false")

	c, err := parseWith(base+"[limit.default]\nrate = \"5/s\"\nburst = 3", map[string]string{"RATE_LIMIT": "7"})
	if err != nil || c.Limits["default"].Burst != 3 {
		t.Errorf("the rest of the table is lost: %v", err)
	}
}

func TestDiffWarnsOfALimitThatTheEnvironmentOverrides(t *testing.T) {
	read := func(rate string) *Config {
		c, err := parseWith(base+"[limit.default]\nrate = \""+rate+"\"", map[string]string{"RATE_LIMIT": "7"})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	changes, warnings := Diff(read("1/s"), read("2/s"))
	if want := []string{"limit.default.rate: changed in the file, but RATE_LIMIT in the environment overrides it"}; changes != nil || !slices.Equal(warnings, want) {
		t.Errorf("%q, %q; want %q", changes, warnings, want)
	}
}

func TestDiffSaysWhatChangedInLimits(t *testing.T) {
	const policies = base + "[limit.a]\nrate = \"1/s\"\ncost = { POST = 1 }\n[limit.b]\nrate = \"1/s\"\n[[route]]\nname = \"r\"\nupstream = \"users\"\n"
	f := func(old, new string, want ...string) {
		t.Helper()
		got, _ := Diff(parse(t, old), parse(t, new))
		if !slices.Equal(got, want) {
			t.Errorf("\n got %q\nwant %q", got, want)
		}
	}
	f(policies+`limit = "a"`, policies+`limit = ["a"]`)
	f(policies+`limit = "a"`, policies+`limit = ["a", "b"]`, `route[r].limit: added "b"`)
	f(policies, policies+`limit = "a"`, `route[r].limit: added "a"`)
	f(policies, strings.Replace(policies, `cost = { POST = 1 }`, `cost = { GET = 0, POST = 1 }`, 1), `limit.a.cost: { POST = 1 } → { GET = 0, POST = 1 }`)
	f(policies, strings.Replace(policies, `"1/s"`, `"2/m"`, 1), `limit.a.rate: "1/s" → "2/m"`)
	f(policies, policies+`compress = ["gzip"]`+"\n[compress.x]", `compress.x: added`,
		`route[r].compress: false → `+shownCompress(t))
	f(base+"[redis]\nurl = \"redis://a:1\"", base+"[redis]\nurl = \"redis://b:1\"", `redis.url: changed`)
}

// shownCompress is compress = ["gzip"] as it is shown.
func shownCompress(t *testing.T) string {
	c := parse(t, base+"[[route]]\nupstream = \"users\"\ncompress = [\"gzip\"]")
	for line := range strings.Lines(string(c.Effective())) {
		if text, ok := strings.CutPrefix(line, "compress = "); ok {
			return strings.TrimSpace(text)
		}
	}
	t.Fatal("not shown")
	return ""
}

func TestEffectiveHidesSecretsInLimits(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, limit := range []string{
		`{ rate = "1/s", cost_header = "${file:` + secret + `}" }`,
		`[{ rate = "1/s", cost_header = "${file:` + secret + `}" }]`,
		`[{ rate = "2/s" }, { rate = "1/s", cost_header = "${file:` + secret + `}" }]`,
	} {
		c := parse(t, base+"[redis]\nurl = \"redis://:hunter2@a:1\"\n[[route]]\nupstream = \"users\"\nlimit = "+limit)
		if text := string(c.Effective()); strings.Contains(text, "hunter2") || !strings.Contains(text, `cost_header = "***"`) || !strings.Contains(text, `url = "***"`) {
			t.Errorf("%s is shown as\n%s", limit, text)
		}
	}
}

func TestCompressTakesAListOfCodings(t *testing.T) {
	f := func(compress string, want ...string) {
		t.Helper()
		c := parse(t, base+"[compress.small]\ncodings = \"br\"\nmin_size = \"1B\"\n[[route]]\nupstream = \"users\"\n"+compress)
		var got []string
		if o := c.Routes[0].Compress.Value; o != nil {
			got = o.Codings
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q; want %q", compress, got, want)
		}
	}
	f(``)
	f(`compress = false`)
	f(`compress = true`, "zstd", "br", "gzip")
	f(`compress = "small"`, "br")
	f(`compress = ["gzip", "zstd"]`, "gzip", "zstd")
	f(`compress = { codings = "gzip" }`, "gzip")
}
