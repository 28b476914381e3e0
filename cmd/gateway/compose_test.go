package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gateway/config"
	"gateway/examples/users"
)

// compose is deploy/compose.yaml, as far as it may go: other keys are an error.
type compose struct {
	Name     string
	Services map[string]*service
	Volumes  map[string]struct{}
}

type service struct {
	Image           string
	Build           struct{ Context string }
	User            string
	Command         []string
	Environment     map[string]string
	Volumes         []string
	Ports           []string
	Deploy          struct{ Replicas int }
	DependsOn       map[string]struct{ Condition string } `json:"depends_on"`
	Healthcheck     healthcheck
	StopGracePeriod string `json:"stop_grace_period"`
	Restart         string
	ReadOnly        bool     `json:"read_only"`
	CapDrop         []string `json:"cap_drop"`
	SecurityOpt     []string `json:"security_opt"`
}

type healthcheck struct {
	Test        []string
	Interval    string
	Timeout     string
	Retries     int
	StartPeriod string `json:"start_period"`
}

func readCompose(t *testing.T) compose {
	t.Helper()
	text, err := os.ReadFile("../../deploy/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	tree, err := readYAML(string(text))
	if err != nil {
		t.Fatalf("compose.yaml:%v", err)
	}
	text, err = json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	var c compose
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		t.Fatalf("compose.yaml: %v", err)
	}
	return c
}

func TestComposeFileIsComplete(t *testing.T) {
	c := readCompose(t)
	pinned := regexp.MustCompile(`^[a-z/]+:\d+\.\d+(\.\d+)?(-[a-z0-9.]+)?$`)
	named := regexp.MustCompile(`^(?:\./)?([\w.]+):/`)
	for name, s := range c.Services {
		switch {
		case s.Build.Context != "":
			if _, err := os.Stat("../../deploy/" + s.Build.Context + "/Dockerfile"); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		case !pinned.MatchString(s.Image):
			t.Errorf("%s: image %q is not pinned by version", name, s.Image)
		}
		if s.User == "" || s.User == "root" || strings.HasPrefix(s.User, "0") {
			t.Errorf("%s runs as %q", name, s.User)
		}
		if h := s.Healthcheck; len(h.Test) < 2 || h.Test[0] != "CMD" || h.Retries == 0 || duration(t, h.Timeout) == 0 || duration(t, h.Interval) == 0 {
			t.Errorf("%s: health check %+v", name, h)
		}
		if !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Equal(s.SecurityOpt, []string{"no-new-privileges:true"}) {
			t.Errorf("%s may gain rights", name)
		}
		for needed, how := range s.DependsOn {
			if c.Services[needed] == nil || how.Condition != "service_healthy" {
				t.Errorf("%s depends on %s: %+v", name, needed, how)
			}
		}
		for _, v := range s.Volumes {
			source := named.FindStringSubmatch(v)
			if source == nil {
				t.Errorf("%s: volume %q", name, v)
				continue
			}
			if _, declared := c.Volumes[source[1]]; declared {
				continue
			}
			if _, err := os.Stat("../../deploy/" + source[1]); err != nil {
				t.Errorf("%s: volume %q: %v", name, v, err)
			}
		}
		for _, p := range s.Ports {
			if !strings.HasPrefix(p, "127.0.0.1:") {
				t.Errorf("%s: port %s is open to everybody", name, p)
			}
		}
	}
	if len(c.Services) != 4 || c.Services["users"].Deploy.Replicas != 3 {
		t.Errorf("services %v", c.Services)
	}
}

