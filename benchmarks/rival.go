package main

import (
	"bytes"
	"debug/buildinfo"
	"embed"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"text/template"
)

//go:embed rivals
var configurations embed.FS

// setting is what a configuration is rendered with.
type setting struct {
	needs
	Dir         string // scratch folder
	Address     string // to listen on
	Origins     []string
	Certificate string // PEM files
	Key         string
	Both        string
	Root        bool // the proxy is started by root
	Clients     int  // connections of clients
	Descriptors int
	Old         bool // a version that does not know all options
}

// rival is a proxy that can be measured; the gateway is one of them.
type rival struct {
	name    string
	binary  string   // looked up in .tmp/rivals, then in PATH; BENCH_NAME overrides
	version []string // arguments that print it
	can     string   // of: cache gzip deny allow pool tls log
	tuning  string   // said beside the results
	files   []string // of rivals/, rendered into the scratch folder
	command func(s *setting) (args, environment []string)
	also    func(n *needs) // what this entry does beyond the scenario
}

// oneProcessor is for programs in Go: as many threads as the rivals have.
var oneProcessor = []string{"GOMAXPROCS=1"}

func gatewayCommand(s *setting) ([]string, []string) {
	return []string{"run", "--config", s.Dir + "/gateway.toml"}, oneProcessor
}

var rivals = []*rival{
	{
		name: "gateway", binary: "gateway", version: []string{"version"}, can: "cache gzip deny allow pool tls log",
		tuning: "GOMAXPROCS=1; metrics and admin on, access log off", files: []string{"gateway.toml"}, command: gatewayCommand,
	},
	{
		name: "gateway-full", binary: "gateway", version: []string{"version"}, can: "cache gzip deny allow pool tls log",
		tuning: "as gateway, with the access log on (a file on tmpfs) and a limit that allows", files: []string{"gateway.toml"}, command: gatewayCommand,
		also: func(n *needs) {
			n.Log = true
			if n.Limit == "" {
				n.Limit = "allow"
			}
		},
	},
	{
		name: "nginx", binary: "nginx", version: []string{"-v"}, can: "cache gzip deny allow pool tls",
		tuning: "1 worker, 256 kept connections to the origin, access log off, cache on tmpfs with open_file_cache, gzip level 1",
		files:  []string{"nginx.conf"},
		command: func(s *setting) ([]string, []string) {
			return []string{"-p", s.Dir, "-e", s.Dir + "/error.log", "-c", s.Dir + "/nginx.conf"}, nil
		},
	},
	{
		name: "haproxy", binary: "haproxy", version: []string{"-v"}, can: "cache gzip deny allow pool tls",
		tuning: "1 thread, http-reuse always, cache of 256 MB, compression by libslz",
		files:  []string{"haproxy.cfg"},
		command: func(s *setting) ([]string, []string) {
			return []string{"-db", "-f", s.Dir + "/haproxy.cfg"}, nil
		},
	},
	{
		name: "varnish", binary: "varnishd", version: []string{"-V"}, can: "cache gzip deny allow pool",
		tuning: "1 thread pool, malloc of 512 MB, gzip level 6, pass unless it caches; limits by vmod vsthrottle",
		files:  []string{"varnish.vcl"},
		command: func(s *setting) ([]string, []string) {
			args := []string{
				"-F", "-a", s.Address, "-f", s.Dir + "/varnish.vcl", "-n", s.Dir + "/varnish", "-s", "malloc,512m",
				"-p", "thread_pools=1", "-p", "thread_pool_min=100", "-p", "thread_pool_max=2000",
				"-p", "timeout_idle=600", "-p", "backend_idle_timeout=600",
			}
			if s.Root {
				args = append([]string{"-j", "none"}, args...)
			}
			return args, nil
		},
	},
	{
		name: "caddy", binary: "caddy", version: []string{"version"}, can: "gzip pool tls",
		tuning: "GOMAXPROCS=1, 256 kept connections to the origin; no cache and no limits without modules of others",
		files:  []string{"Caddyfile"},
		command: func(s *setting) ([]string, []string) {
			return []string{"run", "--adapter", "caddyfile", "--config", s.Dir + "/Caddyfile"},
				append([]string{"HOME=" + s.Dir, "XDG_DATA_HOME=" + s.Dir, "XDG_CONFIG_HOME=" + s.Dir}, oneProcessor...)
		},
	},
	{
		name: "traefik", binary: "traefik", version: []string{"version"}, can: "gzip deny allow pool tls",
		tuning: "GOMAXPROCS=1, file provider, compress and rateLimit at their defaults",
		files:  []string{"traefik.yml", "traefik-routes.yml"},
		command: func(s *setting) ([]string, []string) {
			return []string{"--configFile=" + s.Dir + "/traefik.yml"}, oneProcessor
		},
	},
}

// builtRivals is where scripts/rivals puts what it builds.
const builtRivals = ".tmp/rivals"

// path finds the rival's binary.
func (r *rival) path() (string, error) {
	if p := os.Getenv("BENCH_" + strings.ToUpper(r.binary)); p != "" {
		return exec.LookPath(p)
	}
	if p, err := filepath.Abs(filepath.Join(builtRivals, r.binary)); err == nil {
		if found, err := exec.LookPath(p); err == nil {
			return found, nil
		}
	}
	return exec.LookPath(r.binary)
}

var versionNumber = regexp.MustCompile(`v?\d+\.\d+(\.\d+)?[-\w.+]*`)

// versionText is the version that the binary prints, or was built as.
func (r *rival) versionText() string {
	path, err := r.path()
	if err != nil {
		return "not installed"
	}
	out, _ := exec.Command(path, r.version...).CombinedOutput()
	if r.binary == "gateway" { // no number, but a commit
		if words := strings.Fields(string(out)); len(words) > 1 {
			return words[1]
		}
	}
	if m := versionNumber.Find(out); m != nil {
		return string(m)
	}
	if info, err := buildinfo.ReadFile(path); err == nil && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

// lacks names the first of the needs that the rival cannot do, "" when it can.
func (r *rival) lacks(n needs) string {
	for _, need := range []struct {
		wanted bool
		name   string
	}{{n.Cache, "cache"}, {n.Gzip, "gzip"}, {n.Limit != "", n.Limit}, {n.Pool, "pool"}, {n.TLS, "tls"}, {n.Log, "log"}} {
		if need.wanted && !strings.Contains(" "+r.can+" ", " "+need.name+" ") {
			return need.name
		}
	}
	if r.name == "varnish" && n.Limit != "" {
		if found, _ := filepath.Glob("/usr/lib/*/varnish/vmods/libvmod_vsthrottle.so"); len(found) == 0 {
			return "vsthrottle (Debian package varnish-modules)"
		}
	}
	return ""
}

// render writes the rival's configuration files.
func (r *rival) render(s *setting) error {
	for _, name := range r.files {
		text, err := configurations.ReadFile("rivals/" + name)
		if err != nil {
			return err
		}
		t, err := template.New(name).Option("missingkey=error").Funcs(template.FuncMap{
			"port": func(address string) (string, error) {
				_, port, err := net.SplitHostPort(address)
				return port, err
			},
		}).Parse(string(text))
		if err != nil {
			return err
		}
		var b bytes.Buffer
		if err := t.Execute(&b, s); err != nil {
			return fmt.Errorf("render %s: %w", name, err)
		}
		if err := os.WriteFile(filepath.Join(s.Dir, name), b.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func findRival(name string) *rival {
	for _, r := range rivals {
		if r.name == name {
			return r
		}
	}
	return nil
}
