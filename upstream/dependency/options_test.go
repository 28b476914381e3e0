package dependency

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"gateway/internal/unit"
)

// defaults are options as a configuration gives them that names a URL alone.
func defaults(url string) Options {
	return Options{URL: url, Interval: 2 * time.Second, Timeout: time.Second, Fails: 3, Passes: 2, Jitter: 10}
}

func TestDefaultsOfTestsAreThoseOfTheTags(t *testing.T) {
	v := reflect.ValueOf(defaults(""))
	for i := range v.NumField() {
		f := v.Type().Field(i)
		got := ""
		switch value := v.Field(i).Interface().(type) {
		case time.Duration:
			got = unit.FormatDuration(value)
		case unit.Percent:
			got = value.String()
		case bool:
			got = map[bool]string{true: "true", false: "false"}[value]
		case int:
			got = string(rune('0' + value))
		}
		if want := f.Tag.Get("default"); got != want {
			t.Errorf("%s is %q, its tag says %q", f.Name, got, want)
		}
	}
}

func problems(o Options) map[string]string {
	found := make(map[string]string)
	o.Check(func(key, problem string) { found[key] = problem })
	return found
}

func TestURLForms(t *testing.T) {
	f := func(url string, want Kind) {
		t.Helper()
		o := defaults(url)
		if p := problems(o); len(p) > 0 {
			t.Errorf("%s: %v", url, p)
		}
		if b, err := parse(&o); err != nil || b.kind != want || b.open == nil {
			t.Errorf("%s: %q, %v; want %q", url, b.kind, err, want)
		}
	}
	f("postgres://db", Postgres)
	f("postgresql://u:p@db:5432/x?sslmode=disable&pool_max_conns=7", Postgres)
	f("postgres://u:p@a:5432,b:5433/x?sslmode=disable&target_session_attrs=read-write", Postgres)
	f("postgres:///x?host=/var/run/postgresql", Postgres)
	f("redis://cache", Redis)
	f("rediss://u:p%40ss@cache:6380/3?pool_size=10&dial_timeout=5s", Redis)
	f("redis://[::1]:6379", Redis)
	f("redis://:p@a:7000,b:7001,c", RedisCluster)
	f("redis://a:7000?addr=b:7001", RedisCluster)
	f("redis://a,[::1]", RedisCluster)
	f("redis://a:26379,b:26379/1?master_name=m&password=x", RedisSentinel)
	f("redis://a:26379?master_name=m", RedisSentinel)
}

func TestCheckSaysWhatIsWrong(t *testing.T) {
	f := func(change func(*Options), key, want string) {
		t.Helper()
		o := defaults("redis://cache")
		change(&o)
		if p := problems(o); len(p) != 1 || !strings.Contains(p[key], want) || p[key] == "" {
			t.Errorf("%+v: %q; want %s: %s", o, p, key, want)
		}
	}
	url := func(s string) func(*Options) { return func(o *Options) { o.URL = s } }
	f(url("db:5432"), "url", "unreadable")
	f(url("mysql://db"), "url", `unexpected scheme "mysql"; want postgres`)
	f(url("redis://a,,b"), "url", "an address is empty")
	f(url("redis://a/x"), "url", "invalid database number")
	f(url("redis://a,b/1"), "url", "no databases")
	f(url("redis://a?master_name="), "url", "master_name is empty")
	f(url("redis://a?colour=red"), "url", "unexpected option: colour")
	f(url("postgres://a?sslmode=perhaps"), "url", "sslmode")
	f(url("postgres://a?sslmode=verify-full&sslrootcert=/none.pem"), "url", "none.pem")
	f(func(o *Options) { o.Primary, o.MaxLag = true, time.Second }, "max_lag", "never behind")
	f(func(o *Options) { o.MaxLag = time.Millisecond }, "max_lag", "whole seconds")
	f(func(o *Options) { o.URL, o.MaxLag = "redis://a,b", time.Minute }, "max_lag", "single replica")
	f(func(o *Options) { o.URL, o.MaxLag = "redis://a?master_name=m", time.Minute }, "max_lag", "single replica")
}

