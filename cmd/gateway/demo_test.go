package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gateway/internal/load"
)

// demonstration is a demo that runs on free ports.
type demonstration struct {
	*child
	gateway, admin string // "host:port"
	replicas       []process
}

// process is a replica as the demo prints it.
type process struct {
	name, address string
	pid           int
}

var replicaLine = regexp.MustCompile(`(users-\d) +http://(\S+) +process (\d+)`)

// show runs the demo in a folder and waits until it says what to try.
func show(t testing.TB, folder string) *demonstration {
	t.Helper()
	d := &demonstration{child: prepare(t), gateway: load.FreeAddress(t), admin: load.FreeAddress(t)}
	d.Cmd = exec.Command(binary, "demo")
	d.Dir = folder
	d.Env = demoEnvironment(t, d.gateway, d.admin)
	d.start()
	d.until("the demo says how it ends", func() bool {
		return strings.Contains(d.stdout.String(), "Ctrl-C") || d.over()
	})
	for _, m := range replicaLine.FindAllStringSubmatch(d.stdout.String(), -1) {
		pid, _ := strconv.Atoi(m[3])
		d.replicas = append(d.replicas, process{m[1], m[2], pid})
	}
	if len(d.replicas) != 3 {
		t.Fatalf("the demo shows %d replicas:\n%s", len(d.replicas), d.stdout.String())
	}
	return d
}

// demoEnvironment keeps the databases of the person who runs the tests out.
func demoEnvironment(t testing.TB, gateway, admin string) []string {
	env := slices.DeleteFunc(os.Environ(), func(s string) bool {
		return strings.HasPrefix(s, "DATABASE_URL=") || strings.HasPrefix(s, "REDIS_URL=")
	})
	env = append(env, "GATEWAY_LISTEN="+gateway, "GATEWAY_ADMIN="+admin)
	for i := range 3 {
		env = append(env, fmt.Sprintf("USERS_%d=%s", i+1, load.FreeAddress(t)))
	}
	return env
}

// alive reports whether a process exists and is no zombie.
func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

