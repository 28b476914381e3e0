package dependency

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"gateway/internal/testenv"
)

// Real servers. Waits are bounded by patience; what the test is about is
// looked at by its own clock, with slack for a busy machine.
const (
	patience = 10 * time.Second
	slack    = time.Second
)

// quick are options for impatient tests.
func quick(url string) Options {
	o := defaults(url)
	o.Interval, o.Timeout = 100*time.Millisecond, 100*time.Millisecond
	return o
}

// unhurried is quick for probes whose answer counts, and not when it comes: a new
// connection to Postgres can take a tenth of a second of a busy processor.
func unhurried(url string) Options {
	o := quick(url)
	o.Timeout = 5 * time.Second
	return o
}

// journal is a log that tests may read while it is written.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

type watched struct {
	*Dependency
	t   *testing.T
	log *journal
}

// watchOver probes a backend until the test ends.
func watchOver(t *testing.T, o Options) *watched {
	t.Helper()
	w := &watched{t: t, log: new(journal)}
	r := NewRegistry(RegistryOptions{Log: slog.New(slog.NewTextHandler(w.log, nil))})
	t.Cleanup(r.Close)
	s, err := r.Build(map[string]Options{"db": o})
	if err != nil {
		t.Fatal(err)
	}
	w.Dependency = s.Lookup("db")
	return w
}

// becomes waits for a state and returns how long it took.
func (w *watched) becomes(want State, reason string) time.Duration {
	w.t.Helper()
	began := time.Now()
	within(w.t, fmt.Sprintf("%v %s", want, reason), func() bool {
		return w.State() == want && strings.Contains(w.Status().Reason, reason)
	}, func() string { return fmt.Sprintf("%+v", w.Status()) })
	return time.Since(began)
}

func within(t *testing.T, what string, ok func() bool, else_ ...func() string) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			for _, f := range else_ {
				what += ": " + f()
			}
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func TestServerIsKilledRestartedFrozenAndThawed(t *testing.T) {
	for name, start := range map[string]func(testenv.TB) *testenv.Server{"postgres": testenv.StartPostgres, "redis": testenv.StartRedis} {
		t.Run(name, func(t *testing.T) {
			server := start(t)
			o := quick(server.URL())
			o.Interval, o.Timeout = 300*time.Millisecond, 300*time.Millisecond // a busy machine may need a third of it
			w := watchOver(t, o)
			w.becomes(Connected, "")
			bound := time.Duration(float64(o.Interval)*float64(o.Fails)*1.1) + o.Timeout + slack
			server.Kill()
			if d := w.becomes(Disconnected, "connection refused"); d > bound {
				t.Errorf("killed, it was down after %v; want %v", d, bound)
			}
			server.Restart()
			if d := w.becomes(Connected, ""); d > o.Interval+slack {
				t.Errorf("restarted, it was up after %v; want %v", d, o.Interval+slack)
			}
			server.Freeze()
			if d := w.becomes(Disconnected, "no answer within 300ms"); d > bound {
				t.Errorf("frozen, it was down after %v; want %v", d, bound)
			}
			server.Thaw()
			if d := w.becomes(Connected, ""); d > o.Interval+o.Timeout+slack {
				t.Errorf("thawed, it was up after %v; want %v", d, o.Interval+o.Timeout+slack)
			}
			if n := strings.Count(w.log.String(), "\n"); n != 5 {
				t.Errorf("%d lines in the log; want one for each of 5 changes:\n%s", n, w.log)
			}
		})
	}
}

// openSockets is the number of sockets of this process.
func openSockets(t *testing.T) (n int) {
	t.Helper()
	dir, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range dir {
		if to, err := os.Readlink(filepath.Join("/proc/self/fd", fd.Name())); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}

func stacks() string {
	b := make([]byte, 1<<20)
	return string(b[:runtime.Stack(b, true)])
}

// leavesNothing fails the test when goroutines or sockets of later begin are
// left over after the cleanups that are registered after it.
func leavesNothing(t *testing.T) {
	t.Helper()
	goroutines, open := runtime.NumGoroutine(), openSockets(t)
	t.Cleanup(func() {
		within(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines }, stacks)
		within(t, "no socket is left", func() bool { return openSockets(t) <= open }, func() string { return fmt.Sprint(openSockets(t) - open) })
	})
}

