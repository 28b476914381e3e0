package main

import (
	"fmt"
	"net"
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

// lineage is a gateway and its successors. They share a log.
type lineage struct {
	*child
	log string
	pid int // of the one that serves
}

// lives starts the program with a configuration; environment and files are
// those of the process.
func lives(t *testing.T, configuration string, environment []string, files ...*os.File) *lineage {
	t.Helper()
	l := &lineage{child: prepare(t)}
	l.write(configuration)
	l.log = filepath.Join(l.dir, "log")
	out, err := os.Create(l.log)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	// systemd names the process that sockets are for; the shell knows its number.
	l.Cmd = exec.Command("sh", "-c", `export LISTEN_PID=$$; exec "$@"`, "sh", binary, "run", "--config", l.config)
	l.Stdout, l.Stderr, l.ExtraFiles, l.Env = out, out, files, append(os.Environ(), environment...)
	l.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := l.Start(); err != nil {
		t.Fatal(err)
	}
	l.pid = l.Process.Pid
	t.Cleanup(func() {
		syscall.Kill(-l.Process.Pid, syscall.SIGKILL) // all of them
		<-l.ended
		if t.Failed() {
			t.Logf("the log:\n%s", tail(l.text()))
		}
	})
	go func() {
		l.Wait()
		close(l.ended)
	}()
	l.says("msg=listening")
	return l
}

func (l *lineage) text() string {
	text, _ := os.ReadFile(l.log)
	return string(text)
}

// says waits for a line of the log.
func (l *lineage) says(part string) {
	l.t.Helper()
	l.until("a line with "+part, func() bool { return strings.Contains(l.text(), part) })
}

var successor = regexp.MustCompile(`msg="the successor serves, this process ends" process=(\d+)`)

// succeed makes the gateway hand over to a new process.
func (l *lineage) succeed() {
	l.t.Helper()
	before := len(successor.FindAllString(l.text(), -1))
	l.signal(syscall.SIGUSR2)
	l.until("a successor serves", func() bool {
		all := successor.FindAllStringSubmatch(l.text(), -1)
		if len(all) == before {
			return false
		}
		l.pid, _ = strconv.Atoi(all[before][1])
		return true
	})
}

func (l *lineage) signal(s syscall.Signal) {
	l.t.Helper()
	if err := syscall.Kill(l.pid, s); err != nil {
		l.t.Fatalf("signal process %d: %v", l.pid, err)
	}
}

func TestSuccessorsUnderLoadLoseNothing(t *testing.T) {
	origin := server(t)
	address, admin := load.FreeAddress(t), load.FreeAddress(t)
	front := filepath.Join(t.TempDir(), "front.sock")
	l := lives(t, fmt.Sprintf(`
listen = [%q, "unix:%s"]
admin = %q
[shutdown]
drain_delay = "10s" # is not waited for: the successor serves
[upstream.app]
servers = [%q]
`, address, front, admin, origin.Listener.Addr()), nil)
	clients := load.Start(t)
	clients.Add(load.Clients{Number: 24, Address: address, Path: "/app"})
	clients.Add(load.Clients{Number: 8, Address: address, Path: "/fresh", PerConnection: 1})
	for i := 1; i <= 4; i++ {
		before := clients.Answered()
		l.succeed()
		l.until("the old process ends", func() bool { return strings.Count(l.text(), "msg=stopped") == i })
		l.until("requests go on", func() bool { return clients.Answered() > before+100 })
		l.until("the successor's admin answers", func() bool { status, _ := get(t, "http://"+admin+"/readyz"); return status == 200 })
		if conn, err := net.Dial("unix", front); err != nil {
			t.Error(err)
		} else {
			conn.Close()
		}
	}
	clients.End()
	if n := clients.Failed(); n > 0 {
		t.Errorf("%d of %d requests have failed", n, clients.Sent())
	}
	if strings.Contains(l.text(), "level=ERROR") {
		t.Error("the log tells of errors")
	}
	t.Logf("%d requests on %d connections", clients.Answered(), clients.Connections())
}

func TestNoSuccessorChangesNothing(t *testing.T) {
	address := load.FreeAddress(t)
	l := lives(t, fmt.Sprintf("reload.watch = false\nlisten = %q\n[[route]]\nrespond = { body = \"old\" }\n", address), nil)
	good, err := os.ReadFile(l.config)
	if err != nil {
		t.Fatal(err)
	}
	l.write("listen = \"nowhere\"\n")
	l.signal(syscall.SIGUSR2)
	l.says("no successor, this process serves on")
	l.says("exit status 1")
	if _, body := get(t, "http://"+address+"/"); body != "old" {
		t.Errorf("body %q", body)
	}
	// The next one finds everything as it was.
	if err := os.WriteFile(l.config, []byte(strings.ReplaceAll(string(good), "old", "new")), 0o600); err != nil {
		t.Fatal(err)
	}
	l.succeed()
	l.says("msg=stopped")
	if _, body := get(t, "http://"+address+"/"); body != "new" {
		t.Errorf("body %q", body)
	}
	l.until("the admin socket answers", func() bool { status, _ := l.ask("GET", "/readyz"); return status == 200 })
}

func TestSystemdGivesSocketsAndIsTold(t *testing.T) {
	dir := t.TempDir()
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer front.Close()
	path := filepath.Join(dir, "front.sock")
	local, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	unwanted, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer unwanted.Close()
	notices, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notices.Close()
	told := func(want ...string) { // in any order
		t.Helper()
		var got []string
		for range want {
			notices.SetReadDeadline(time.Now().Add(patience))
			text := make([]byte, 1000)
			n, err := notices.Read(text)
			if err != nil {
				t.Fatalf("systemd is told %q, %v; want %q", got, err, want)
			}
			first, _, _ := strings.Cut(string(text[:n]), "\n")
			got = append(got, first)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("systemd is told %q; want %q", got, want)
		}
	}
	var files []*os.File
	for _, s := range []net.Listener{front, local, unwanted} {
		f, err := s.(interface{ File() (*os.File, error) }).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	l := lives(t, fmt.Sprintf("listen = [%q, \"unix:%s\"]\n[[route]]\nrespond = { body = \"here\" }\n", front.Addr(), path),
		[]string{"LISTEN_FDS=3", "NOTIFY_SOCKET=" + notices.LocalAddr().String()}, files...)
	told("READY=1")
	l.says(`nothing listens on a socket that was handed over; it is closed" address=` + unwanted.Addr().String())
	if _, body := get(t, "http://"+front.Addr().String()+"/"); body != "here" {
		t.Errorf("body %q", body)
	}
	if conn, err := net.Dial("unix", path); err != nil {
		t.Error(err)
	} else {
		conn.Close()
	}
	l.signal(syscall.SIGHUP)
	told("RELOADING=1")
	told("READY=1")
	l.succeed()
	told("READY=1", "MAINPID="+strconv.Itoa(l.pid), "STOPPING=1")
	l.says("msg=stopped")
	if _, body := get(t, "http://"+front.Addr().String()+"/"); body != "here" {
		t.Errorf("body %q", body)
	}
	l.signal(syscall.SIGTERM)
	told("STOPPING=1")
	l.until("the successor ends", func() bool { return strings.Count(l.text(), "msg=stopped") == 2 })
	if _, err := os.Stat(path); err != nil {
		t.Errorf("systemd's socket is gone: %v", err)
	}
}
