package testenv

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		conn.Close(ctx)
	})
	return conn
}

func TestPostgresKeepsWhatWasCommittedWhenKilled(t *testing.T) {
	s := StartPostgres(t)
	before := s.URL()
	conn := connect(t, before)
	if _, err := conn.Exec(t.Context(), "CREATE TABLE kept (n int); INSERT INTO kept VALUES (42)"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s.Kill()
		if _, err := net.Dial("tcp", s.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("dial after kill: %v; want connection refused", err)
		}
		s.Kill() // a dead server stays dead
		s.Restart()
	}
	if s.URL() != before {
		t.Fatalf("URL after restart: %q; want %q", s.URL(), before)
	}
	var n int
	if err := connect(t, s.URL()).QueryRow(t.Context(), "SELECT n FROM kept").Scan(&n); err != nil || n != 42 {
		t.Fatalf("read after restart: %d, %v; want 42", n, err)
	}
}

func TestFrozenPostgresIsSilentUntilThawed(t *testing.T) {
	s := StartPostgres(t)
	conn := connect(t, s.URL())
	s.Freeze()
	if pids := children(s.process.pid); len(pids) < 2 {
		t.Errorf("children of postgres: %v; want several", pids)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "SELECT 1")
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Fatalf("a frozen server answers: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	s.Thaw()
	select {
	case err := <-answered:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("no answer after thaw")
	}
}

func TestEachDatabaseIsItsOwn(t *testing.T) {
	s := StartPostgres(t)
	for _, name := range []string{"one", "two"} {
		conn := connect(t, s.CreateDatabase(name))
		if _, err := conn.Exec(t.Context(), "CREATE TABLE t ()"); err != nil {
			t.Fatal(err)
		}
	}
}

func redis(t *testing.T, s *Server, command, want string) error {
	t.Helper()
	c, err := net.Dial("tcp", s.Addr())
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(300 * time.Millisecond))
	fmt.Fprintf(c, "%s\r\n", command)
	got, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && strings.TrimSpace(got) != want {
		t.Errorf("%s: %q; want %q", command, got, want)
	}
	return err
}

func TestRedisIsKilledFrozenAndRestarted(t *testing.T) {
	s := StartRedis(t)
	if err := redis(t, s, "SET key value", "+OK"); err != nil {
		t.Fatal(err)
	}
	s.Kill()
	if err := redis(t, s, "PING", "+PONG"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("ping after kill: %v; want connection refused", err)
	}
	s.Restart()
	if err := redis(t, s, "STRLEN key", ":5"); err != nil {
		t.Fatal(err)
	}
	s.Freeze()
	if err := redis(t, s, "PING", "+PONG"); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("ping while frozen: %v; want a timeout", err)
	}
	s.Thaw()
	if err := redis(t, s, "PING", "+PONG"); err != nil {
		t.Fatal(err)
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	var p Program
	defer p.Close()
	pg, rd := StartPostgres(&p), StartRedis(&p)
	rd.Freeze() // a stopped server is ended too
	pids := []int{pg.process.pid, rd.process.pid}
	pids = append(pids, children(pg.process.pid)...)
	p.Close()
	for _, pid := range pids {
		if alive(pid) {
			t.Errorf("process %d is still alive", pid)
		}
	}
	for _, s := range []*Server{pg, rd} {
		if _, err := os.Stat(s.dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("folder %s is still there: %v", s.dir, err)
		}
	}
}

func TestMissingBinaryNamesThePackage(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	f := &failure{TB: t}
	func() {
		defer func() { _ = recover() }()
		StartRedis(f)
	}()
	if !strings.Contains(f.message, "apt-get install -y redis-server") {
		t.Errorf("message %q; want the apt-get command", f.message)
	}
}

// failure records what Fatalf was told instead of failing the test.
type failure struct {
	TB
	message string
}

func (f *failure) Fatalf(format string, args ...any) {
	f.message = fmt.Sprintf(format, args...)
	panic(f)
}
