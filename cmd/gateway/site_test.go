package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"gateway/internal/load"
)

// site is a demo on free ports, with the backends that a test chose.
type site struct {
	*child
	gateway, admin string   // "host:port"
	users          []string // the replicas' "host:port"
	client         http.Client
}

// demonstrate runs the demo until the test ends: with these variables, and with
// this configuration unless it is "", which stands for the demo's own.
func demonstrate(t testing.TB, environment []string, configuration string) *site {
	t.Helper()
	s := &site{child: prepare(t), gateway: load.FreeAddress(t), admin: load.FreeAddress(t)}
	s.client = http.Client{Timeout: patience, Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
	t.Cleanup(s.client.CloseIdleConnections)
	if configuration != "" {
		if err := os.WriteFile(filepath.Join(s.dir, "config.toml"), []byte(configuration), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.Cmd = exec.Command(binary, "demo")
	s.Dir = s.dir
	s.Env = append(os.Environ(), "DATABASE_URL=", "REDIS_URL=", "GATEWAY_LISTEN="+s.gateway, "GATEWAY_ADMIN="+s.admin)
	for i := range 3 {
		s.users = append(s.users, load.FreeAddress(t))
		s.Env = append(s.Env, fmt.Sprintf("USERS_%d=%s", i+1, s.users[i]))
	}
	s.Env = append(s.Env, environment...)
	s.start()
	s.until("the demo says how it ends", func() bool {
		return strings.Contains(s.stdout.String(), "Ctrl-C stops") || s.over()
	})
	if s.over() {
		t.Fatalf("the demo has ended: %v\n%s\n%s", s.ProcessState, s.stdout.String(), s.stderr.String())
	}
	return s
}

// reply is an answer that has been read.
type reply struct {
	status int
	header http.Header
	body   string
}

// ask sends a request to the gateway.
func (s *site) ask(method, path, body string) reply {
	s.t.Helper()
	return s.send(method, "http://"+s.gateway+path, body)
}

// look asks the admin server, each time on the one connection that is kept.
func (s *site) look(path string) reply {
	s.t.Helper()
	return s.send("GET", "http://"+s.admin+path, "")
}

func (s *site) send(method, url, body string) reply {
	s.t.Helper()
	r, err := s.try(method, url, body)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, url, err)
	}
	return r
}

// try is send for any goroutine.
func (s *site) try(method, url, body string) (reply, error) {
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	resp, err := s.client.Do(r)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(text)}, err
}

// decode reads JSON.
func decode[T any](t testing.TB, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("decode %.300s: %v", text, err)
	}
	return v
}

// health is /healthz: its status, and what it says of the dependencies.
func (s *site) health() (status int, dependencies map[string]string) {
	s.t.Helper()
	r := s.look("/healthz")
	return r.status, decode[struct{ Dependencies map[string]string }](s.t, r.body).Dependencies
}

// untilHealth waits until the dependencies have these states.
func (s *site) untilHealth(pg, redis string) {
	s.t.Helper()
	s.until(fmt.Sprintf("pg is %s, redis is %s", pg, redis), func() bool {
		_, d := s.health()
		return d["pg"] == pg && d["redis"] == redis
	})
}

// samples are metrics by name with labels.
type samples map[string]float64

// scrape reads all metrics of a process.
func (s *site) scrape(url string) samples {
	s.t.Helper()
	return parseSamples(s.t, s.send("GET", url, "").body)
}

// parseSamples reads what /metrics says.
func parseSamples(t testing.TB, text string) samples {
	t.Helper()
	all := samples{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			v, err := strconv.ParseFloat(line[i+1:], 64)
			if err != nil {
				t.Fatalf("metrics: %s", line)
			}
			all[line[:i]] = v
		}
	}
	return all
}

// metrics are the gateway's.
func (s *site) metrics() samples {
	s.t.Helper()
	return s.scrape("http://" + s.admin + "/metrics")
}

// sum adds the samples whose name and labels hold all parts.
func (all samples) sum(parts ...string) (sum float64) {
next:
	for name, v := range all {
		for _, part := range parts {
			if !strings.Contains(name, part) {
				continue next
			}
		}
		sum += v
	}
	return sum
}

// settled waits until what f counts is no more than most.
func (s *site) settled(what string, most float64, f func() float64) {
	s.t.Helper()
	now := f()
	for end := time.Now().Add(patience); now > most; now = f() {
		if time.Now().After(end) {
			s.t.Errorf("%s: %v; want %v at most", what, now, most)
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.t.Logf("%s: %v, at most %v", what, now, most)
}
