package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"gateway/internal/load"
	"gateway/proxy"
)

// explainer is the configuration of a gateway that is asked while it runs: its
// origin is %[1]q, its address %[2]q.
const explainer = `
listen = %[2]q
[upstream.app]
servers = [%[1]q]
health = false
[limit.few]
rate = "1/d"
burst = 3
[[route]]
name = "kept"
path = "/kept"
upstream = "app"
cache = { ttl = "1h" }
[[route]]
name = "few"
path = "/few"
upstream = "app"
limit = "few"
`

func TestExplainKnowsWhatARunningGatewayKnows(t *testing.T) {
	origin, requests := counted(t)
	front := load.FreeAddress(t)
	c := runs(t, fmt.Sprintf(explainer, origin, front))
	says := func(live bool, path string, want ...string) {
		t.Helper()
		args := []string{"explain", "-c", c.config, "http://" + front + path}
		if live {
			args = append(args, "--live")
		}
		r := command(t, args...)
		if r.status != 0 || r.stderr != "" {
			t.Errorf("%v: exit status %d: %s", args, r.status, r.stderr)
		}
		for _, w := range want {
			if !strings.Contains(r.stdout, w) {
				t.Errorf("%v: want %q in\n%s", args, w, r.stdout)
			}
		}
	}
	says(true, "/kept", "route     kept: ", "cache     miss", origin+": unknown")
	says(true, "/few", "2 left")
	if n := requests.Load(); n != 0 {
		t.Errorf("the origin got %d requests", n)
	}
	for path, n := range map[string]int{"/kept": 1, "/few": 4} {
		for range n {
			get(t, "http://"+front+path)
		}
	}
	if status, text := c.ask("POST", "/drain?upstream=app&server="+origin); status != 200 {
		t.Fatalf("drain: %d %s", status, text)
	}
	c.until("the response is stored", func() bool {
		return strings.Contains(command(t, "explain", "--live", "-c", c.config, "http://"+front+"/kept").stdout, "cache     hit")
	})
	says(true, "/kept", "stored 200", "by the cache")
	says(true, "/few", "refuses, again in ", "429 ", "by the gateway")
	says(true, "/other", "404 ", "no_route")
	says(false, "/kept", "cache     miss")
	says(true, "/kept?fresh", origin+": drained, not eligible")
	says(false, "/few", "2 left", origin+": unknown")
	r := command(t, "explain", "--live", "--json", "-c", c.config, "http://"+front+"/kept")
	var e proxy.Explanation
	if err := json.Unmarshal([]byte(r.stdout), &e); err != nil || e.Route != "kept" || e.Cache == nil || e.Cache.Verdict != "hit" {
		t.Errorf("%v: %s", err, r.stdout)
	}
	if n := requests.Load(); n != 4 {
		t.Errorf("the origin got %d requests, want 4", n)
	}

	if r := command(t, "explain", "--live", "-c", c.config, "http://"+front+"/a b"); r.status != 1 || !strings.Contains(r.stderr, "400 Bad Request: ") {
		t.Errorf("a URL that cannot be: exit status %d: %s%s", r.status, r.stdout, r.stderr)
	}
}

func TestExplainAsksOnlyWhereItMay(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "a.pem"), filepath.Join(dir, "a.key")
	writeCertificate(t, cert, key)
	admin, secure := load.FreeAddress(t), load.FreeAddress(t)
	_, port, _ := strings.Cut(secure, ":")
	const route = "[[route]]\nname = \"inside\"\nrespond = {}\n"
	c := runs(t, fmt.Sprintf("[admin]\naddress = %q\ntoken = \"operators-0123456789\"\nread_token = \"readers-0123456789\"\n%s", admin, route))
	mutual := runs(t, fmt.Sprintf("[admin]\naddress = \"https://%s\"\ncertificates = [{ cert = %q, key = %q }]\nclient_ca = %q\n%s", secure, cert, key, cert, route))

	f := func(status int, want string, args ...string) {
		t.Helper()
		r := command(t, append([]string{"explain", "http://example.com/"}, args...)...)
		if r.status != status || !strings.Contains(r.stdout+r.stderr, want) {
			t.Errorf("explain %v: exit status %d, want %d and %q:\n%s%s", args, r.status, status, want, r.stdout, r.stderr)
		}
		if status != 0 && (r.stdout != "" || strings.Contains(r.stderr, "inside")) {
			t.Errorf("explain %v tells something:\n%s%s", args, r.stdout, r.stderr)
		}
	}
	f(0, "inside", "--live", "-c", c.config)
	for token, status := range map[string]int{"operators-0123456789": 0, "readers-0123456789": 0, "wrong-0123456789": 1, "": 1} {
		t.Setenv(tokenVariable, token)
		f(status, map[int]string{0: "inside", 1: "401 Unauthorized: "}[status], "--address", "http://"+admin)
	}
	f(0, "inside", "--live", "-c", mutual.config, "--cert", cert, "--key", key)
	f(0, "inside", "--address", "https://localhost:"+port, "--ca", cert, "--cert", cert, "--key", key)
	f(1, "certificate", "--live", "-c", mutual.config)
	f(1, "certificate", "--address", "https://localhost:"+port, "--cert", cert, "--key", key) // the system's authorities
	f(1, "no certificate in", "--address", "https://localhost:"+port, "--ca", key)
	f(2, "unexpected address", "--address", "localhost:9180")
	nobody := load.FreeAddress(t)
	f(1, "connection refused", "--address", "http://"+nobody)
	f(1, "no such file", "--address", "unix:"+filepath.Join(dir, "none"))
}

