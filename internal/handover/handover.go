// Package handover gives listening sockets from one process to the next, so
// that a new binary takes over without closing them: a closed socket resets
// the connections in its queue, also with SO_REUSEPORT.
//
// Sockets come from the process before this one, which started this one with
// Start, or from systemd (socket activation, sd_listen_fds(3)). Both hand them
// over as descriptors from number 3 on. Which socket is which is told by its
// address; nothing depends on names or on their order.
package handover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
)

// variable tells a successor how many sockets it gets, and whether they are
// systemd's. The descriptor after them is the pipe on which it says that it is
// ready.
const (
	variable = "GATEWAY_HANDOVER"
	systemds = ",systemd"
)

const firstDescriptor = 3

// Sockets are those that this process was given. Safe for concurrent use; nil
// are none.
type Sockets struct {
	mu        sync.Mutex
	listeners []net.Listener
	ready     *os.File // nil unless a predecessor waits
	systemd   bool
}

// Receive takes the sockets that the process was started with, and removes
// from the environment what speaks of them. It is called once, before
// descriptors are opened.
func Receive() (*Sockets, error) {
	s := &Sockets{}
	var files []*os.File
	text, ok := os.LookupEnv(variable)
	if ok {
		os.Unsetenv(variable)
		text, s.systemd = strings.CutSuffix(text, systemds)
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n > 1<<10 {
			return nil, fmt.Errorf("unexpected %s=%q; want a number of sockets", variable, text)
		}
		for i := range n + 1 {
			fd := firstDescriptor + i
			syscall.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "handover"))
		}
		s.ready, files = files[n], files[:n]
	} else {
		files = activation.Files(true)
		s.systemd = len(files) > 0
	}
	for _, f := range files {
		l, err := net.FileListener(f)
		f.Close()
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("take over descriptor %s: %w; want a listening TCP or Unix socket", f.Name(), err)
		}
		s.listeners = append(s.listeners, l)
	}
	return s, nil
}

// Take returns the socket that listens on an address ("tcp", "host:port" or
// "unix", path), nil when none was given. The caller owns it.
func (s *Sockets) Take(network, address string) net.Listener {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, l := range s.listeners {
		if same(l.Addr(), network, address) {
			s.listeners = slices.Delete(s.listeners, i, i+1)
			return l
		}
	}
	return nil
}

// same reports whether a socket listens on what the configuration asks for.
func same(have net.Addr, network, address string) bool {
	switch have := have.(type) {
	case *net.UnixAddr:
		return network == "unix" && have.Name == address
	case *net.TCPAddr:
		host, port, err := net.SplitHostPort(address)
		if network != "tcp" || err != nil || port == "0" {
			return false // a free port is nobody's in particular
		}
		if host == "" {
			n, err := net.LookupPort("tcp", port)
			return err == nil && n == have.Port && have.IP.IsUnspecified()
		}
		want, err := net.ResolveTCPAddr("tcp", address)
		return err == nil && want.Port == have.Port && want.IP.Equal(have.IP)
	}
	return false
}

// Systemd reports whether the sockets are systemd's, which keeps them open: the
// files of Unix sockets are not to be removed.
func (s *Sockets) Systemd() bool { return s != nil && s.systemd }

// Close closes what nobody took, and returns its addresses.
func (s *Sockets) Close() (left []string) {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.listeners {
		left = append(left, l.Addr().String())
		l.Close()
	}
	s.listeners = nil
	return left
}

// Ready tells the predecessor, if there is one, that this process serves.
func (s *Sockets) Ready() error {
	if s == nil || s.ready == nil {
		return nil
	}
	_, err := s.ready.Write([]byte{1})
	return errors.Join(err, s.ready.Close())
}

// Succession bounds how long a successor may take to become ready.
const Succession = time.Minute

// Start starts a successor: the program at path with the arguments and the
// environment of this process and the sockets, which stay open here too. It
// returns its process id once the successor is ready. After an error there is
// none: it has ended, or was ended after Succession or with ctx.
func (s *Sockets) Start(ctx context.Context, path string, arguments []string, sockets []*os.File) (pid int, err error) {
	ours, theirs, err := os.Pipe()
	if err != nil {
		return 0, fmt.Errorf("start successor: %w", err)
	}
	defer ours.Close()
	process, err := s.start(path, arguments, append(slices.Clone(sockets), theirs))
	theirs.Close()
	if err != nil {
		return 0, fmt.Errorf("start successor: %w", err)
	}
	var state *os.ProcessState
	ended := make(chan struct{})
	go func() {
		state, _ = process.Wait()
		close(ended)
	}()
	ctx, cancel := context.WithTimeout(ctx, Succession)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = ours.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if n, _ := ours.Read(make([]byte, 1)); n == 1 {
		return process.Pid, nil
	}
	if err := ctx.Err(); err != nil {
		_ = process.Kill()
		<-ended
		return 0, fmt.Errorf("wait for successor: %w", err)
	}
	select {
	case <-ended: // the pipe closes with the process
	case <-time.After(time.Second):
		_ = process.Kill()
		<-ended
	}
	return 0, fmt.Errorf("successor: %s before it was ready; its log says why", state)
}

// start starts the process. Not by way of package os: that would make the
// sockets blocking, here too, and a listener that blocks can't be retired.
func (s *Sockets) start(path string, arguments []string, files []*os.File) (*os.Process, error) {
	descriptors := []uintptr{0, 1, 2}
	for _, f := range files {
		rc, err := f.SyscallConn()
		if err != nil {
			return nil, err
		}
		if err := rc.Control(func(fd uintptr) { descriptors = append(descriptors, fd) }); err != nil {
			return nil, err
		}
	}
	value := strconv.Itoa(len(files) - 1)
	if s.Systemd() {
		value += systemds
	}
	pid, _, err := syscall.StartProcess(path, append([]string{path}, arguments...), &syscall.ProcAttr{
		Env:   append(os.Environ(), variable+"="+value),
		Files: descriptors,
	})
	runtime.KeepAlive(files)
	if err != nil {
		return nil, &os.PathError{Op: "exec", Path: path, Err: err}
	}
	return os.FindProcess(pid)
}
