package dependency

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"gateway/internal/testenv"
)

// node is a redis-server with settings of its own, such as a Sentinel or a
// member of a cluster.
type node struct {
	addr    string
	process *os.Process
}

func startNode(t *testing.T, name string, settings ...string) *node {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{addr: l.Addr().String()}
	_, port, _ := net.SplitHostPort(n.addr)
	l.Close()
	dir := t.TempDir()
	file := filepath.Join(dir, "node.conf")
	text := fmt.Sprintf("port %s\nbind 127.0.0.1\ndir %s\nsave \"\"\n", port, dir)
	for _, s := range settings {
		text += s + "\n"
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatal(err)
	}
	args := []string{file}
	if name == "sentinel" {
		args = append(args, "--sentinel")
	}
	cmd := exec.Command(path, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // when the test dies …
	started, ended := make(chan error), make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // … or the thread that started it
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	n.process = cmd.Process
	t.Cleanup(func() {
		n.process.Kill()
		<-ended
	})
	c := client(t, n.addr, "")
	within(t, name+" answers", func() bool { return c.Ping(t.Context()).Err() == nil })
	return n
}

func (n *node) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := n.process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func TestSentinelsNameTheMaster(t *testing.T) {
	one, two := testenv.StartRedis(t), testenv.StartRedis(t)
	client(t, two.Addr(), "").ConfigSet(t.Context(), "requirepass", "hunter2")
	host, port, _ := net.SplitHostPort(one.Addr())
	sentinel := startNode(t, "sentinel", "sentinel monitor m "+host+" "+port+" 1", "sentinel down-after-milliseconds m 600000")
	silent := startNode(t, "sentinel", "sentinel monitor m "+host+" "+port+" 1", "sentinel down-after-milliseconds m 600000")
	leavesNothing(t)
	silent.signal(t, syscall.SIGSTOP) // the other one has to do

	o := quick("redis://" + silent.addr + "," + sentinel.addr + "/0?master_name=m&password=hunter2")
	o.Primary, o.Timeout = true, 300*time.Millisecond
	w := watchOver(t, o)
	w.becomes(Connected, "")
	one.Kill()
	w.becomes(Disconnected, "master "+one.Addr()+": dial tcp")

	// The Sentinel is told of another master.
	c := client(t, sentinel.addr, "")
	host, port, _ = net.SplitHostPort(two.Addr())
	for _, command := range [][]any{{"sentinel", "remove", "m"}, {"sentinel", "monitor", "m", host, port, "1"}} {
		if err := c.Do(t.Context(), command...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	w.becomes(Connected, "")

	// Without Sentinels, those who know the master go on; others cannot begin.
	sentinel.signal(t, syscall.SIGKILL)
	time.Sleep(3 * o.Interval) // it must not become anything else
	w.becomes(Connected, "")
	watchOver(t, o).becomes(Disconnected, "sentinel "+silent.addr)
	unknown := quick("redis://" + silent.addr + "/0?master_name=other")
	silent.signal(t, syscall.SIGCONT)
	watchOver(t, unknown).becomes(Disconnected, `no master is named "other"`)
}

func TestClusterIsAllItsMasters(t *testing.T) {
	start := func() *node {
		return startNode(t, "cluster", "cluster-enabled yes", "cluster-node-timeout 500", "cluster-config-file nodes.conf", "cluster-require-full-coverage yes")
	}
	one, two := start(), start()
	leavesNothing(t)
	if err := client(t, one.addr, "").ClusterAddSlotsRange(t.Context(), 0, 8191).Err(); err != nil {
		t.Fatal(err)
	}
	o := quick("redis://127.0.0.1:1," + one.addr) // nobody is at port 1
	o.Timeout = 600 * time.Millisecond
	w := watchOver(t, o)
	w.becomes(Disconnected, `the cluster's state is "fail"`)

	if err := client(t, two.addr, "").ClusterAddSlotsRange(t.Context(), 8192, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(two.addr)
	if err := client(t, one.addr, "").ClusterMeet(t.Context(), host, port).Err(); err != nil {
		t.Fatal(err)
	}
	w.becomes(Connected, "")
	two.signal(t, syscall.SIGSTOP)
	w.becomes(Disconnected, "")
	two.signal(t, syscall.SIGCONT)
	w.becomes(Connected, "")
	two.signal(t, syscall.SIGKILL)
	w.becomes(Disconnected, "")
	watchOver(t, quick("redis://"+testenv.StartRedis(t).Addr()+"?addr="+one.addr)).becomes(Disconnected, "")
}
