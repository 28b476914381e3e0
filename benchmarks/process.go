package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// anyCore stands for all cores where one is named.
const anyCore = -1

// pinSelf keeps this process, threads to come included, on a core.
func pinSelf(core int) error {
	if core == anyCore {
		return nil
	}
	var set unix.CPUSet
	set.Set(core)
	threads, _ := filepath.Glob("/proc/self/task/*")
	for _, t := range threads {
		id, _ := strconv.Atoi(filepath.Base(t))
		if err := unix.SchedSetaffinity(id, &set); err != nil {
			return fmt.Errorf("stay on core %d: %w", core, err)
		}
	}
	return nil
}

// favour gives this process, and what it starts from here on, another nice
// value; negative ones need root.
func favour(nice int) error {
	threads, _ := filepath.Glob("/proc/self/task/*")
	for _, t := range threads {
		id, _ := strconv.Atoi(filepath.Base(t))
		if err := unix.Setpriority(unix.PRIO_PROCESS, id, nice); err != nil {
			return fmt.Errorf("nice value %d: %w", nice, err)
		}
	}
	// Where the scheduler groups by session, nice values count within a group
	// only: weigh the group, too, if it is this process's own.
	unix.Setsid()
	if leader, err := unix.Getsid(0); err == nil && leader == os.Getpid() {
		os.WriteFile("/proc/self/autogroup", []byte(strconv.Itoa(nice)), 0)
	}
	return nil
}

// process is one that was started here, with its children.
type process struct {
	cmd    *exec.Cmd
	output limited
	ended  chan struct{}
}

// limited keeps the beginning of what a process says.
type limited struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *limited) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(b[:min(len(b), max(0, 16<<10-l.text.Len()))])
	return len(b), nil
}

func (l *limited) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.TrimSpace(l.text.String())
}

// startOn starts a program on a core, in a process group of its own. It does
// not outlive this process.
func startOn(core int, dir string, environment []string, binary string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(binary, args...), ended: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env = dir, append(os.Environ(), environment...)
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := startPinned(core, p.cmd); err != nil {
		return nil, err
	}
	go func() {
		p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// startPinned starts a command on a core: it inherits that of the thread.
func startPinned(core int, cmd *exec.Cmd) error {
	if core == anyCore {
		return cmd.Start()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return err
	}
	set.Set(core)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("core %d: %w", core, err)
	}
	err := cmd.Start()
	unix.SchedSetaffinity(0, &before)
	return err
}

// stop asks the process to end, and kills what is left of its group.
func (p *process) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(2 * time.Second):
	}
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.ended
}

// tree is the process and all its descendants.
func (p *process) tree() []int {
	children := map[int][]int{}
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range all {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		if f := statFields(dir); len(f) > 1 {
			parent, _ := strconv.Atoi(f[1])
			children[parent] = append(children[parent], pid)
		}
	}
	list := []int{p.cmd.Process.Pid}
	for i := 0; i < len(list); i++ {
		list = append(list, children[list[i]]...)
	}
	return list
}

// statFields are those of /proc/PID/stat after the name: state, parent, …
func statFields(dir string) []string {
	text, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return nil
	}
	return strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
}

// cpu is the time that the threads of the processes ran, to the nanosecond. The
// kernel bills the work for a loopback packet to the task that sends it: the
// share of the network stack that a proxy causes is in it.
func cpu(pids []int) (sum time.Duration) {
	for _, pid := range pids {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		for _, t := range threads {
			text, err := os.ReadFile(t + "/schedstat")
			if f := strings.Fields(string(text)); err == nil && len(f) > 0 {
				ns, _ := strconv.ParseInt(f[0], 10, 64)
				sum += time.Duration(ns)
			}
		}
	}
	return sum
}

// memory is the proportional set size of the processes now, and the sum of the
// largest resident sets that they had, in bytes.
func memory(pids []int) (proportional, peak int64) {
	for _, pid := range pids {
		proportional += kilobytes(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss:")
		peak += kilobytes(fmt.Sprintf("/proc/%d/status", pid), "VmHWM:")
	}
	return proportional, peak
}

func kilobytes(file, key string) int64 {
	text, _ := os.ReadFile(file)
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == key {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n << 10
		}
	}
	return 0
}

// coreBusy is how long a core has worked for anybody, or was taken away by the
// hypervisor.
func coreBusy(core int) time.Duration {
	text, _ := os.ReadFile("/proc/stat")
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 9 || f[0] != "cpu"+strconv.Itoa(core) {
			continue
		}
		var ticks int64
		for _, i := range []int{1, 2, 3, 6, 7, 8} { // all but idle and iowait
			n, _ := strconv.ParseInt(f[i], 10, 64)
			ticks += n
		}
		return time.Duration(ticks) * 10 * time.Millisecond
	}
	return 0
}