func TestDemo(t *testing.T) {
	folder := t.TempDir() // empty: the configuration is the embedded one
	d := show(t, folder)

	t.Run("page of users", func(t *testing.T) {
		status, body := get(t, "http://"+d.gateway+"/users?page=2&page_size=5")
		var page struct {
			Data       []struct{ ID int }
			Pagination struct {
				Page, Total int
				PageSize    int `json:"page_size"`
			}
		}
		if err := json.Unmarshal([]byte(body), &page); err != nil {
			t.Fatal(err)
		}
		if status != 200 || len(page.Data) != 5 || page.Data[0].ID != 6 || page.Pagination.Total != 10000 || page.Pagination.Page != 2 {
			t.Errorf("status %d: %s", status, body)
		}
	})

	t.Run("in turn", func(t *testing.T) {
		seen := map[string]int{}
		for range 9 {
			resp, err := http.Get("http://" + d.gateway + "/users?page=2&page_size=5")
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			seen[resp.Header.Get("X-Served-By")]++
		}
		for _, r := range d.replicas {
			if seen[r.name] != 3 {
				t.Errorf("served by %v", seen)
				break
			}
		}
	})

	t.Run("output", func(t *testing.T) {
		text := d.stdout.String()
		for _, line := range strings.Split(text, "\n") {
			if len(line) > 100 && !strings.HasPrefix(line, "{") {
				t.Errorf("a line of %d characters: %s", len(line), line)
			}
		}
		// What is said to work does.
		commands := 0
		for _, line := range strings.Split(text, "\n") {
			line = strings.TrimSpace(line)
			if !strings.HasPrefix(line, "curl ") && !strings.HasPrefix(line, "for ") {
				continue
			}
			commands++
			out, err := exec.Command("bash", "-c", strings.Replace(line, "curl ", "curl -sf --max-time 20 ", 1)).CombinedOutput()
			if err != nil || len(out) == 0 {
				t.Errorf("%s: %v %s", line, err, out)
			}
		}
		if !strings.Contains(text, fmt.Sprintf("kill -9 %d", d.replicas[0].pid)) || commands != 4 {
			t.Errorf("%d commands besides the one that kills", commands)
		}
	})

	t.Run("killing a replica loses no request", func(t *testing.T) {
		l := load.Start(t)
		l.Add(load.Clients{Number: 16, Address: d.gateway, Target: "/users/42",
			Want: func(body, _ string) bool { return strings.Contains(body, `"id":42,`) }})
		d.until("load", func() bool { return l.Answered() > 500 })
		if err := syscall.Kill(d.replicas[0].pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		d.until("the demo tells of the end", func() bool {
			return strings.Contains(d.stdout.String(), fmt.Sprintf("users-1 (process %d) has ended", d.replicas[0].pid))
		})
		d.line("server is down")
		after := l.Answered()
		d.until("load without the replica", func() bool { return l.Answered() > after+500 })
		l.End()
		if l.Failed() > 0 {
			t.Errorf("%d of %d requests have failed", l.Failed(), l.Sent())
		}
	})

	t.Run("metrics", func(t *testing.T) {
		_, text := get(t, "http://"+d.admin+"/metrics")
		promtool(t, text)
		for _, sample := range []string{
			`gateway_http_requests_total{route="users",method="GET",status="200"}`,
			`gateway_upstream_health_changes_total{upstream="users",server="` + d.replicas[0].address + `",to="down"} 1`,
		} {
			if !strings.Contains(text, sample) {
				t.Errorf("no %s", sample)
			}
		}
	})

	t.Run("edits take effect", func(t *testing.T) {
		path := regexp.MustCompile(`config +(\S+)`).FindStringSubmatch(d.stdout.String())[1]
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.Replace(string(text), "The gateway runs.", "It has changed.", 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		d.until("the edit takes effect", func() bool {
			_, body := get(t, "http://"+d.gateway+"/")
			return strings.Contains(body, "It has changed.")
		})
	})

	t.Run("Ctrl-C stops everything", func(t *testing.T) {
		path := regexp.MustCompile(`config +(\S+)`).FindStringSubmatch(d.stdout.String())[1]
		d.Process.Signal(os.Interrupt)
		if status := d.ends(); status != 0 {
			t.Errorf("exit status %d", status)
		}
		for _, r := range d.replicas {
			if alive(r.pid) {
				t.Errorf("%s is alive", r.name)
			}
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is left behind", path)
		}
		if left, _ := os.ReadDir(folder); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
}

func TestDemoUsesTheFileOfItsFolder(t *testing.T) {
	text, err := os.ReadFile("../../config.toml")
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	path := filepath.Join(folder, "config.toml")
	text = []byte(strings.Replace(string(text), "The gateway runs.", "From this folder.", 1))
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	d := show(t, folder)
	if _, body := get(t, "http://"+d.gateway+"/"); !strings.Contains(body, "From this folder.") {
		t.Errorf("body %q", body)
	}
	// A gateway that is killed takes its replicas along.
	d.Process.Kill()
	d.ends()
	d.until("the replicas have ended", func() bool {
		return !slices.ContainsFunc(d.replicas, func(r process) bool { return alive(r.pid) })
	})
}

func TestDemoSaysHowToAvoidABusyPort(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, variable := range []string{"GATEWAY_LISTEN", "GATEWAY_ADMIN", "USERS_2"} {
		cmd := exec.Command(binary, "demo")
		cmd.Dir = t.TempDir()
		cmd.Env = append(demoEnvironment(t, load.FreeAddress(t), load.FreeAddress(t)), variable+"="+taken.Addr().String())
		began := time.Now()
		text, err := cmd.CombinedOutput()
		want := fmt.Sprintf("gateway: %s is in use by another process; choose another address with %s=127.0.0.1:PORT\n", taken.Addr(), variable)
		if err == nil || cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(text), want) {
			t.Errorf("%s: %v after %v\n%s", variable, err, time.Since(began), text)
		}
	}
}
