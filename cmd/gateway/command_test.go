package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"gateway/internal/load"
)

func TestExitStatus(t *testing.T) {
	good := filepath.Join(t.TempDir(), "good.toml")
	if err := os.WriteFile(good, []byte("listen = \"127.0.0.1:0\"\n[[route]]\nrespond = {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := func(status int, stdout, stderr string, args ...string) {
		t.Helper()
		r := command(t, args...)
		if r.status != status {
			t.Errorf("gateway %v: exit status %d, want %d", args, r.status, status)
		}
		if !strings.Contains(r.stdout, stdout) || stdout == "" && r.stdout != "" {
			t.Errorf("gateway %v: standard output %q, want %q", args, r.stdout, stdout)
		}
		if !strings.Contains(r.stderr, stderr) || stderr == "" && r.stderr != "" {
			t.Errorf("gateway %v: standard error %q, want %q", args, r.stderr, stderr)
		}
	}
	f(0, "gateway test go", "", "version")
	f(0, "Available Commands", "")
	f(0, "Available Commands", "", "help")
	f(0, "Validate a configuration file", "", "help", "check")
	f(0, "--config", "", "run", "--help")
	f(0, "good.toml is valid: 1 route, 0 upstreams", "", "check", "-c", good)
	f(0, "bash completion", "", "completion", "bash")
	f(0, "#compdef gateway", "", "completion", "zsh")

	f(1, "", "missing.toml: read file: no such file", "check", "--config", "missing.toml")
	f(1, "", "missing.toml: read file: no such file", "run", "--config", "missing.toml")
	f(1, "", "missing.toml: read file: no such file", "healthcheck", "--config", "missing.toml")

	f(2, "", "unknown command \"nope\"", "nope")
	f(2, "", "unknown command \"nope\"", "help", "nope")
	f(2, "", "no command \"nope\"", "help", "check", "nope")
	f(2, "", "unexpected argument \"tcsh\"", "completion", "tcsh")
	f(2, "", "did you mean --config config.toml?", "check", "config.toml")
	f(2, "", "unknown flag: --confg", "run", "--confg", "x")
	f(2, "", "flag needs an argument: --config", "run", "--config")
	f(2, "", "invalid argument \"soon\"", "healthcheck", "--timeout", "soon")
}

func TestHelpNamesWhatThereIs(t *testing.T) {
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^  ([a-z]+) +[A-Z]`).FindAllStringSubmatch(command(t, "help").stdout, -1) {
		names = append(names, m[1])
	}
	want := []string{"check", "completion", "demo", "explain", "healthcheck", "help", "load", "profile", "purge", "run", "schema", "version"}
	if !slices.Equal(names, want) {
		t.Errorf("help names %v; want %v", names, want)
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(names, "users") {
		for line := range strings.Lines(command(t, name, "--help").stdout) {
			if utf8.RuneCountInString(line) > 100 {
				t.Errorf("the help of %s has a line of %d characters: %s", name, len(line), line)
			}
		}
		if !slices.Contains([]string{"help", "completion", "users"}, name) && !strings.Contains(string(readme), "\n| `gateway "+name+"` |") {
			t.Errorf("README.md does not name gateway %s", name)
		}
	}
}

func TestCheckPrintsEveryMistakeWithItsLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bad.toml")
	err := os.WriteFile(path, []byte(`listen = "127.0.0.1:0"
max_conections = 5

[upstream.app]
servers = ["127.0.0.1:1"]
balance = "fastest"
connect_timeout = 5

[[route]]
upstream = "ap"
`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	r := command(t, "check", "--config", path)
	if r.status != 1 || r.stdout != "" {
		t.Errorf("exit status %d, standard output %q", r.status, r.stdout)
	}
	lines := strings.Split(strings.TrimSpace(r.stderr), "\n")
	want := []string{"2: max_conections", "6: upstream.app.balance", "7: upstream.app.connect_timeout", "10: route[0].upstream"}
	if len(lines) != len(want) {
		t.Fatalf("%d mistakes, want %d:\n%s", len(lines), len(want), r.stderr)
	}
	for i := range want {
		if !strings.HasPrefix(lines[i], path+":"+want[i]) {
			t.Errorf("mistake %d is %q, want %q", i, lines[i], want[i])
		}
	}
	if !strings.Contains(lines[0], `"max_connections"`) {
		t.Errorf("no suggestion in %q", lines[0])
	}
}

func TestCheckWarns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "odd.toml")
	err := os.WriteFile(path, []byte(`listen = "127.0.0.1:0"
[upstream.unused]
servers = ["127.0.0.1:1"]
health = false
[[route]]
respond = { body = "all" }
[[route]]
path = "/never"
respond = {}
`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	r := command(t, "check", "-c", path)
	if r.status != 0 || !strings.Contains(r.stdout, "is valid: 2 routes, 1 upstream") {
		t.Errorf("exit status %d, standard output %q", r.status, r.stdout)
	}
	if n := strings.Count(r.stderr, "(warning)\n"); n != 2 || !strings.Contains(r.stderr, "odd.toml:2: upstream.unused") || !strings.Contains(r.stderr, "odd.toml:7: route[1]") {
		t.Errorf("%d warnings:\n%s", n, r.stderr)
	}
}

func TestCheckPrintsWhatIsInEffect(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config.toml")
	text := "listen = \"127.0.0.1:0\"\n[[route]]\nset_request_headers = { Authorization = \"Bearer ${file:" + filepath.Join(dir, "token") + "}\" }\nrespond = {}\n"
	for name, content := range map[string]string{"config.toml": text, "token": "secret-token"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := command(t, "check", "-c", path, "--effective")
	if r.status != 0 || !strings.Contains(r.stdout, "idle_timeout") {
		t.Fatalf("exit status %d:\n%s%s", r.status, r.stdout, r.stderr)
	}
	if strings.Contains(r.stdout, "secret-token") {
		t.Error("a secret is printed")
	}
	again := filepath.Join(dir, "again.toml")
	if err := os.WriteFile(again, []byte(r.stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := command(t, "check", "-c", again); r.status != 0 {
		t.Errorf("what is printed is not valid: %s", r.stderr)
	}
}

func TestSchemaIsJSON(t *testing.T) {
	r := command(t, "schema")
	var schema struct {
		Properties map[string]any `json:"properties"`
	}
	if err := json.Unmarshal([]byte(r.stdout), &schema); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"listen", "upstream", "route", "access_log"} {
		if schema.Properties[key] == nil {
			t.Errorf("no %q in the schema", key)
		}
	}
}

func TestCompletionKnowsFlagsAndFiles(t *testing.T) {
	if r := command(t, "__complete", "ch"); !strings.HasPrefix(r.stdout, "check\t") {
		t.Errorf("completion of ch: %q", r.stdout)
	}
	if r := command(t, "__complete", "run", "--con"); !strings.Contains(r.stdout, "--config") {
		t.Errorf("completion of --con: %q", r.stdout)
	}
	if r := command(t, "__complete", "run", "--config", ""); !strings.Contains(r.stdout, "toml") {
		t.Errorf("completion of the file: %q", r.stdout)
	}
	// What bash itself makes of it.
	out, err := exec.Command("bash", "-n", "-c", command(t, "completion", "bash").stdout).CombinedOutput()
	if err != nil {
		t.Errorf("the completion is no script: %v\n%s", err, out)
	}
}

func TestHealthcheck(t *testing.T) {
	c := runs(t, "[[route]]\nrespond = {}\n")
	check := func() result { return command(t, "healthcheck", "--config", c.config, "--timeout", "5s") }
	if r := check(); r.status != 0 || r.stdout+r.stderr != "" {
		t.Errorf("of a gateway that runs: exit status %d, %s%s", r.status, r.stdout, r.stderr)
	}
	c.Process.Signal(syscall.SIGTERM)
	if status := c.ends(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	if r := check(); r.status != 1 || !strings.Contains(r.stderr, "admin.sock") {
		t.Errorf("of a gateway that does not run: exit status %d, %s", r.status, r.stderr)
	}
}

func TestHealthcheckAsksProbesFirst(t *testing.T) {
	address := load.FreeAddress(t)
	_, port, _ := net.SplitHostPort(address)
	c := runs(t, fmt.Sprintf("probes = \":%s\"\n[shutdown]\ndrain_delay = \"10s\"\n[[route]]\nrespond = {}\n", port))
	if r := command(t, "healthcheck", "-c", c.config); r.status != 0 {
		t.Errorf("exit status %d: %s", r.status, r.stderr)
	}
	c.Process.Signal(syscall.SIGTERM)
	c.line("msg=stopping")
	if r := command(t, "healthcheck", "-c", c.config); r.status != 1 || !strings.Contains(r.stderr, "not ready") {
		t.Errorf("of a gateway that stops: exit status %d, %s", r.status, r.stderr)
	}
}

func TestHealthcheckOfAServerThatHangs(t *testing.T) {
	hold := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hold }))
	defer s.Close()
	defer close(hold)
	c := prepare(t)
	c.write(fmt.Sprintf("admin = %q\n[[route]]\nrespond = {}\n", s.Listener.Addr()))
	began := time.Now()
	r := command(t, "healthcheck", "-c", c.config, "--timeout", "200ms")
	if r.status != 1 || time.Since(began) > 10*time.Second {
		t.Errorf("exit status %d after %v: %s", r.status, time.Since(began), r.stderr)
	}
	c.write("admin = \"off\"\n[[route]]\nrespond = {}\n")
	if r := command(t, "healthcheck", "-c", c.config); r.status != 1 || !strings.Contains(r.stderr, "neither probes nor admin") {
		t.Errorf("exit status %d: %s", r.status, r.stderr)
	}
}

func TestLogFollowsTheConfiguration(t *testing.T) {
	c := runs(t, "[[route]]\nrespond = {}\n")
	c.write("log = { level = \"debug\", format = \"json\" }\n[[route]]\nrespond = {}\n")
	line := c.line(`"msg":"configuration reloaded"`)
	var record map[string]any
	if err := json.Unmarshal([]byte(line), &record); err != nil || record["level"] != "INFO" {
		t.Errorf("%v in %s", err, line)
	}
	c.write("log = { level = \"error\", format = \"text\" }\n[[route]]\nrespond = {}\n")
	c.until("the log is quiet", func() bool {
		_, metrics := c.ask("GET", "/metrics")
		return strings.Contains(metrics, `gateway_config_reloads_total{result="applied"} 2`)
	})
	if bytes.Contains([]byte(c.stderr.String()), []byte("changes=2")) {
		t.Error("what is not severe enough is written")
	}
}
