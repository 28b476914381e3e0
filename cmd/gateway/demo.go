package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/spf13/cobra"

	"gateway"
	"gateway/config"
	"gateway/examples/users"
	"gateway/listener"
)

// demoUsers is how many users each replica of the demo begins with.
const demoUsers = "10000"

// replicaStart bounds the wait for a replica of the demo: longer than a replica
// waits for its database, so that it can say what is wrong.
const replicaStart = 45 * time.Second

func demoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Show the gateway at work, on this machine alone",
		Long: `Start three replicas of a user service with ten thousand users and a gateway in
front of them, all on loopback. The configuration is config.toml of the current
folder if it is the demo's, else a copy of it in a temporary folder; edit it
while the demo runs. With DATABASE_URL and REDIS_URL the users are kept in
Postgres and cached in Redis, without them in the memory of each replica, which
then does not know what the others are told. Ctrl-C stops everything.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return demo(cmd.Context(), cmd.OutOrStdout()) },
	}
}

func demo(ctx context.Context, out io.Writer) error {
	path, cleanup, err := demoConfig()
	if err != nil {
		return err
	}
	defer cleanup()
	c, err := config.Load(path)
	if err != nil {
		return problems(err)
	}
	pool, ok := c.Upstreams["users"]
	if !ok {
		return fmt.Errorf("%s has no upstream users; the demo needs its servers", path)
	}
	for _, a := range c.Listen {
		if err := free(a.Network, a.Name, "GATEWAY_LISTEN"); err != nil {
			return err
		}
	}
	if c.Admin.Address.On() {
		if err := free(c.Admin.Address.Network, c.Admin.Address.Name, "GATEWAY_ADMIN"); err != nil {
			return err
		}
	}

	// The replicas get no signal from the terminal; serve takes Ctrl-C, and
	// they are stopped after the gateway has finished what is under way.
	var replicas []*replica
	defer func() {
		var wait sync.WaitGroup
		for _, r := range replicas {
			wait.Go(r.stop)
		}
		wait.Wait()
	}()
	interrupted, release := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer release()
	for i, s := range pool.Servers {
		if err := free("tcp", s.Address, fmt.Sprintf("USERS_%d", i+1)); err != nil {
			return err
		}
		r, err := startReplica(fmt.Sprintf("users-%d", i+1), s.Address, out)
		if err != nil {
			return err
		}
		replicas = append(replicas, r)
	}
	for _, r := range replicas {
		if err := r.await(interrupted); err != nil {
			return err
		}
	}
	return serve(ctx, path, func() { explain(out, path, c, replicas) })
}

// demoConfig finds the demo's configuration, or writes it into a temporary folder.
func demoConfig() (path string, cleanup func(), err error) {
	const name = "config.toml"
	if text, err := os.ReadFile(name); err == nil && strings.Contains(string(text), "${USERS_1:-") {
		return name, func() {}, nil
	}
	dir, err := os.MkdirTemp("", "gateway-demo-")
	if err != nil {
		return "", nil, fmt.Errorf("write the demo's configuration: %w", err)
	}
	path = filepath.Join(dir, name)
	if err := os.WriteFile(path, gateway.DemoConfig, 0o600); err != nil {
		os.RemoveAll(dir)
		return "", nil, fmt.Errorf("write the demo's configuration: %w", err)
	}
	return path, func() { os.RemoveAll(dir) }, nil
}

// free reports an address that somebody else listens on, with the way out.
func free(network, address, variable string) error {
	l, err := net.Listen(network, address)
	if err == nil {
		return l.Close()
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s is in use by another process; choose another address with %s=127.0.0.1:PORT", address, variable)
	}
	return fmt.Errorf("listen on %s: %w; choose another address with %s=127.0.0.1:PORT", address, err, variable)
}

// replica is a child process that serves users.
type replica struct {
	name    string
	address string
	cmd     *exec.Cmd
	ready   chan struct{} // closed when it listens
	ended   chan struct{} // closed when the process has ended, err set
	err     error
	stopped sync.Once
	stops   chan struct{} // closed when its end is wanted
}

// startReplica runs this very binary as a user service.
func startReplica(name, address string, out io.Writer) (*replica, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this binary: %w", err)
	}
	r := &replica{name: name, address: address, ready: make(chan struct{}), ended: make(chan struct{}), stops: make(chan struct{})}
	r.cmd = exec.Command(self, "users")
	r.cmd.Env = append(os.Environ(), "LISTEN="+address, "SERVED_BY="+name, "SEED="+demoUsers)
	r.cmd.Stderr = os.Stderr
	r.cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid:   true,            // Ctrl-C is for the gateway, which stops them in order
		Pdeathsig: syscall.SIGKILL, // they never outlive it
	}
	stdout, err := r.cmd.StdoutPipe()
	if err == nil {
		err = r.cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			select {
			case <-r.ready:
			default:
				close(r.ready)
			}
		}
		r.err = r.cmd.Wait()
		close(r.ended)
		select {
		case <-r.stops:
		default:
			fmt.Fprintf(out, "%s (process %d) has ended: %v\n", r.name, r.cmd.Process.Pid, r.cmd.ProcessState)
		}
	}()
	return r, nil
}

// await waits until the replica listens.
func (r *replica) await(ctx context.Context) error {
	select {
	case <-r.ready:
		return nil
	case <-r.ended:
		return fmt.Errorf("%s ended before it served: %v", r.name, r.err)
	case <-ctx.Done():
		return errors.New("interrupted")
	case <-time.After(replicaStart):
		return fmt.Errorf("%s did not listen on %s within %v", r.name, r.address, replicaStart)
	}
}

// stop asks the replica to end, and kills it when it does not.
func (r *replica) stop() {
	r.stopped.Do(func() { close(r.stops) })
	r.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-r.ended:
	case <-time.After(5 * time.Second):
		r.cmd.Process.Kill()
		<-r.ended
	}
}

// explain prints where to look and what to try.
func explain(out io.Writer, path string, c *config.Config, replicas []*replica) {
	gateway, admin := address(c.Listen[0]), ""
	if c.Admin.Address.On() {
		admin = address(c.Admin.Address.Address)
	}
	fmt.Fprintf(out, "\nThe gateway runs, with %d servers behind it:\n\n  gateway   %s\n", len(replicas), gateway)
	if admin != "" {
		fmt.Fprintf(out, "  admin     %s\n", admin)
	}
	fmt.Fprintf(out, "  config    %s\n  users     %s\n\n", path, storage())
	for _, r := range replicas {
		fmt.Fprintf(out, "  %-8s  http://%-21s  process %d\n", r.name, r.address, r.cmd.Process.Pid)
	}
	fmt.Fprint(out, "\nTry, in another terminal:\n")
	try := func(what, command string) { fmt.Fprintf(out, "\n  # %s\n  %s\n", what, command) }
	try("page through ten thousand users",
		fmt.Sprintf("curl '%s/users?page=2&page_size=5'", gateway))
	try("see who answers: one after the other",
		fmt.Sprintf("for i in 1 2 3 4 5 6; do curl -si %s/users/$i | grep X-Served-By; done", gateway))
	try("make one fail: no request is lost",
		fmt.Sprintf("kill -9 %d; curl -i %s/users/42", replicas[0].cmd.Process.Pid, gateway))
	if admin != "" {
		try("read the metrics; there are also /status and /healthz",
			fmt.Sprintf("curl %s/metrics", admin))
		try("reload; saving "+path+" does the same",
			fmt.Sprintf("curl -X POST %s/reload", admin))
	}
	fmt.Fprint(out, "\nCtrl-C stops everything.\n\n")
}

// storage says where the replicas keep their users.
func storage() string {
	where := "in memory, each server its own; DATABASE_URL=postgres://... makes them share"
	if os.Getenv("DATABASE_URL") != "" {
		where = "in the database of DATABASE_URL"
	}
	if os.Getenv("REDIS_URL") != "" {
		where += ", cached in the Redis of REDIS_URL"
	}
	return where
}

// address is how curl finds an address that is listened on.
func address(a listener.Address) string {
	if a.Network == "unix" {
		return "--unix-socket " + a.Name + " http://localhost"
	}
	return reachable(a)
}

// usersCommand is one replica of the demo's user service.
func usersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:    "users",
		Short:  "Run one replica of the user service, configured by the environment",
		Hidden: true,
		Args:   noArgs,
	}
	healthcheck := cmd.Flags().Bool("healthcheck", false, "ask the replica that runs with this environment whether it is\nhealthy; exit status 0 or 1")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o, err := users.FromEnv(os.LookupEnv)
		if err != nil {
			return err
		}
		if *healthcheck {
			at, err := newOperator(reachable(listener.Address{Network: "tcp", Name: o.Listen}), "", nil)
			if err != nil {
				return err
			}
			return at.ready("/health", 2*time.Second)
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		redis.SetLogger(&logging.VoidLogger{}) // it reports each dial that fails; the service reports the first
		o.Version = buildVersion()
		o.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
		o.Ready = func(address string) { fmt.Printf("listening on http://%s\n", address) }
		return users.Run(ctx, o)
	}
	return cmd
}
