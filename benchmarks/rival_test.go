package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// settings are what each scenario asks of a rival, with all that it can do.
func settings(t *testing.T, r *rival) map[string]*setting {
	t.Helper()
	all := map[string]*setting{}
	for _, s := range scenarios {
		n := s.needs
		if r.also != nil {
			r.also(&n)
		}
		for _, need := range []string{"cache", "gzip", "deny", "allow", "pool", "tls", "log"} {
			if strings.Contains(" "+r.can+" ", " "+need+" ") {
				continue
			}
			switch need {
			case "cache":
				n.Cache = false
			case "tls":
				n.TLS = false
			case "deny", "allow":
				n.Limit = ""
			}
		}
		all[s.name] = &setting{
			needs: n, Dir: t.TempDir(), Address: "127.0.0.1:18080", Origins: []string{"127.0.0.1:18081", "127.0.0.1:18082", "127.0.0.1:18083"},
			Clients: 1000, Descriptors: 2100,
		}
		if err := certificate(all[s.name].Dir); err != nil {
			t.Fatal(err)
		}
		all[s.name].Certificate, all[s.name].Key, all[s.name].Both = all[s.name].Dir+"/cert.pem", all[s.name].Dir+"/key.pem", all[s.name].Dir+"/both.pem"
	}
	return all
}

// TestConfigurationsAreValid renders each rival's configuration for each
// scenario, and has the rival itself check it where it is installed.
func TestConfigurationsAreValid(t *testing.T) {
	gateway := filepath.Join(t.TempDir(), "gateway")
	if out, err := exec.Command("go", "build", "-o", gateway, "gateway/cmd/gateway").CombinedOutput(); err != nil {
		t.Fatalf("build the gateway: %v %s", err, out)
	}
	t.Setenv("BENCH_GATEWAY", gateway)
	checks := map[string]func(dir string) []string{
		"gateway": func(dir string) []string { return []string{"check", "--config", dir + "/gateway.toml"} },
		"nginx": func(dir string) []string {
			return []string{"-t", "-p", dir, "-e", dir + "/error.log", "-c", dir + "/nginx.conf"}
		},
		"haproxy": func(dir string) []string { return []string{"-c", "-f", dir + "/haproxy.cfg"} },
	}
	for _, r := range rivals {
		for name, s := range settings(t, r) {
			if err := r.render(s); err != nil {
				t.Errorf("%s, %s: %v", r.name, name, err)
				continue
			}
			for _, file := range r.files {
				text, err := os.ReadFile(filepath.Join(s.Dir, file))
				if err != nil || strings.Contains(string(text), "<no value>") || strings.Contains(string(text), "{{") {
					t.Errorf("%s, %s: %s, %v", r.name, name, text, err)
				}
			}
			check := checks[r.binary]
			path, err := r.path()
			if check == nil || err != nil {
				continue
			}
			if out, err := exec.Command(path, check(s.Dir)...).CombinedOutput(); err != nil {
				t.Errorf("%s refuses its configuration for %s: %v\n%s", r.name, name, err, out)
			}
		}
	}
}

func TestRivalsSayWhatTheyLack(t *testing.T) {
	f := func(name, scenario, want string) {
		t.Helper()
		if got := findRival(name).lacks(findScenario(scenario).needs); got != want {
			t.Errorf("%s lacks %q for %s; want %q", name, got, scenario, want)
		}
	}
	f("gateway", "all-on", "")
	f("nginx", "tls", "")
	f("varnish", "tls", "tls")
	f("caddy", "cache-1k", "cache")
	f("caddy", "limit-deny", "deny")
}
