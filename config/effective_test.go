package config

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestEffectiveReadsAsTheSameConfiguration(t *testing.T) {
	paths, _ := filepath.Glob("testdata/*.good.toml")
	for _, path := range append(paths, "../config.toml") {
		text, _, env := testdata(t, path)
		c, err := parseWith(text, env)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		const secret = `"0123456789abcdef"` // of all these files
		effective := bytes.ReplaceAll(c.Effective(), []byte(masked), []byte(secret))
		again, err := Parse("config.toml", effective, nil)
		if err != nil {
			t.Errorf("%s: what is in effect is refused: %v\n%s", path, err, c.Effective())
			continue
		}
		c.source, again.source = source{}, source{}
		c.normalize()
		again.normalize()
		if !reflect.DeepEqual(c, again) {
			t.Errorf("%s: what is in effect reads differently:\n%s", path, c.Effective())
		}
		if changes, _ := Diff(c, again); changes != nil {
			t.Errorf("%s: differences with itself: %q", path, changes)
		}
	}
}

// normalize makes empty lists and tables absent.
func (c *Config) normalize() {
	var walk func(v reflect.Value)
	walk = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer:
			if !v.IsNil() {
				walk(v.Elem())
			}
		case reflect.Slice, reflect.Map:
			if v.Len() == 0 && !v.IsNil() && v.CanSet() {
				v.SetZero()
			}
			if v.Kind() == reflect.Slice {
				for i := range v.Len() {
					walk(v.Index(i))
				}
			}
		case reflect.Struct:
			for i := range v.NumField() {
				walk(v.Field(i))
			}
		}
	}
	walk(reflect.ValueOf(c).Elem())
}

func TestEffectiveShowsDefaultsAndHidesSecrets(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := parseWith(base+`
[[route]]
upstream = "users"
set_request_headers = { Authorization = "Bearer ${file:`+secret+`}", X-Plain = "a$$b" }
`, map[string]string{"MAX_CONNECTIONS": "77"})
	if err != nil {
		t.Fatal(err)
	}
	got := string(c.Effective())
	if strings.Contains(got, "hunter2") {
		t.Error("the secret is shown")
	}
	for _, want := range []string{
		`max_connections = 77  # from MAX_CONNECTIONS`,
		`idle_timeout = "1m15s"`,
		`servers = ["127.0.0.1:9001", "127.0.0.1:9002"]`,
		`health = false`,
		`set_request_headers = { Authorization = "***", X-Plain = "a$$b" }`,
		`max_body = "10MiB"`,
	} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("%s is missing in\n%s", want, got)
		}
	}
}

func TestDiffSaysWhatChanged(t *testing.T) {
	const routes = `
[[route]]
name = "a"
path = "/a"
upstream = "users"
[[route]]
name = "b"
path = "/b"
upstream = "users"
`
	f := func(old, new string, want ...string) {
		t.Helper()
		got, _ := Diff(parse(t, old), parse(t, new))
		if !slices.Equal(got, want) {
			t.Errorf("\n got %q\nwant %q", got, want)
		}
	}
	f(base, base)
	f(base, strings.Replace(base, `"127.0.0.1:9002"`, `"127.0.0.1:9003", "127.0.0.1:9004"`, 1),
		`upstream.users.servers: added "127.0.0.1:9003", added "127.0.0.1:9004", removed "127.0.0.1:9002"`)
	f(base, strings.Replace(base, `"127.0.0.1:9002"`, `{ address = "127.0.0.1:9002", weight = 3 }`, 1),
		`upstream.users.servers: added { address = "127.0.0.1:9002", weight = 3, backup = false, max_connections = 0 }, removed "127.0.0.1:9002"`)
	f(base, strings.Replace(base, `health = false`, `health = { path = "/health" }`, 1)+`retry.attempts = 3`,
		`upstream.users.health: false → { type = "http", path = "/health", interval = "2s", fast_interval = "0s", timeout = "2s", fails = 3, passes = 2, port = 0, status = "200-399", jitter = "10%" }`,
		`upstream.users.retry.attempts: 2 → 3`)
	f(base+routes, base+strings.Replace(routes, `"/a"`, `"/z"`, 1)+"max_body = \"1GiB\"",
		`route[a].path: added "/z", removed "/a"`, `route[b].max_body: "10MiB" → "1GiB"`)
	f(base+routes, base+"[[route]]\nname = \"b\"\npath = \"/b\"\nupstream = \"users\"\n[[route]]\nname = \"a\"\npath = \"/a\"\nupstream = \"users\"",
		`route: order changed to b, a`)
	f(base+routes, base+routes+"[[route]]\nname = \"c\"\nrespond = { status = 204 }\n[upstream.more]\nservers = [\"127.0.0.1:1\"]",
		`upstream.more: added`, `route[c]: added`)
	f(base+routes+"cors = true", base+routes, `route[b].cors: { origins = ["*"], methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"], headers = ["*"], credentials = false, max_age = "10m" } → false`)
	f("access_log = \"off\"\n"+base, base, `access_log.output: "off" → "stdout"`)
}

func TestDiffHidesSecretsAndWarnsOfOverrides(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	read := func(value, max string) *Config {
		t.Helper()
		if err := os.WriteFile(secret, []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := parseWith(max+"\n"+base+"host = \"${file:"+secret+"}\"", map[string]string{"MAX_CONNECTIONS": "5"})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	changes, warnings := Diff(read("one", "max_connections = 10"), read("two", "max_connections = 20"))
	if !slices.Equal(changes, []string{"upstream.users.host: changed"}) {
		t.Errorf("changes: %q", changes)
	}
	if !slices.Equal(warnings, []string{"max_connections: changed in the file, but MAX_CONNECTIONS in the environment overrides it"}) {
		t.Errorf("warnings: %q", warnings)
	}
}
