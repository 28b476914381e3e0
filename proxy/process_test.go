package proxy

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"gateway/internal/load"
)

// originProcess is the variable that makes the test binary an origin.
const originProcess = "GATEWAY_TEST_ORIGIN"

// TestOriginProcess is not a test: it is an origin in a process of its own,
// which answers with the target that was asked for.
func TestOriginProcess(t *testing.T) {
	if os.Getenv(originProcess) == "" {
		t.Skip("an origin for other tests")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("listening on %s\n", l.Addr())
	go func() { // it ends with the test that has started it
		bufio.NewReader(os.Stdin).ReadByte()
		os.Exit(0)
	}()
	_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.RequestURI) }))
}

// process is an origin that can be killed and frozen.
type process struct {
	*exec.Cmd
	address string
}

func startProcess(t *testing.T) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(os.Args[0], "-test.run=^TestOriginProcess$")}
	p.Env = append(os.Environ(), originProcess+"=1")
	if _, err := p.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.StdoutPipe()
	if err == nil {
		err = p.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.Process.Kill() // a frozen one too
		_ = p.Wait()
	})
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if address, ok := strings.CutPrefix(lines.Text(), "listening on "); ok {
			p.address = address
			return p
		}
	}
	t.Fatal("the origin does not listen")
	return nil
}

func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// struckBy is what happens to an origin.
var struckBy = []struct {
	name   string
	signal syscall.Signal
}{{"killed", syscall.SIGKILL}, {"frozen", syscall.SIGSTOP}}

// A process that is killed under load is not noticed by clients, one that is
// frozen by its timeout alone.
func TestKilledAndFrozenProcessesAreNotSeenByClients(t *testing.T) {
	for _, c := range struckBy {
		t.Run(c.name, func(t *testing.T) {
			requests, attempts, _ := strike(t, c.signal)
			if float64(attempts) > 1.2*float64(requests) {
				t.Errorf("%d attempts for %d requests", attempts, requests)
			}
		})
	}
}

// strike sends a signal to one of three origins under load, and fails the test
// if a client sees it. It counts what clients asked and what origins were asked.
func strike(t *testing.T, s syscall.Signal) (requests, attempts, failed int) {
	victim := startProcess(t)
	r := begin(t, app(victim.address, startProcess(t).address, startProcess(t).address),
		"first_byte_timeout = \"1s\"\nretry = { min_per_second = 0 }\n")
	l := load.Start(t)
	l.Add(load.Clients{Number: 8, Address: r.address})
	answered(r, l, 500)
	victim.signal(t, s)
	r.until("the server is ejected", func() bool {
		return r.metric("gateway_upstream_ejections_total", victim.address) > 0
	})
	answered(r, l, 500)
	spared(t, l)
	requests, attempts, failed = int(l.Answered()), int(r.metric("gateway_upstream_requests_total")), int(l.Failed())
	t.Logf("%d requests, %d attempts, %v repeated", requests, attempts, r.metric("gateway_retries_total"))
	return requests, attempts, failed
}