func TestNothingIsLeftBehind(t *testing.T) {
	pg, rd := testenv.StartPostgres(t), testenv.StartRedis(t)
	leavesNothing(t)
	goroutines, open := runtime.NumGoroutine(), openSockets(t)

	r := NewRegistry(RegistryOptions{})
	defer r.Close()
	o := quick("")
	o.Interval, o.Timeout, o.Fails = 50*time.Millisecond, 50*time.Millisecond, 2
	postgres, redis := o, o
	postgres.URL, redis.URL = pg.URL(), rd.URL()
	s, err := r.Build(map[string]Options{"pg": postgres, "rd": redis})
	if err != nil {
		t.Fatal(err)
	}
	both := func(want State) {
		t.Helper()
		for _, name := range []string{"pg", "rd"} {
			d := s.Lookup(name)
			within(t, name+" "+want.String(), func() bool { return d.State() == want }, func() string { return fmt.Sprintf("%+v", d.Status()) })
		}
	}
	both(Connected)
	for i := range 5 {
		if i%2 == 0 {
			pg.Kill()
			rd.Kill()
		} else {
			pg.Freeze()
			rd.Freeze()
		}
		both(Disconnected)
		if i%2 == 0 {
			pg.Restart()
			rd.Restart()
		} else {
			pg.Thaw()
			rd.Thaw()
		}
		both(Connected)
	}
	within(t, "one connection each", func() bool { return openSockets(t) == open+2 }, func() string { return fmt.Sprint(openSockets(t) - open) })
	within(t, "two goroutines", func() bool { return runtime.NumGoroutine() == goroutines+2 }, stacks)

	// Also while the servers hang.
	pg.Freeze()
	rd.Freeze()
	both(Disconnected)
	began := time.Now()
	r.Close()
	if d := time.Since(began); d > slack {
		t.Errorf("Close took %v with hanging servers", d)
	}
}

// A server that accepts and says nothing holds up neither a probe beyond its
// timeout nor the end of a probe, with TLS or without.
func TestSilenceEndsWithTheProbe(t *testing.T) {
	silent := testenv.StartRedis(t)
	silent.Freeze()
	leavesNothing(t)
	for _, url := range []string{
		"redis://" + silent.Addr(), "rediss://" + silent.Addr(), "redis://" + silent.Addr() + "," + silent.Addr(),
		"rediss://" + silent.Addr() + "?master_name=m", "postgres://u@" + silent.Addr() + "/d?sslmode=require",
		"postgres://u@" + silent.Addr() + "/d?sslmode=prefer&target_session_attrs=primary",
	} {
		watchOver(t, quick(url)).becomes(Disconnected, "")

		o := quick(url)
		o.Timeout = time.Hour
		r, open := NewRegistry(RegistryOptions{}), openSockets(t)
		if _, err := r.Build(map[string]Options{"db": o}); err != nil {
			t.Fatal(err)
		}
		within(t, "a probe is under way", func() bool { return openSockets(t) > open })
		began := time.Now()
		r.Close()
		if d := time.Since(began); d > slack {
			t.Errorf("%s: Close took %v", url, d)
		}
	}
}

func run(t *testing.T, url string, commands ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	for _, command := range commands {
		if _, err := conn.Exec(ctx, command); err != nil {
			t.Fatalf("%s: %v", command, err)
		}
	}
}

func setting(t *testing.T, url, name string) (value string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if err := conn.QueryRow(ctx, "SHOW "+name).Scan(&value); err != nil {
		t.Fatal(err)
	}
	return value
}

