package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gateway/internal/load"
)

// top is what "go tool pprof -top" makes of a profile.
func top(t *testing.T, file string) string {
	t.Helper()
	out, err := exec.Command("go", "tool", "pprof", "-top", "-nodecount=1000", file).CombinedOutput()
	if err != nil {
		t.Errorf("go tool pprof: %v\n%s", err, out)
	}
	return string(out)
}

func TestProfilesAreTakenFromARunningGateway(t *testing.T) {
	c := runs(t, "[[route]]\nrespond = {}\n")
	work := exec.Command(binary, "load", "--quiet", "--requests", "100000000", "http://"+c.address()+"/")
	if err := work.Start(); err != nil {
		t.Fatal(err)
	}
	defer work.Wait()
	defer work.Process.Kill()
	folder := filepath.Join(c.dir, "profiles", "new")
	r := command(t, "profile", "--config", c.config, "--seconds", "1", "--output", folder)
	if r.status != 0 || r.stderr != "" {
		t.Fatalf("exit status %d: %s", r.status, r.stderr)
	}
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	want := []struct{ kind, text, function string }{
		{"cpu", "Type: cpu", "gateway/"},
		{"heap", "Type: inuse_space", ""},
		{"goroutine", "Type: goroutine", "main.main"},
		{"block", "Type: delay", ""},
		{"mutex", "Type: delay", ""},
	}
	if len(lines) != len(want) {
		t.Fatalf("%d lines:\n%s", len(lines), r.stdout)
	}
	for i, w := range want {
		kind, file, _ := strings.Cut(lines[i], "go tool pprof ")
		if strings.TrimSpace(kind) != w.kind || !strings.HasPrefix(file, folder+"/gateway-"+w.kind+"-") {
			t.Errorf("line %d is %q; want a file of %s in %s", i, lines[i], w.kind, folder)
			continue
		}
		if text := top(t, file); !strings.Contains(text, w.text+"\n") || !strings.Contains(text, w.function) {
			t.Errorf("profile %s: want %q and %q in\n%s", w.kind, w.text, w.function, text)
		}
	}

	one := t.TempDir()
	if r := command(t, "profile", "-c", c.config, "-o", one, "heap"); r.status != 0 || strings.Count(r.stdout, "\n") != 1 {
		t.Errorf("one profile: exit status %d\n%s%s", r.status, r.stdout, r.stderr)
	}
	if files, err := os.ReadDir(one); err != nil || len(files) != 1 {
		t.Errorf("%d files for one profile, %v", len(files), err)
	}
}

func TestProfilesThatCannotBeTaken(t *testing.T) {
	admin := load.FreeAddress(t)
	c := runs(t, fmt.Sprintf("[admin]\naddress = %q\ntoken = \"operators-0123456789\"\nread_token = \"readers-0123456789\"\n[[route]]\nrespond = {}\n", admin))
	off := runs(t, fmt.Sprintf("[admin]\naddress = %q\npprof = false\n[[route]]\nrespond = {}\n", load.FreeAddress(t)))
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>\nwelcome") }))
	defer other.Close()
	nobody := load.FreeAddress(t)
	folder := t.TempDir()
	file := filepath.Join(folder, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}

	f := func(status int, want string, args ...string) {
		t.Helper()
		r := command(t, append([]string{"profile", "--seconds", "1", "-o", folder}, args...)...)
		if r.status != status || r.stdout != "" || strings.Count(r.stderr, want) != 1 {
			t.Errorf("profile %v: exit status %d, want %d; %sstandard error, want %q once:\n%s", args, r.status, status, r.stdout, want, r.stderr)
		}
	}
	t.Setenv(tokenVariable, "operators-0123456789")
	f(1, "ask http://"+nobody+": dial tcp "+nobody+": connect: connection refused", "--address", "http://"+nobody)
	f(1, "unexpected answer; want a profile", "--address", other.URL)
	f(2, `unexpected address "`+admin+`"; want "http://host:9180"`, "--address", admin)
	f(1, "write to "+file+": not a directory", "--address", "http://"+admin, "-o", file)
	f(1, "write to /proc: ", "--address", "http://"+admin, "-o", "/proc")
	f(1, "no profiles are offered there; set pprof = true in [admin]", "-c", off.config)
	f(2, `unknown profile "cup"; want one of cpu, heap, goroutine, block, mutex`, "cup")
	f(2, "--seconds is 0; want 1 to 60", "--seconds", "0")
	f(2, "--seconds is 61; want 1 to 60", "--seconds", "61")
	t.Setenv(tokenVariable, "wrong-0123456789")
	f(1, "401 Unauthorized: ", "--address", "http://"+admin)
	t.Setenv(tokenVariable, "")
	f(1, "401 Unauthorized: ", "--address", "http://"+admin)
	t.Setenv(tokenVariable, "readers-0123456789")
	f(1, "403 Forbidden: ", "--address", "http://"+admin)
	if files, err := os.ReadDir(folder); err != nil || len(files) != 1 {
		t.Errorf("%d files are left behind, %v", len(files)-1, err)
	}

	// The configuration knows the token.
	if r := command(t, "profile", "-c", c.config, "-o", folder, "goroutine"); r.status != 0 {
		t.Errorf("exit status %d: %s", r.status, r.stderr)
	}
	// What can be had is kept when something cannot.
	t.Setenv(tokenVariable, "")
	busy := make(chan struct{})
	half := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/heap") {
			<-busy
			io.WriteString(w, zipped+"...")
			return
		}
		http.Error(w, "cpu profiling already in use", http.StatusInternalServerError)
		close(busy)
	}))
	defer half.Close()
	r := command(t, "profile", "--address", half.URL, "-o", t.TempDir(), "cpu", "heap")
	if r.status != 1 || strings.Count(r.stdout, "\n") != 1 || !strings.Contains(r.stderr, "500 Internal Server Error: cpu profiling already in use") {
		t.Errorf("exit status %d: %s%s", r.status, r.stdout, r.stderr)
	}
}