func TestSignedFieldExplainsLiveTraffic(t *testing.T) {
	const secret = "0123456789abcdef0123456789abcdef"
	var seen atomic.Value // what the origin got of the field
	seen.Store("")
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen.Store(seen.Load().(string) + strings.Join(r.Header.Values("Gateway-Explain"), ","))
		io.WriteString(w, "hello")
	}))
	defer origin.Close()
	front := load.FreeAddress(t)
	configuration := fmt.Sprintf(explainer, origin.Listener.Addr(), front)
	c := runs(t, configuration+"[explain]\nsecret = \""+secret+"\"\nwindow = \"1s\"\n")
	stranger := prepare(t)
	stranger.write(configuration + "[explain]\nsecret = \"" + strings.ToUpper(secret) + "\"\n")
	without := prepare(t)
	without.write(configuration)

	sign := func(c *child, path string, args ...string) string {
		t.Helper()
		r := command(t, append([]string{"explain", "--sign", "-c", c.config, "http://" + front + path}, args...)...)
		if r.status != 0 || r.stderr != "" || !strings.HasPrefix(r.stdout, "Gateway-Explain: t=") {
			t.Fatalf("--sign: exit status %d: %s%s", r.status, r.stdout, r.stderr)
		}
		return strings.TrimSpace(r.stdout)
	}
	note := func(method, path, field string) string {
		t.Helper()
		r, err := http.NewRequest(method, "http://"+front+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if name, value, found := strings.Cut(field, ": "); found {
			r.Header.Set(name, value)
		}
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 && resp.StatusCode != 429 {
			t.Fatalf("%s %s: status %d, %v", method, path, resp.StatusCode, err)
		}
		return strings.Join(resp.Header.Values("Gateway-Explanation"), "\n")
	}

	// A machine that is busy may need longer than the window to sign and ask.
	var field, told string
	c.until("the explanation of a request", func() bool {
		field = sign(c, "/kept")
		told = note("GET", "/kept", field)
		return told != ""
	})
	for _, part := range []string{"route=kept;", "cache=", "upstream=app:1/1", "reason=done"} {
		if !strings.Contains(told, part) {
			t.Errorf("want %q in %q", part, told)
		}
	}
	silent := func(what, method, path, field string) {
		t.Helper()
		if got := note(method, path, field); got != "" {
			t.Errorf("%s: %q", what, got)
		}
	}
	silent("without the field, from the cache", "GET", "/kept", "")
	silent("replayed for another path", "GET", "/few", field)
	silent("replayed with another method", "HEAD", "/kept", field)
	silent("with another secret", "GET", "/kept", sign(stranger, "/kept"))
	silent("cut", "GET", "/kept", field[:len(field)-2])
	c.until("the window is over", func() bool { return note("GET", "/kept", field) == "" })
	silent("replayed after the window", "GET", "/kept", field)
	if got := seen.Load(); got != "" {
		t.Errorf("the origin got the field: %q", got)
	}

	for _, r := range []struct {
		result
		status int
		want   string
	}{
		{command(t, "explain", "--sign", "-c", without.config, "http://"+front+"/"), 1, "explain.secret: missing"},
		{command(t, "explain", "--sign", "-c", c.config), 2, "explain takes one URL"},
		{command(t, "explain", "--sign", "-c", c.config, "/relative"), 1, ""},
	} {
		if r.result.status != r.status || r.stdout != "" || r.stderr == "" || !strings.Contains(r.stderr, r.want) {
			t.Errorf("exit status %d, want %d and %q: %s%s", r.result.status, r.status, r.want, r.stdout, r.stderr)
		}
	}
}