// A backend that refuses the password is away for the services too. The
// password is nowhere to be read.
func TestWrongPasswordIsDisconnectedAndNotTold(t *testing.T) {
	f := func(url, reason string) {
		t.Helper()
		w := watchOver(t, unhurried(url))
		w.becomes(Disconnected, reason)
		if told := w.log.String() + fmt.Sprintf("%+v", w.Status()); strings.Contains(told, "hunter2") {
			t.Error(told)
		}
	}
	pg := testenv.StartPostgres(t)
	run(t, pg.URL(), "CREATE ROLE guarded LOGIN PASSWORD 'right'",
		fmt.Sprintf("COPY (VALUES ('host all guarded all scram-sha-256'), ('host all all all trust')) TO '%s'", setting(t, pg.URL(), "hba_file")),
		"SELECT pg_reload_conf()")
	f("postgres://guarded:hunter2@"+pg.Addr()+"/postgres?sslmode=disable", "password authentication failed")
	f("postgres://guarded:hunter2@"+pg.Addr()+"/postgres?sslmode=prefer", "password authentication failed")
	f("postgres://postgres:hunter2@"+pg.Addr()+"/hunter2?sslmode=disable", `database "***" does not exist`)
	w := watchOver(t, unhurried("postgres://guarded:right@"+pg.Addr()+"/postgres?pool_max_conns=4&default_query_exec_mode=exec"))
	w.becomes(Connected, "")

	rd := testenv.StartRedis(t)
	client(t, rd.Addr(), "").ConfigSet(t.Context(), "requirepass", "right")
	f("redis://:hunter2@"+rd.Addr(), "WRONGPASS")
	f("redis://"+rd.Addr(), "NOAUTH")
	w = watchOver(t, unhurried("redis://:right@"+rd.Addr()+"/0?max_retries=9&dial_timeout=1h"))
	w.becomes(Connected, "")
}

func client(t *testing.T, addr, password string) *redis.Client {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: addr, Password: password})
	t.Cleanup(func() { c.Close() })
	return c
}

func TestPostgresStandbyIsNoPrimary(t *testing.T) {
	pg := testenv.StartPostgres(t)
	primary, replica := unhurried(pg.URL()), unhurried(pg.URL())
	primary.Primary, replica.MaxLag = true, time.Hour
	watchOver(t, primary).becomes(Connected, "")
	watchOver(t, replica).becomes(Connected, "")
	run(t, pg.URL(), "CREATE TABLE written ()", fmt.Sprintf("COPY (SELECT) TO '%s/standby.signal'", setting(t, pg.URL(), "data_directory")))
	pg.Restart()

	w := watchOver(t, primary)
	w.becomes(Disconnected, "in recovery, not a primary")
	watchOver(t, replica).becomes(Connected, "")
	watchOver(t, unhurried(pg.URL())).becomes(Connected, "")
	replica.MaxLag = time.Millisecond // without a primary, what was replayed last only grows older
	watchOver(t, replica).becomes(Disconnected, "behind; want at most 1ms")

	run(t, pg.URL(), "SELECT pg_promote()")
	w.becomes(Connected, "")
}

func TestPostgresHostsAreTriedInTurn(t *testing.T) {
	hanging, pg := testenv.StartRedis(t), testenv.StartPostgres(t)
	hanging.Freeze()
	o := quick("postgres://postgres@127.0.0.1:1," + hanging.Addr() + "," + pg.Addr() + "/postgres?sslmode=disable")
	o.Timeout = 600 * time.Millisecond
	watchOver(t, o).becomes(Connected, "")
}

func TestRedisReplicaIsNoMaster(t *testing.T) {
	master, server := testenv.StartRedis(t), testenv.StartRedis(t)
	primary, replica := unhurried(server.URL()), unhurried(server.URL())
	primary.Primary, replica.MaxLag = true, 10*time.Second
	w, behind := watchOver(t, primary), watchOver(t, replica)
	w.becomes(Connected, "")
	client(t, master.Addr(), "").ConfigSet(t.Context(), "repl-diskless-sync-delay", "0")
	host, port, _ := strings.Cut(master.Addr(), ":")
	if err := client(t, server.Addr(), "").ReplicaOf(t.Context(), host, port).Err(); err != nil {
		t.Fatal(err)
	}
	w.becomes(Disconnected, "role is slave; want master")
	behind.becomes(Connected, "")
	replica.MaxLag = time.Second
	behind = watchOver(t, replica)
	master.Freeze()
	behind.becomes(Disconnected, "want at most 1s")
	master.Thaw()
}
