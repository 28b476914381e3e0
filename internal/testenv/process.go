package testenv

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// stopTree stops a process and its children with SIGSTOP and returns the
// children. PostgreSQL's children are sessions, and so process groups, of
// their own: a signal to the parent's group does not reach them.
func stopTree(pid int) ([]int, error) {
	if err := stop(pid); err != nil {
		return nil, err
	}
	pids := children(pid)
	for _, child := range pids {
		// A child may have been a zombie, or about to end, when it was listed.
		if err := stop(child); err != nil && alive(child) {
			return nil, err
		}
	}
	return pids, nil
}

func stop(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return fmt.Errorf("stop process %d: %w", pid, err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		switch _, state := status(pid); {
		case state == 'T' || state == 't':
			return nil
		case state == 0 || state == 'Z' || state == 'X':
			return fmt.Errorf("stop process %d: it has ended", pid)
		case time.Now().After(deadline):
			return fmt.Errorf("stop process %d: its state is still %c", pid, state)
		}
	}
}

// guard kills frozen processes when the test process dies without thawing
// them: the signal that the kernel then sends to the parent is lost on its
// stopped children.
type guard struct {
	shell *exec.Cmd // whose standard input ends with this process
}

func startGuard(pids []int) (*guard, error) {
	script := "read _; kill -KILL"
	for _, pid := range pids {
		script += " " + strconv.Itoa(pid)
	}
	shell := exec.Command("/bin/sh", "-c", script)
	shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	_, err := shell.StdinPipe()
	if err == nil {
		err = shell.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("start guard: %w", err)
	}
	return &guard{shell}, nil
}

// end ends the guard before it can kill.
func (g *guard) end() {
	_ = g.shell.Process.Kill()
	_ = g.shell.Wait() // closes stdin when the shell is dead
}

// children lists the direct children of a process.
func children(parent int) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if ppid, state := status(pid); state != 0 && ppid == parent {
			pids = append(pids, pid)
		}
	}
	return pids
}

// alive says whether a process exists and is more than a zombie.
func alive(pid int) bool {
	_, state := status(pid)
	return state != 0 && state != 'Z' && state != 'X'
}

// status reads a process's parent and state letter; state 0 means that there
// is no such process.
func status(pid int) (parent int, state byte) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0
	}
	// pid (name) S ppid …, where the name may hold anything, ")" included.
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return 0, 0
	}
	if _, err := fmt.Sscanf(string(b[i+1:]), " %c %d", &state, &parent); err != nil {
		return 0, 0
	}
	return parent, state
}
