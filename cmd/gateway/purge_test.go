package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"gateway/internal/load"
)

func TestPurgeCommand(t *testing.T) {
	var asked atomic.Int64
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("Cache-Control", "max-age=600")
		w.Header().Set("ETag", `"a"`)
		w.Header().Set("Surrogate-Key", "t"+strings.ReplaceAll(r.URL.Path, "/", "-"))
		if r.Header.Get("If-None-Match") == `"a"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		fmt.Fprint(w, r.URL.Path)
	}))
	defer origin.Close()
	admin := load.FreeAddress(t)
	c := runs(t, fmt.Sprintf(`
admin = { address = %q, token = "token-of-the-test" }
[cache]
memory = "8MiB"
[upstream.app]
servers = [%q]
[[route]]
upstream = "app"
cache = true
`, admin, origin.Listener.Addr()))
	host := c.address()
	paths := []string{"/a/1", "/a/2", "/b"}
	// status is what Cache-Status says of each path.
	status := func() (all []string) {
		for _, path := range paths {
			resp, err := http.Get("http://" + host + path)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			_, s, _ := strings.Cut(resp.Header.Get("Cache-Status"), "; ")
			s, _, _ = strings.Cut(s, ";")
			all = append(all, s)
		}
		return all
	}
	// purge stores all paths, runs the command and looks what is left.
	purge := func(want string, args ...string) {
		t.Helper()
		status()
		if got := fmt.Sprint(status()); got != "[hit hit hit]" {
			t.Fatalf("before gateway purge %v: %s", args, got)
		}
		r := command(t, append([]string{"purge", "--config", c.config}, args...)...)
		if r.status != 0 || r.stdout != "purged\n" || r.stderr != "" {
			t.Errorf("gateway purge %v: exit status %d, %q, %q", args, r.status, r.stdout, r.stderr)
		}
		if got := fmt.Sprint(status()); got != want {
			t.Errorf("gateway purge %v leaves %s, want %s", args, got, want)
		}
	}
	const miss, stale = "fwd=uri-miss", "fwd=stale"
	purge("["+miss+" hit hit]", "--url", "http://"+host+"/a/1")
	purge("["+miss+" "+miss+" hit]", "--prefix", host+"/a/")
	purge("["+miss+" "+miss+" "+miss+"]", "--host", host)
	purge("[hit hit hit]", "--host", "elsewhere.example")
	purge("[hit hit "+miss+"]", "--tag", "t-b")
	purge("["+miss+" "+miss+" "+miss+"]", "--all")
	purge("["+stale+" hit hit]", "--url", "http://"+host+"/a/1", "--soft")
	purge("["+stale+" "+stale+" hit]", "--prefix", host+"/a/", "--soft")
	purge("["+stale+" "+stale+" "+stale+"]", "--host", host, "--soft")
	purge("[hit "+stale+" hit]", "--tag", "t-a-2", "--soft")
	purge("["+stale+" "+stale+" "+stale+"]", "--all", "--soft")

	// At another address, with the token from the environment.
	t.Setenv(tokenVariable, "token-of-the-test")
	purge("["+miss+" "+miss+" "+miss+"]", "--address", "http://"+admin, "--all")

	// What goes wrong purges nothing.
	status()
	fails := func(code int, stderr string, args ...string) {
		t.Helper()
		r := command(t, append([]string{"purge"}, args...)...)
		if r.status != code || r.stdout != "" || !strings.Contains(r.stderr, stderr) {
			t.Errorf("gateway purge %v: exit status %d, %q, %q; want %d, %q", args, r.status, r.stdout, r.stderr, code, stderr)
		}
	}
	const which = "want exactly one of --url, --prefix, --host, --tag and --all"
	fails(2, which)
	fails(2, which, "--soft")
	fails(2, which, "--all", "--tag", "t-b")
	fails(2, "unknown flag: --everything", "--everything")
	fails(2, `unexpected argument "/a/1"`, "/a/1")
	fails(1, `unexpected URL "nonsense"`, "--config", c.config, "--url", "nonsense")
	fails(1, "unexpected query", "--config", c.config, "--prefix", host+"/a?b")
	fails(1, `unexpected host "a/b"`, "--config", c.config, "--host", "a/b")
	fails(2, `unexpected address "nowhere"`, "--address", "nowhere", "--all")
	fails(1, "connection refused", "--address", "http://"+load.FreeAddress(t), "--all")
	fails(1, "missing.toml: read file: no such file", "--config", "missing.toml", "--all")
	t.Setenv(tokenVariable, "token-of-somebody-else")
	fails(1, "401", "--address", "http://"+admin, "--all")
	t.Setenv(tokenVariable, "")
	fails(1, "401", "--address", "http://"+admin, "--all")
	if got := fmt.Sprint(status()); got != "[hit hit hit]" {
		t.Errorf("after purges that have failed: %s", got)
	}

	// A gateway that caches nothing has nothing to purge, and says so.
	off := runs(t, "[[route]]\nrespond = {}\n")
	fails(1, "no route caches", "--config", off.config, "--all")
	file := filepath.Join(t.TempDir(), "off.toml")
	if err := os.WriteFile(file, []byte("listen = \"127.0.0.1:0\"\nadmin = \"off\"\n[[route]]\nrespond = {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	fails(1, "admin is off", "--config", file, "--all")
}
