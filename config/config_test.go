package config

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"gateway/middleware"
)

func parse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse("config.toml", []byte(text), nil)
	if err != nil {
		t.Fatalf("%v\nin\n%s", err, text)
	}
	return c
}

const base = `listen = ":8080"
[upstream.users]
servers = ["127.0.0.1:9001", "127.0.0.1:9002"]
health = false
`

func TestDefaultsAreFilledIn(t *testing.T) {
	c := parse(t, base)
	u := c.Upstreams["users"]
	r := c.Routes[0]
	switch {
	case c.MaxConnections != 100000, c.Admin.Address.String() != "127.0.0.1:9180", c.Probes.On(), !c.Reload.Watch,
		c.AccessLog.Output != "stdout", c.Client.IdleTimeout != 75*time.Second, c.TLS.MinVersion != "1.2":
		t.Errorf("wrong defaults: %+v", c)
	case u.Balance != "round_robin", u.ConnectTimeout != 5*time.Second, u.Retry.Attempts != 2, !u.TLS.Verify, u.Servers[0].Weight != 1:
		t.Errorf("wrong defaults of the upstream: %+v", u)
	case r.Name != "users", r.Upstream != "users", r.MaxBody != 10<<20, !r.WebSocket, r.CORS.Value != nil:
		t.Errorf("wrong implied route: %+v", r)
	}
}

func TestOneStringStandsForAList(t *testing.T) {
	c := parse(t, base+"[[route]]\nhost = \"a.example.com\"\npath = \"/x\"\nmethods = \"GET\"\nallow = \"10.0.0.0/8\"\nupstream = \"users\"")
	if r := c.Routes[0]; len(r.Host) != 1 || len(r.Path) != 1 || len(r.Methods) != 1 || len(r.Allow) != 1 || len(c.Listen) != 1 {
		t.Errorf("%+v", r)
	}
}

func TestChoiceTakesNameTableOrTrue(t *testing.T) {
	f := func(value string, name string, want *middleware.CORSOptions) {
		t.Helper()
		c := parse(t, base+"[cors.app]\norigins = [\"https://app.example.com\"]\n[[route]]\nupstream = \"users\"\ncors = "+value)
		if got := c.Routes[0].CORS; got.Name != name || !reflect.DeepEqual(got.Value, want) {
			t.Errorf("cors = %s: %q, %+v; want %q, %+v", value, got.Name, got.Value, name, want)
		}
	}
	var defaults middleware.CORSOptions
	fill(reflect.ValueOf(&defaults).Elem())
	with := func(origin string) *middleware.CORSOptions {
		o := defaults
		o.Origins = []string{origin}
		return &o
	}
	f(`true`, "", &defaults)
	f(`false`, "", nil)
	f(`"app"`, "app", with("https://app.example.com"))
	f(`{ origins = "https://other.example.com" }`, "", with("https://other.example.com"))
}

func TestDefaultsAreFreshForEveryTable(t *testing.T) {
	c := parse(t, base+"[[route]]\nupstream = \"users\"\ncors = true\n[[route]]\nupstream = \"users\"\ncors = true")
	c.Routes[0].CORS.Value.Methods[0] = "X"
	if c.Routes[1].CORS.Value.Methods[0] == "X" {
		t.Error("two tables share the list of a default")
	}
}

