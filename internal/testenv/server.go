package testenv

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// patience bounds every wait of this package: start, recovery after a kill,
// death after a signal. It is far beyond what a busy machine needs.
const patience = 60 * time.Second

// Server is a running server process with a port and a folder of its own. Its
// methods may be called from several goroutines; those that fail call the TB's
// Fatalf and so, with a *testing.T, belong on the test's own goroutine.
type Server struct {
	tb      TB
	name    string
	url     string
	port    int
	dir     string // holds everything that the server writes
	command func(s *Server) *exec.Cmd
	ready   func(ctx context.Context, s *Server) error
	discard func(s *Server) // frees what outlives a killed process, may be nil

	mu      sync.Mutex
	process *process // nil while dead
	guard   *guard   // nil unless frozen, which implies process != nil
}

// process is one run of a server. done is closed when it has been reaped.
type process struct {
	pid  int
	done chan struct{}
	err  error // valid after done
}

// start runs the server on a port that is free now. Another process may take
// the port in between: then the next one is tried.
func (s *Server) start() {
	s.tb.Helper()
	s.tb.Cleanup(s.close)
	var err error
	for range 5 {
		if s.port, err = freePort(); err != nil {
			break
		}
		if err = s.locked(s.run); err == nil {
			return
		}
	}
	s.tb.Fatalf("start %s: %v", s.name, err)
}

// URL is the server's address in the form that clients take, with user and
// database where it has them.
func (s *Server) URL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf(s.url, s.port)
}

// Addr is the server's host:port.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr()
}

func (s *Server) addr() string {
	return fmt.Sprintf("127.0.0.1:%d", s.port)
}

// Kill ends the server and all its children with SIGKILL and waits until they
// are gone. Killing a dead server does nothing.
func (s *Server) Kill() {
	s.tb.Helper()
	if err := s.locked(s.kill); err != nil {
		s.tb.Fatalf("kill %s: %v", s.name, err)
	}
}

// Restart starts the server again with the same port and data, after a Kill or
// in place of the running process (which is killed). It returns when the
// server answers.
func (s *Server) Restart() {
	s.tb.Helper()
	err := s.locked(s.kill)
	if err == nil {
		// The port is outside the ephemeral range, so only a trial bind of
		// another test environment can hold it, and that for an instant.
		for range 3 {
			if err = s.locked(s.run); err == nil {
				return
			}
		}
	}
	s.tb.Fatalf("restart %s: %v", s.name, err)
}

// Freeze stops the server and all its children with SIGSTOP: the kernel goes
// on accepting connections, nobody answers. It returns when all have stopped.
func (s *Server) Freeze() {
	s.tb.Helper()
	err := s.locked(func() error {
		if s.process == nil {
			return errors.New("it is not running")
		}
		pids, err := stopTree(s.process.pid)
		if err == nil && s.guard == nil {
			s.guard, err = startGuard(append(pids, s.process.pid))
		}
		return err
	})
	if err != nil {
		s.tb.Fatalf("freeze %s: %v", s.name, err)
	}
}

// Thaw undoes Freeze. Thawing a server that is not frozen does nothing.
func (s *Server) Thaw() {
	s.tb.Helper()
	err := s.locked(func() error {
		if s.guard == nil {
			return nil
		}
		s.guard.end()
		s.guard = nil
		// Children first: the parent must not find them silent.
		for _, pid := range append(children(s.process.pid), s.process.pid) {
			if err := syscall.Kill(pid, syscall.SIGCONT); err != nil && !errors.Is(err, syscall.ESRCH) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.tb.Fatalf("thaw %s: %v", s.name, err)
	}
}

// locked runs f under the lock. Fatalf is called without it, since it may run
// the cleanups.
func (s *Server) locked(f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return f()
}

// run starts the process and waits until the server answers. On failure
// nothing is left running and the error holds the end of the server's log. It
// needs the lock.
func (s *Server) run() error {
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := s.command(s)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, log, log
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	// A group of its own: a Ctrl-C at the terminal is for the test, which then
	// ends the server. If the test is killed instead, the kernel ends it.
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL

	p := &process{done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The parent-death signal is sent when the *thread* that started the
		// process ends, so that thread must live as long as the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			p.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start process: %w", err)
	}
	s.process = p

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		attempt, cancel := context.WithTimeout(ctx, time.Second)
		err := s.ready(attempt, s)
		cancel()
		if err == nil {
			select {
			case <-p.done: // somebody else answered on this port
			default:
				return nil
			}
		}
		select {
		case <-p.done:
			s.process = nil
			return fmt.Errorf("it ended: %v\n%s", p.err, s.logTail())
		case <-ctx.Done():
			_ = s.kill()
			return fmt.Errorf("it does not answer: %w\n%s", err, s.logTail())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// kill needs the lock.
func (s *Server) kill() error {
	p := s.process
	if p == nil {
		return nil
	}
	s.process = nil
	if s.guard != nil {
		defer s.guard.end()
		s.guard = nil
	}
	// Stopped, the parent can neither start children nor reap them, so the
	// pids in the list stay what they are.
	pids, err := stopTree(p.pid)
	if err != nil {
		pids = nil // it is dying already
	}
	for _, pid := range append(pids, p.pid) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	deadline := time.Now().Add(patience)
	select {
	case <-p.done:
	case <-time.After(patience):
		return fmt.Errorf("process %d survives SIGKILL", p.pid)
	}
	// The children are init's now, and it reaps them when it likes; until they
	// are dead they hold the port and the shared memory.
	for _, pid := range pids {
		for alive(pid) {
			if time.Now().After(deadline) {
				return fmt.Errorf("process %d survives SIGKILL", pid)
			}
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}

// close ends the server and removes all traces of it.
func (s *Server) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.kill(); err != nil {
		s.tb.Logf("kill %s: %v", s.name, err)
	}
	if s.discard != nil {
		s.discard(s)
	}
	if err := os.RemoveAll(s.dir); err != nil {
		s.tb.Logf("remove folder of %s: %v", s.name, err)
	}
}

func (s *Server) logFile() string { return filepath.Join(s.dir, "server.log") }

// logTail is the end of what the server said.
func (s *Server) logTail() string {
	b, err := os.ReadFile(s.logFile())
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b[max(0, len(b)-4096):]))
}

// freePort finds a port on which nobody listens, below the kernel's ephemeral
// range. Inside that range a client that dials a dead server again and again
// is one day given the server's own port as its source, connects to itself and
// keeps the port from the server that comes back.
func freePort() (int, error) {
	low := 32768
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		_, _ = fmt.Sscan(string(b), &low)
	}
	const first = 10000
	if low <= first {
		return 0, fmt.Errorf("find port: the ephemeral range starts at %d; want above %d", low, first)
	}
	for range 100 {
		port := first + rand.N(low-first)
		l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			l.Close()
			return port, nil
		}
	}
	return 0, errors.New("find port: 100 random ports are all in use")
}