// What the services of this repository are told exists, and fits together.
func TestComposeFileRefersToWhatExists(t *testing.T) {
	c := readCompose(t)
	gateway, replica, postgres := c.Services["gateway"], c.Services["users"], c.Services["postgres"]

	for name, s := range c.Services {
		if s.Build.Context == "" {
			continue
		}
		if s.Healthcheck.Test[1] != "/gateway" {
			t.Errorf("%s: the health check runs %q", name, s.Healthcheck.Test[1])
		}
		for _, args := range [][]string{s.Command, s.Healthcheck.Test[2:]} {
			if r := command(t, append(slices.Clone(args), "--help")...); r.status != 0 || !strings.Contains(r.stdout, "gateway "+args[0]) {
				t.Errorf("%s: gateway %v: exit status %d, %s", name, args, r.status, r.stderr)
			}
		}
	}

	// The user service knows each variable, and likes its value.
	known := map[string]bool{}
	o, err := users.FromEnv(func(name string) (string, bool) {
		known[name] = true
		value, ok := replica.Environment[name]
		return value, ok
	})
	if err != nil {
		t.Error(err)
	}
	for name := range replica.Environment {
		if !known[name] {
			t.Errorf("users: unknown variable %s", name)
		}
	}
	if grace := duration(t, replica.StopGracePeriod); grace <= o.Drain+10*time.Second {
		t.Errorf("users: is killed after %v", grace)
	}

	// The gateway's configuration is right with the gateway's variables.
	text, err := os.ReadFile("../../deploy/compose.toml")
	if err != nil {
		t.Fatal(err)
	}
	var unused []string
	for name := range gateway.Environment {
		if !strings.Contains(string(text), "${"+name) {
			unused = append(unused, name)
		}
	}
	if unused != nil {
		t.Errorf("gateway: unknown variables %v", unused)
	}
	configuration, err := config.Parse("compose.toml", text, func(name string) (string, bool) {
		value, ok := gateway.Environment[name]
		return value, ok
	})
	if err != nil {
		t.Fatal(err)
	}
	if w := configuration.Warnings(); len(w) > 0 {
		t.Errorf("compose.toml: %v", w)
	}
	if mounted := "./compose.toml:" + gateway.Command[2] + ":ro"; !slices.Contains(gateway.Volumes, mounted) ||
		!slices.Equal(gateway.Command[1:], gateway.Healthcheck.Test[3:]) {
		t.Errorf("gateway: command %v, health check %v, volumes %v", gateway.Command, gateway.Healthcheck.Test, gateway.Volumes)
	}
	if grace := duration(t, gateway.StopGracePeriod); grace <= configuration.Shutdown.DrainDelay+configuration.Shutdown.Grace {
		t.Errorf("gateway: is killed after %v", grace)
	}
	for _, address := range []string{configuration.Listen[0].Name, configuration.Probes.String()} {
		if published := "127.0.0.1" + address + address; !slices.Contains(gateway.Ports, published) {
			t.Errorf("gateway: port %s is not published", published)
		}
	}
	if got := configuration.Upstreams["users"].Servers[0].Address; got != "users"+o.Listen {
		t.Errorf("gateway: asks %s, users listen on %s", got, o.Listen)
	}

	// Both find the backends.
	for _, s := range []*service{gateway, replica} {
		u, err := url.Parse(s.Environment["DATABASE_URL"])
		if err != nil {
			t.Fatal(err)
		}
		password, _ := u.User.Password()
		if e := postgres.Environment; u.Host != "postgres:5432" || u.Path != "/"+e["POSTGRES_DB"] ||
			u.User.Username() != e["POSTGRES_USER"] || password != e["POSTGRES_PASSWORD"] {
			t.Errorf("%s is not the database of %v", u.Redacted(), e)
		}
		if u := s.Environment["REDIS_URL"]; u != "redis://redis:6379/0" {
			t.Errorf("Redis is asked at %s", u)
		}
	}
}

func TestUsersHealthcheck(t *testing.T) {
	run := func(address string) result {
		var problems bytes.Buffer
		cmd := exec.Command(binary, "users", "--healthcheck")
		cmd.Env = append(os.Environ(), "LISTEN="+address)
		cmd.Stderr = &problems
		_ = cmd.Run()
		return result{stderr: problems.String(), status: cmd.ProcessState.ExitCode()}
	}
	d := demonstrate(t, nil, "")
	if r := run(d.users[0]); r.status != 0 {
		t.Errorf("a healthy replica: exit status %d, %s", r.status, r.stderr)
	}
	if r := run("127.0.0.1:1"); r.status != 1 || !strings.Contains(r.stderr, "connection refused") {
		t.Errorf("no replica: exit status %d, %s", r.status, r.stderr)
	}
}

func duration(t *testing.T, text string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Error(err)
	}
	return d
}

// readYAML reads the part of YAML that the files of this repository keep to:
// tables by indentation, lists and quoted texts as in JSON, plain words.
func readYAML(text string) (map[string]any, error) {
	type level struct {
		indent int
		table  map[string]any
	}
	root := map[string]any{}
	open := []level{{0, root}}
	var fresh map[string]any // of a key without a value, which a deeper line must follow
	entry := regexp.MustCompile(`^( *)([A-Za-z_][A-Za-z0-9_]*):(?: (.+))?$`)
	comment := regexp.MustCompile(`^\s*#.*|\s+#[^"]*$`)
	plain := regexp.MustCompile(`^[A-Za-z0-9./][A-Za-z0-9./:_-]*$`)
	number := regexp.MustCompile(`^(\d+|true|false)$`)
	for i, line := range strings.Split(text, "\n") {
		line = comment.ReplaceAllString(line, "")
		if strings.TrimSpace(line) == "" {
			continue
		}
		m := entry.FindStringSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("%d: not understood: %s", i+1, line)
		}
		indent, key, value := len(m[1]), m[2], m[3]
		switch last := open[len(open)-1]; {
		case fresh != nil && indent == last.indent+2:
			open = append(open, level{indent, fresh})
		case fresh != nil:
			return nil, fmt.Errorf("%d: want an indentation of %d", i+1, last.indent+2)
		}
		fresh = nil
		for open[len(open)-1].indent > indent {
			open = open[:len(open)-1]
		}
		table := open[len(open)-1].table
		if _, twice := table[key]; twice || open[len(open)-1].indent != indent {
			return nil, fmt.Errorf("%d: %s is misplaced", i+1, key)
		}
		switch {
		case value == "":
			fresh = map[string]any{}
			table[key] = fresh
		case strings.ContainsAny(value[:1], `[{"`) || number.MatchString(value):
			var v any
			if err := json.Unmarshal([]byte(value), &v); err != nil {
				return nil, fmt.Errorf("%d: %s: %w", i+1, key, err)
			}
			table[key] = v
		case plain.MatchString(value):
			table[key] = value
		default:
			return nil, fmt.Errorf("%d: %s: quote this: %s", i+1, key, value)
		}
	}
	if fresh != nil {
		return nil, fmt.Errorf("a key at the end has no value")
	}
	return root, nil
}