func TestVariables(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(secret, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env := map[string]string{"NAME": "users.internal", "EMPTY": ""}
	f := func(value, want string) {
		t.Helper()
		c, err := parseWith(base+"host = \""+value+"\"", env)
		if err != nil {
			t.Errorf("%s: %v", value, err)
		} else if got := c.Upstreams["users"].Host; got != want {
			t.Errorf("%s: %q; want %q", value, got, want)
		}
	}
	f("plain", "plain")
	f("${NAME}", "users.internal")
	f("a.${NAME}.b", "a.users.internal.b")
	f("${NAME}${NAME}", "users.internalusers.internal")
	f("${NOT_SET:-fallback}", "fallback")
	f("${EMPTY:-fallback}", "fallback")
	f("${EMPTY}", "")
	f("${NOT_SET:-}x", "x")
	f("${NAME:-fallback}", "users.internal")
	f("a$$b", "a$b")
	f("$${NAME}", "${NAME}")
	write("from-file\n")
	f("${file:"+secret+"}", "from-file")
	write("from-file\r\n")
	f("${file:"+secret+"}", "from-file")
	write("")
	f("${file:"+secret+"}", "")
	write(strings.Repeat("x", maxSecret+1))
	if _, err := parseWith(base+"host = \"${file:"+secret+"}\"", nil); err == nil || !strings.Contains(err.Error(), "larger than 64KiB") {
		t.Errorf("a large file is read: %v", err)
	}
}

func TestMessagesHideSecrets(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("hunter2 \"x\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := parseWith(base+"host = \"${file:"+secret+"}\"\nbalance = \"${file:"+secret+"}\"", nil)
	if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), `unexpected host "***"`) || !strings.Contains(err.Error(), `unknown value "***"`) {
		t.Errorf("%v", err)
	}
}

func TestVariablesGiveNumbersAndSwitches(t *testing.T) {
	c, err := parseWith("max_connections = \"${N}\"\n"+base+"max_idle = \"${IDLE:-7}\"\n[reload]\nwatch = \"${WATCH}\"", map[string]string{"N": "12", "WATCH": "false"})
	if err != nil {
		t.Fatal(err)
	}
	if c.MaxConnections != 12 || c.Upstreams["users"].MaxIdle != 7 || c.Reload.Watch {
		t.Errorf("%d, %d, %v", c.MaxConnections, c.Upstreams["users"].MaxIdle, c.Reload.Watch)
	}
}

func TestEnvironmentOverridesTheFile(t *testing.T) {
	for text, env := range map[string]map[string]string{
		"7":  {"MAX_CONNECTIONS": "7"},
		"10": {"MAX_CONNECTIONS": ""},
	} {
		c, err := parseWith("max_connections = 10\n"+base, env)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmtInt(c.MaxConnections); got != text {
			t.Errorf("%v: %s; want %s", env, got, text)
		}
	}
}

func fmtInt(n int) string { return renderer{}.value(reflect.ValueOf(n), "", field{}) }

func TestRoutesGetStableUniqueNames(t *testing.T) {
	c := parse(t, base+`
[[route]]
upstream = "users"
path = "/users/*"
[[route]]
upstream = "users"
path = ["/users/{id}/posts", "/other"]
methods = ["GET", "HEAD"]
host = "*.Example.com"
[[route]]
upstream = "users"
path = "/Users"
[[route]]
upstream = "users"
name = "users-2"
path = "/named"
[[route]]
upstream = "users"
path = "/"
[[route]]
upstream = "users"
path = "/*"
[[route]]
upstream = "users"
`)
	want := []string{"users", "example-com-users-id-posts-get-head", "users-3", "users-2", "root", "all", "all-2"}
	if got := routeNames(c); !slices.Equal(got, want) {
		t.Errorf("%q; want %q", got, want)
	}
}

func TestLoadReportsUnreadableFiles(t *testing.T) {
	dir := t.TempDir()
	f := func(path, want string) {
		t.Helper()
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", path, err, want)
		}
	}
	f(filepath.Join(dir, "missing.toml"), "missing.toml: read file: no such file or directory")
	f(dir, "read file: is a directory")
	large := filepath.Join(dir, "large.toml")
	if err := os.WriteFile(large, make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	f(large, "larger than 4 MiB")
}

func TestLoadReadsTheEnvironment(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(base+"host = \"${CONFIG_TEST_HOST}\""), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CONFIG_TEST_HOST", "users.internal")
	c, err := Load(path)
	if err != nil || c.Upstreams["users"].Host != "users.internal" {
		t.Errorf("%v", err)
	}
}

func TestProblemsAreBounded(t *testing.T) {
	_, err := Parse("config.toml", []byte(base+strings.Repeat("[[route]]\nupstream = \"nobody\"\n", 1000)), nil)
	if p := err.(Problems); len(p) != maxProblems+1 {
		t.Errorf("%d problems", len(p))
	}
}
