package testenv

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// StartRedis starts a Redis server without a password. It writes an
// append-only file, so that Kill followed by Restart keeps its data.
func StartRedis(tb TB) *Server {
	tb.Helper()
	s := newRedis(tb, "redis://127.0.0.1:%d/0", func() []string {
		return []string{"--appendonly", "yes", "--appendfsync", "no"}
	})
	s.start()
	return s
}

// newRedis is a Redis server with options that are made at each start.
func newRedis(tb TB, url string, options func() []string) *Server {
	tb.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		tb.Fatalf("redis-server is not in PATH; install it: apt-get install -y redis-server")
	}
	dir, err := os.MkdirTemp("", "testenv-redis-")
	if err != nil {
		tb.Fatalf("start redis: %v", err)
	}
	return &Server{
		tb:   tb,
		name: "redis",
		url:  url,
		dir:  dir,
		command: func(s *Server) *exec.Cmd {
			cmd := exec.Command(path, append([]string{"--port", strconv.Itoa(s.port), "--bind", "127.0.0.1",
				"--dir", s.dir, "--save", "", "--daemonize", "no"}, options()...)...)
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
			return cmd
		},
		ready: pingRedis,
	}
}

// StartRedisCluster starts a Redis Cluster of one server, which has all slots.
// Its URL names it as a cluster.
func StartRedisCluster(tb TB) *Server {
	tb.Helper()
	s := newRedis(tb, "redis://127.0.0.1:%[1]d?addr=127.0.0.1:%[1]d", func() []string {
		bus, _ := freePort()
		return []string{"--appendonly", "no", "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(bus)}
	})
	s.start()
	client := goredis.NewClient(&goredis.Options{Addr: s.Addr()})
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := client.ClusterAddSlotsRange(ctx, 0, 16383).Err(); err != nil {
		tb.Fatalf("start redis cluster: %v", err)
	}
	for client.Set(ctx, "a", "b", 0).Err() != nil {
		if ctx.Err() != nil {
			tb.Fatalf("start redis cluster: it does not come up")
		}
		time.Sleep(10 * time.Millisecond)
	}
	return s
}

// pingRedis succeeds when the server has loaded its data and answers.
func pingRedis(ctx context.Context, s *Server) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp4", s.addr())
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(line, "+PONG") {
		return fmt.Errorf("ping: unexpected answer %q", line)
	}
	return nil
}
