package admin_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gateway/admin"
	"gateway/config"
	"gateway/internal/load"
	"gateway/internal/origin"
	"gateway/proxy"
)

const patience = 10 * time.Second

// everything is what an admin server on loopback offers.
var everything = admin.Access{All: true, Profiles: true}

// operated is a gateway with both of its servers.
type operated struct {
	*proxy.Gateway
	t             testing.TB
	front         string // "host:port" of the gateway
	admin, probes string // of the servers
	text          atomic.Pointer[string]
	stop          context.CancelFunc
	stopped       chan struct{}
}

// operate runs a gateway with a configuration; "%s" in it is an origin that
// echoes, and fails for /fail.
func operate(t testing.TB, text string) *operated {
	t.Helper()
	o := origin.Start(t, func(c *origin.Conn) {
		for {
			switch r := c.Read(); r.Target {
			case "/fail":
				c.Write("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")
			case "/reset":
				c.Reset()
			default:
				c.Write(origin.OK(r.Body))
			}
		}
	})
	address := load.FreeAddress(t)
	p := &operated{t: t, front: address, stopped: make(chan struct{})}
	p.configure("listen = \"" + address + "\"\naccess_log = \"off\"\n" + strings.ReplaceAll(text, "%s", o.Address))
	log := slog.New(slog.DiscardHandler)
	g, err := proxy.New(proxy.Options{
		Load:    func() (*config.Config, error) { return config.Parse("config.toml", []byte(*p.text.Load()), nil) },
		Version: "1.2.3", Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Gateway = g
	var servers []*admin.Server
	for _, access := range []admin.Access{everything, {}} {
		s, err := admin.Listen("127.0.0.1:0", access, nil, log)
		if err != nil {
			t.Fatal(err)
		}
		s.Serve(g)
		servers = append(servers, s)
	}
	p.admin, p.probes = servers[0].Address(), servers[1].Address()
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	go func() {
		g.Run(ctx)
		close(p.stopped)
	}()
	t.Cleanup(func() {
		stop()
		<-p.stopped
		for _, s := range servers {
			s.Close()
		}
	})
	p.until("the gateway serves", g.Ready)
	return p
}

func (p *operated) configure(text string) { p.text.Store(&text) }

func (p *operated) until(what string, ok func() bool) {
	p.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// reply is an answer of a server.
type reply struct {
	*http.Response
	body string
}

// ask sends a request, with fields, to a server.
func ask(t testing.TB, method, address, path string, fields ...string) reply {
	t.Helper()
	r, err := http.NewRequest(method, "http://"+address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		r.Header.Set(name, value)
		if name == "Host" {
			r.Host = value
		}
	}
	client := http.Client{Timeout: 3 * patience, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp, string(text)}
}

// decode reads an answer's JSON.
func (r reply) decode(t testing.TB, into any) {
	t.Helper()
	if ct := r.Header.Get("Content-Type"); !strings.HasSuffix(strings.Split(ct, ";")[0], "json") {
		t.Errorf("content type %q", ct)
	}
	d := json.NewDecoder(strings.NewReader(r.body))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		t.Errorf("%v in %s", err, r.body)
	}
}

// raw sends bytes to the gateway and reads what comes, to its end.
func (p *operated) raw(text string) string {
	p.t.Helper()
	c, err := net.Dial("tcp", p.front)
	if err != nil {
		p.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	io.WriteString(c, text)
	answer, _ := io.ReadAll(c)
	return string(answer)
}

const sample = `
[upstream.app]
servers = ["%s"]
health = { interval = "50ms", fails = 1, passes = 1 }
[upstream.gone]
servers = ["127.0.0.1:1", "127.0.0.1:2"]
[[route]]
name = "fixed"
path = "/fixed"
respond = { body = "fixed" }
[[route]]
name = "moved"
path = "/moved"
redirect = { to = "/fixed" }
[[route]]
name = "denied"
path = "/denied"
allow = ["192.0.2.1"]
upstream = "app"
[[route]]
name = "gone"
path = "/gone"
upstream = "gone"
[[route]]
name = "app"
path = ["/app", "/fail", "/reset"]
methods = ["GET", "HEAD", "POST"]
set_request_headers = { X-Key = "${file:SECRET}" }
upstream = "app"
`

// operateSample runs the sample, with its secret in a file.
func operateSample(t testing.TB) *operated {
	t.Helper()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("very-secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	return operate(t, strings.ReplaceAll(sample, "SECRET", secret))
}

func TestMetricsPassPromtool(t *testing.T) {
	p := operateSample(t)
	check := func() string {
		t.Helper()
		r := ask(t, "GET", p.admin, "/metrics")
		if ct := r.Header.Get("Content-Type"); ct != "text/plain; version=0.0.4; charset=utf-8" {
			t.Errorf("content type %q", ct)
		}
		cmd := exec.Command("promtool", "check", "metrics")
		cmd.Stdin = strings.NewReader(r.body)
		if text, err := cmd.CombinedOutput(); err != nil || len(text) > 0 {
			t.Errorf("promtool check metrics (Debian package prometheus): %v\n%s", err, text)
		}
		return r.body
	}
	check() // nothing has happened yet

	for _, path := range []string{"/fixed", "/moved", "/denied", "/gone", "/app", "/fail", "/reset", "/none", "/%00", "/\x01"} {
		for _, method := range []string{"GET", "POST", "HEAD", "MYSTERY"} {
			p.raw(method + " " + path + " HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		}
	}
	p.raw("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
	p.raw("POST /app HTTP/1.1\r\nHost: test\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
	ask(t, "POST", p.admin, "/reload")
	text := check()
	for _, want := range []string{
		`gateway_http_requests_total{route="fixed",method="GET",status="200"} 1`,
		`gateway_http_requests_total{route="denied",method="GET",status="403"} 1`,
		`gateway_http_requests_total{route="app",method="POST",status="200"} 2`,
		`gateway_http_request_bytes_total{route="app"} 3`,
		`gateway_http_request_duration_seconds_bucket{route="fixed",method="GET",le="0.00025"}`,
		`gateway_http_in_flight 0`,
		`gateway_ended_total{reason="`,
		`gateway_connections_total{listener="` + p.front + `"}`,
		`gateway_connections_active{listener="` + p.front + `"}`,
		`gateway_upstream_requests_total{upstream="app",server="`,
		`gateway_upstream_up{upstream="gone",server="127.0.0.1:1"}`,
		`gateway_upstream_duration_seconds_bucket{upstream="app",le="`,
		`gateway_upstream_connections{upstream="app",server="`,
		`gateway_retries_total{upstream="gone",result="`,
		`gateway_retry_budget_exhausted_total{upstream="gone"}`,
		`gateway_config_reloads_total{result="applied"} 1`,
		`gateway_config_last_reload_successful 1`,
		`gateway_build_info{`,
		`process_open_fds `, `process_cpu_seconds_total `, `process_resident_memory_bytes `, `go_goroutines `,
	} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("no %s", want)
		}
	}
	for _, line := range strings.Split(text, "\n") {
		if strings.Contains(line, "MYSTERY") || strings.Contains(line, "/none") {
			t.Errorf("a client has made a series: %s", line)
		}
	}
	// Nobody can make series by asking for what does not exist.
	series := strings.Count(text, "\n")
	for i := range 50 {
		p.raw(fmt.Sprintf("METHOD%d /path-%d HTTP/1.1\r\nHost: host-%d\r\nConnection: close\r\n\r\n", i, i, i))
	}
	if now := strings.Count(check(), "\n"); now > series+1 {
		t.Errorf("%d lines, then %d", series, now)
	}
}

func TestLiveAndReady(t *testing.T) {
	p := operate(t, "[[route]]\nrespond = {}\n[shutdown]\ndrain_delay = \"500ms\"\n")
	for _, address := range []string{p.admin, p.probes} {
		for _, path := range []string{"/livez", "/readyz"} {
			if r := ask(t, "GET", address, path); r.StatusCode != 200 || r.body != "ok\n" {
				t.Errorf("%s: status %d, %q", path, r.StatusCode, r.body)
			}
		}
	}
	p.stop()
	p.until("the stop begins", func() bool { return !p.Ready() })
	for _, address := range []string{p.admin, p.probes} {
		if r := ask(t, "GET", address, "/readyz"); r.StatusCode != 503 {
			t.Errorf("/readyz of a gateway that stops: status %d", r.StatusCode)
		}
		if r := ask(t, "GET", address, "/livez"); r.StatusCode != 200 {
			t.Errorf("/livez of a gateway that stops: status %d", r.StatusCode)
		}
	}
}

func TestProbesServerHasNothingElse(t *testing.T) {
	p := operate(t, "[[route]]\nrespond = {}\n")
	for _, path := range []string{"/metrics", "/livez", "/readyz"} {
		if r := ask(t, "GET", p.probes, path, "Host: gateway.example:9181"); r.StatusCode != 200 {
			t.Errorf("%s: status %d", path, r.StatusCode)
		}
	}
	for _, path := range []string{"/", "/healthz", "/status", "/config", "/debug/pprof/", "/debug/pprof/heap"} {
		if r := ask(t, "GET", p.probes, path); r.StatusCode != 404 {
			t.Errorf("%s: status %d", path, r.StatusCode)
		}
	}
	for _, path := range []string{"/reload", "/drain", "/disable", "/enable", "/weight"} {
		if r := ask(t, "POST", p.probes, path); r.StatusCode != 404 {
			t.Errorf("POST %s: status %d", path, r.StatusCode)
		}
	}
}

func TestHealth(t *testing.T) {
	p := operateSample(t)
	var h map[string]any
	r := ask(t, "GET", p.admin, "/healthz")
	r.decode(t, &h)
	if r.StatusCode != 200 || h["status"] != "healthy" || h["version"] != "1.2.3" || h["ready"] != true {
		t.Errorf("status %d: %s", r.StatusCode, r.body)
	}
	stamp, err := time.Parse(time.RFC3339Nano, fmt.Sprint(h["timestamp"]))
	if err != nil || time.Since(stamp).Abs() > time.Minute {
		t.Errorf("timestamp %v, %v", h["timestamp"], err)
	}
	if c, _ := h["config"].(map[string]any); c["status"] != "current" || c["loaded"] == nil || c["error"] != nil {
		t.Errorf("config %v", h["config"])
	}
	pools, _ := h["upstreams"].(map[string]any)
	gone, _ := pools["gone"].(map[string]any)
	if len(pools) != 2 || gone["status"] != "healthy" || gone["servers"] != 2.0 || gone["usable"] != 2.0 {
		t.Errorf("upstreams %v", pools)
	}

	for i, want := range []struct {
		code           int
		status, health string
	}{{200, "degraded", "healthy"}, {503, "unhealthy", "unhealthy"}} {
		ask(t, "POST", p.admin, fmt.Sprintf("/drain?upstream=gone&server=127.0.0.1:%d", i+1))
		r := ask(t, "GET", p.admin, "/healthz")
		var h proxy.Health
		r.decode(t, &h)
		if r.StatusCode != want.code || h.Status != want.health || h.Upstreams["gone"].Status != want.status {
			t.Errorf("%d drained: status %d: %s", i+1, r.StatusCode, r.body)
		}
	}
}

func TestStatus(t *testing.T) {
	p := operateSample(t)
	p.raw("GET /app HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
	p.raw("GET /fail HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
	kept, err := net.Dial("tcp", p.front)
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	io.WriteString(kept, "GET /app HTTP/1.1\r\nHost: test\r\n\r\n")
	if _, err := http.ReadResponse(bufio.NewReader(kept), nil); err != nil {
		t.Fatal(err)
	}
	var s proxy.Status
	p.until("the server is up and idle", func() bool {
		s = proxy.Status{}
		ask(t, "GET", p.admin, "/status").decode(t, &s)
		return s.Upstreams[0].Servers[0].State == "up" && s.InFlight == 0
	})
	if s.Version != "1.2.3" || s.State != "serving" || s.Started.IsZero() || s.Uptime <= 0 || s.Connections != 1 {
		t.Errorf("status %+v", s)
	}
	if len(s.Listeners) != 1 || s.Listeners[0].Address != p.front || s.Listeners[0].Connections != 1 {
		t.Errorf("listeners %+v", s.Listeners)
	}
	var names []string
	for _, r := range s.Routes {
		names = append(names, r.Name)
		if r.Match == "" || r.Action == "" {
			t.Errorf("route %+v", r)
		}
	}
	if want := []string{"fixed", "moved", "denied", "gone", "app"}; !slices.Equal(names, want) {
		t.Errorf("routes %v, want %v", names, want)
	}
	if got := s.Routes[4].Requests; got != 3 {
		t.Errorf("route app has %d requests", got)
	}
	if len(s.Upstreams) != 2 || s.Upstreams[0].Name != "app" || s.Upstreams[1].Name != "gone" {
		t.Fatalf("upstreams %+v", s.Upstreams)
	}
	server := s.Upstreams[0].Servers[0]
	if server.Requests != 3 || server.Failures != 1 || !server.Usable || server.Since.IsZero() || server.Idle != 1 || server.Open != 1 || server.InFlight != 0 || server.Latency <= 0 {
		t.Errorf("server %+v", server)
	}
}

func TestConfigMasksSecrets(t *testing.T) {
	p := operateSample(t)
	r := ask(t, "GET", p.admin, "/config")
	if ct := r.Header.Get("Content-Type"); !strings.HasPrefix(ct, "application/toml") {
		t.Errorf("content type %q", ct)
	}
	if strings.Contains(r.body, "very-secret") {
		t.Error("a secret is shown")
	}
	if !strings.Contains(r.body, p.front) || !strings.Contains(r.body, "idle_timeout") {
		t.Errorf("configuration:\n%s", r.body)
	}
}

func TestReload(t *testing.T) {
	p := operate(t, "[[route]]\nname = \"a\"\nrespond = { body = \"first\" }\n")
	text := *p.text.Load()
	var answer struct {
		Result  string
		Changes []string
		Errors  []string
	}
	ask(t, "POST", p.admin, "/reload").decode(t, &answer)
	if answer.Result != "applied" || answer.Changes == nil || len(answer.Changes) > 0 {
		t.Errorf("nothing changed: %+v", answer)
	}
	p.configure(strings.Replace(text, "first", "second", 1))
	ask(t, "POST", p.admin, "/reload").decode(t, &answer)
	if answer.Result != "applied" || len(answer.Changes) != 1 || !strings.Contains(answer.Changes[0], "second") {
		t.Errorf("a change: %+v", answer)
	}
	p.configure(strings.Replace(text, "respond", "respnd", 1) + "\nmax_body = 1\n")
	r := ask(t, "POST", p.admin, "/reload")
	answer.Changes = nil
	r.decode(t, &answer)
	if r.StatusCode != 422 || answer.Result != "rejected" || len(answer.Errors) < 2 || !strings.HasPrefix(answer.Errors[0], "config.toml:5: ") {
		t.Errorf("status %d: %+v", r.StatusCode, answer)
	}
	if got := p.raw("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"); !strings.HasSuffix(got, "second") {
		t.Errorf("after a rejected reload: %q", got)
	}
}

func TestDrainDisableAndEnable(t *testing.T) {
	p := operateSample(t)
	q := func(upstream, server string) string {
		return "?" + url.Values{"upstream": {upstream}, "server": {server}}.Encode()
	}
	status := func(path string) reply { return ask(t, "POST", p.admin, path) }
	order := func(path, server, want string) {
		t.Helper()
		r := status(path + q("gone", server))
		var answer struct{ Upstream, Server, Result string }
		r.decode(t, &answer)
		if r.StatusCode != 200 || answer.Upstream != "gone" || answer.Server != server || answer.Result != want {
			t.Errorf("status %d: %s, want %s", r.StatusCode, r.body, want)
		}
		var st proxy.Status
		ask(t, "GET", p.admin, "/status").decode(t, &st)
		for _, u := range st.Upstreams {
			for _, s := range u.Servers {
				if s.Address == server && (s.State == want) != (want != "enabled") {
					t.Errorf("%s: the server is %s", path, s.State)
				}
			}
		}
	}
	order("/drain", "127.0.0.1:1", "drained")
	order("/disable", "127.0.0.1:2", "disabled")
	get := func() string { return p.raw("GET /gone HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n") }
	if got := get(); !strings.HasPrefix(got, "HTTP/1.1 503 ") || !strings.Contains(got, "Retry-After: ") {
		t.Errorf("no server in use: %q", got)
	}
	order("/enable", "127.0.0.1:2", "enabled")
	if got := get(); !strings.HasPrefix(got, "HTTP/1.1 502 ") {
		t.Errorf("one server in use that refuses: %q", got)
	}
	for path, want := range map[string]struct {
		code int
		text string
	}{
		"/drain":                                              {400, "POST /drain?upstream=NAME&server=ADDRESS"},
		"/enable?upstream=gone":                               {400, "POST /enable?upstream=NAME&server=ADDRESS"},
		"/disable?server=127.0.0.1:1":                         {400, "POST /disable?upstream=NAME&server=ADDRESS"},
		"/drain" + q("nobody", "127.0.0.1:1"):                 {404, "want one of app, gone"},
		"/drain" + q("gone", "127.0.0.1:3"):                   {404, "127.0.0.1:1, 127.0.0.1:2"},
		"/weight" + q("gone", "127.0.0.1:1"):                  {400, "POST /weight?upstream=NAME&server=ADDRESS&weight=NUMBER"},
		"/weight" + q("gone", "127.0.0.1:1") + "&weight=1001": {400, "weight, 0 to 1000"},
		"/weight" + q("nobody", "127.0.0.1:1") + "&weight=2":  {404, "want one of app, gone"},
		"/weight" + q("gone", "127.0.0.1:3") + "&weight=2":    {404, "127.0.0.1:1, 127.0.0.1:2"},
	} {
		r := status(path)
		var problem struct {
			Type, Title, Detail string
			Status              int
		}
		r.decode(t, &problem)
		if r.StatusCode != want.code || problem.Status != want.code || !strings.Contains(problem.Detail, want.text) {
			t.Errorf("%s: status %d: %s, want %q", path, r.StatusCode, r.body, want.text)
		}
	}
}

func TestWeightIsSet(t *testing.T) {
	p := operateSample(t)
	for _, c := range []struct {
		weight int
		want   string
	}{{7, "7 true"}, {0, "1 false"}} {
		r := ask(t, "POST", p.admin, fmt.Sprintf("/weight?upstream=gone&server=127.0.0.1:2&weight=%d", c.weight))
		var answer struct {
			Upstream, Server string
			Weight           int
		}
		r.decode(t, &answer)
		if r.StatusCode != 200 || answer.Upstream != "gone" || answer.Server != "127.0.0.1:2" || answer.Weight != c.weight {
			t.Errorf("status %d: %s", r.StatusCode, r.body)
		}
		got := ""
		for _, u := range p.Status().Upstreams {
			for _, s := range u.Servers {
				if s.Address == "127.0.0.1:2" {
					got = fmt.Sprint(s.Weight, s.WeightSet)
				}
			}
		}
		if got != c.want {
			t.Errorf("weight %d: the server has %s, want %s", c.weight, got, c.want)
		}
	}
}

func TestMethodsThatDoNotFit(t *testing.T) {
	p := operate(t, "[[route]]\nrespond = {}\n")
	for _, path := range []string{"/reload", "/drain", "/disable", "/enable", "/weight"} {
		if r := ask(t, "GET", p.admin, path); r.StatusCode != 405 || r.Header.Get("Allow") != "POST" {
			t.Errorf("GET %s: status %d, Allow %q", path, r.StatusCode, r.Header.Get("Allow"))
		}
	}
	for _, path := range []string{"/metrics", "/livez", "/readyz", "/healthz", "/status", "/config", "/"} {
		if r := ask(t, "POST", p.admin, path); r.StatusCode != 405 {
			t.Errorf("POST %s: status %d", path, r.StatusCode)
		}
		if r := ask(t, "HEAD", p.admin, path); r.StatusCode != 200 || r.body != "" {
			t.Errorf("HEAD %s: status %d", path, r.StatusCode)
		}
	}
	if r := ask(t, "GET", p.admin, "/nothing"); r.StatusCode != 404 {
		t.Errorf("status %d", r.StatusCode)
	}
	if r := ask(t, "GET", p.admin, "/"); !strings.Contains(r.body, "POST /reload") {
		t.Errorf("index %q", r.body)
	}
}

func TestPagesOfOtherSitesCanDoNothing(t *testing.T) {
	p := operate(t, "[[route]]\nrespond = {}\n")
	for _, field := range []string{"Origin: https://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site"} {
		if r := ask(t, "POST", p.admin, "/reload", field); r.StatusCode != 403 {
			t.Errorf("%s: status %d", field, r.StatusCode)
		}
	}
	// A name of theirs that resolves to us.
	for _, host := range []string{"evil.example", "evil.example:9180", "127.0.0.1.evil.example", "localhost.evil.example"} {
		for _, path := range []string{"/status", "/config", "/metrics", "/debug/pprof/heap"} {
			if r := ask(t, "GET", p.admin, path, "Host: "+host); r.StatusCode != 403 {
				t.Errorf("Host %s, %s: status %d", host, path, r.StatusCode)
			}
		}
	}
	for _, host := range []string{"localhost", "localhost:9180", "127.0.0.1", "[::1]:9180", "10.0.0.1:9180"} {
		if r := ask(t, "GET", p.admin, "/status", "Host: "+host); r.StatusCode != 200 {
			t.Errorf("Host %s: status %d", host, r.StatusCode)
		}
	}
	if r := ask(t, "POST", p.admin, "/reload", "Origin: http://"+p.admin); r.StatusCode != 200 {
		t.Errorf("a page of the admin server itself: status %d", r.StatusCode)
	}
}

func TestProfiles(t *testing.T) {
	p := operate(t, "[[route]]\nrespond = {}\n")
	if r := ask(t, "GET", p.admin, "/debug/pprof/"); r.StatusCode != 200 || !strings.Contains(r.body, "goroutine") {
		t.Errorf("index: status %d", r.StatusCode)
	}
	zipped := "\x1f\x8b"
	for _, path := range []string{"heap", "goroutine", "allocs", "threadcreate", "profile?seconds=1", "block?seconds=1", "mutex?seconds=1"} {
		if r := ask(t, "GET", p.admin, "/debug/pprof/"+path); r.StatusCode != 200 || !strings.HasPrefix(r.body, zipped) {
			t.Errorf("%s: status %d, %.60q", path, r.StatusCode, r.body)
		}
	}
	if r := ask(t, "GET", p.admin, "/debug/pprof/goroutine?debug=2"); !strings.Contains(r.body, "goroutine 1 ") {
		t.Errorf("goroutines: %.60q", r.body)
	}
	for _, seconds := range []string{"0", "61", "soon", "1x"} {
		if r := ask(t, "GET", p.admin, "/debug/pprof/block?seconds="+seconds); r.StatusCode != 400 {
			t.Errorf("seconds %s: status %d", seconds, r.StatusCode)
		}
	}
}

func TestUnixSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "gw-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "admin.sock")
	log := slog.New(slog.DiscardHandler)
	p := operate(t, "[[route]]\nrespond = {}\n")

	// A file that a process left behind is replaced; one that somebody uses,
	// or that is no socket, is not.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Listen("unix:"+path, everything, nil, log); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a socket in use: %v", err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	s, err := admin.Listen("unix:"+path, everything, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	s.Serve(p.Gateway)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	client := http.Client{Timeout: patience, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	resp, err := client.Get("http://gateway/status")
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("status %d", resp.StatusCode)
	}
	s.Close()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Listen("unix:"+path, everything, nil, log); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("a file: %v", err)
	}
}

func TestRetiredServerAnswersWhatIsUnderWay(t *testing.T) {
	p := operate(t, "[[route]]\nrespond = {}\n")
	var log bytes.Buffer
	s, err := admin.Listen("127.0.0.1:0", everything, nil, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	s.Serve(p.Gateway)
	conn, err := net.Dial("tcp", s.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	io.WriteString(conn, "GET /debug/pprof/block?seconds=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
	time.Sleep(200 * time.Millisecond) // it is being served
	s.Retire()
	next, err := admin.Listen(s.Address(), everything, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Errorf("the address is not given up: %v", err)
	} else {
		next.Close()
	}
	s.Close()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != 200 {
		t.Errorf("what was under way: %v", err)
	}
	if log.Len() > 0 {
		t.Errorf("log: %s", log.String())
	}
}

func TestServerChangesItsRole(t *testing.T) {
	p := operate(t, "[[route]]\nrespond = {}\n")
	s, err := admin.Listen("127.0.0.1:0", admin.Access{}, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.Serve(p.Gateway)
	for all, want := range map[bool]int{true: 200, false: 404} {
		s.Offer(admin.Access{All: all})
		if r := ask(t, "GET", s.Address(), "/status"); r.StatusCode != want {
			t.Errorf("all %v: status %d", all, r.StatusCode)
		}
	}
}