// Passwords with special characters that are not percent-encoded make another
// URL of the one that was meant; no part of them may be told.
func TestCheckNeverTellsAPassword(t *testing.T) {
	for _, password := range []string{
		"hunter2secret", "hunter2/secret", "hunter2?secret", "hunter2#secret", "hunter2@secret", "hunter2:secret",
		"hunter2%zzsecret", "hunter2%2Fsecret", "hunter2 secret", "hunter2,secret", "hunter2[secret", "hunter2&secret", "hunter2;secret=x", "7/secret", "7?secret=1", "hunter2\x00secret",
	} {
		for _, url := range []string{
			"postgres://user:" + password + "@host:5432/db?sslmode=perhaps",
			"postgres://user:" + password + "@host:port/db",
			"postgres://user:" + password,
			"redis://user:" + password + "@host:6379/x",
			"redis://:" + password + "@host:6379/0?colour=red",
			"redis://:" + password + "@host,,b",
			"redis://:" + password + "@a,b/1",
			"redis://:" + password,
			"redis://host?master_name=m&db=x&password=" + password,
			"redis://host?master_name=m&dial_timeout=x&password=" + password,
			"postgres://host/db?sslmode=perhaps&password=" + password,
			"mysql://user:" + password + "@host",
		} {
			for key, problem := range problems(defaults(url)) {
				if strings.Contains(problem, "secret") || strings.Contains(problem, "hunter2") {
					t.Errorf("%q: %s: %s", url, key, problem)
				}
			}
		}
	}
}

func TestReasonsAreShortLinesWithoutSecrets(t *testing.T) {
	a, ok := split("redis://u:p%40ss@a,b?master_name=m&password=x%2By")
	if !ok {
		t.Fatal("URL is refused")
	}
	s := a.secrets()
	f := func(in, want string) {
		t.Helper()
		if got := s.clean(in); got != want {
			t.Errorf("%q: %q; want %q", in, got, want)
		}
	}
	f("HELLO 3 AUTH u p@ss", "HELLO 3 AUTH u ***")
	f("redis://u:p%40ss@a", "redis://u:***@a")
	f("x+y x%2By", "*** ***")
	f(" a\n\tb\x00c\xff ", "a b c?")
	if got := s.clean(strings.Repeat("ü", 1000)); len(got) > maxReason+len("…") || !strings.HasSuffix(got, "ü…") {
		t.Errorf("%d bytes: %q", len(got), got)
	}
}

func FuzzURL(f *testing.F) {
	for _, s := range []string{
		"postgres://u:p@h:5432/d?sslmode=disable", "postgres://a,b:1/x", "redis://:p@h:6379/0", "rediss://h", "redis://a,b?addr=c:1",
		"redis://s1:26379,s2/0?master_name=m&password=q", "redis://[::1]:6379", "redis://a,,b", "x://", "://", "redis://u:%zz@h",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, url := range []string{s, "redis://" + s, "postgres://" + s} {
			o := defaults(url)
			b, err := parse(&o)
			if err == nil && (b.kind == "" || b.open == nil) {
				t.Fatalf("%q is accepted without a probe", url)
			}
			if err != nil && err.Error() == "" {
				t.Fatalf("%q is refused without a reason", url)
			}
		}
		// A password that is encoded as it should be is never told.
		const secret = "Zx9-Zx9"
		for _, url := range []string{"redis://u:" + secret + "@" + s, "postgres://u:" + secret + "@" + s} {
			o := defaults(url)
			if _, err := parse(&o); err != nil && strings.Contains(err.Error(), secret) && !strings.Contains(s, secret) {
				t.Fatalf("%q: %v", url, err)
			}
		}
	})
}
