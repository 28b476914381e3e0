package testenv

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"
)

// StartPostgres starts a PostgreSQL server whose user "postgres" needs no
// password. It does not wait for the disk (fsync is off), which loses nothing
// when the process is killed: what is committed survives Kill and Restart.
// PostgreSQL refuses to run as root; a test that does starts it as the user
// postgres or nobody.
func StartPostgres(tb TB) *Server {
	tb.Helper()
	bin, err := postgresBin()
	if err != nil {
		tb.Fatalf("%v", err)
	}
	owner, err := unprivileged()
	if err != nil {
		tb.Fatalf("start postgres: %v", err)
	}
	template, err := clusterTemplate(bin, owner)
	if err != nil {
		tb.Fatalf("start postgres: %v", err)
	}
	dir, err := os.MkdirTemp("", "testenv-postgres-")
	if err == nil {
		err = template.write(dir, owner)
	}
	if err != nil {
		os.RemoveAll(dir)
		tb.Fatalf("start postgres: %v", err)
	}
	s := &Server{
		tb:   tb,
		name: "postgres",
		url:  "postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable",
		dir:  dir,
		command: func(s *Server) *exec.Cmd {
			cmd := owner.command(context.Background(), filepath.Join(bin, "postgres"), "-D", filepath.Join(s.dir, "data"), "-p", strconv.Itoa(s.port))
			for _, setting := range []string{
				"listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=300", "shared_buffers=64MB",
				"fsync=off", "full_page_writes=off", "max_wal_size=256MB", "logging_collector=off",
			} {
				cmd.Args = append(cmd.Args, "-c", setting)
			}
			return cmd
		},
		ready: func(ctx context.Context, s *Server) error {
			conn, err := pgx.Connect(ctx, fmt.Sprintf(s.url, s.port))
			if err != nil {
				return err
			}
			return conn.Close(ctx)
		},
		discard: removeSharedMemory,
	}
	s.start()
	return s
}

// CreateDatabase creates an empty database on a PostgreSQL server and returns
// its URL: cheaper than a server for each test.
func (s *Server) CreateDatabase(name string) string {
	s.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.URL())
	if err == nil {
		_, err = conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize())
		conn.Close(ctx)
	}
	if err != nil {
		s.tb.Fatalf("create database %q: %v", name, err)
	}
	return strings.Replace(s.URL(), "/postgres?", "/"+name+"?", 1)
}

// postgresBin finds the folder of initdb and postgres: Debian's newest, else
// that of PATH. A link in PATH is followed, since postgres looks for its
// companions beside itself.
func postgresBin() (string, error) {
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.SortFunc(dirs, func(a, b string) int { return version(b) - version(a) })
	if path, err := exec.LookPath("postgres"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	for _, dir := range dirs {
		_, err1 := exec.LookPath(filepath.Join(dir, "initdb"))
		_, err2 := exec.LookPath(filepath.Join(dir, "postgres"))
		if err1 == nil && err2 == nil {
			return dir, nil
		}
	}
	return "", errors.New("initdb and postgres are neither in /usr/lib/postgresql/*/bin nor in PATH; " +
		"install them: apt-get install -y postgresql")
}

func version(dir string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
	return n
}

// account is who runs PostgreSQL: nil means whoever runs the test.
type account struct{ uid, gid int }

func unprivileged() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err1 == nil && err2 == nil && uid != 0 {
			return &account{uid, gid}, nil
		}
	}
	return nil, errors.New("it cannot run as root, and there is no user postgres or nobody")
}

func (a *account) command(ctx context.Context, path string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C", "TZ=UTC"}
	if a != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)},
		}
	}
	return cmd
}

func (a *account) own(path string) error {
	if a == nil {
		return nil
	}
	return os.Lchown(path, a.uid, a.gid)
}

// cluster is the data folder that initdb makes, held in memory (about 25 MB)
// so that one initdb serves a whole test process and leaves nothing on disk.
type cluster struct {
	dirs  []string
	files map[string][]byte
}

var (
	templateOnce  sync.Once
	template      *cluster
	errOfTemplate error
)

func clusterTemplate(bin string, owner *account) (*cluster, error) {
	templateOnce.Do(func() { template, errOfTemplate = initCluster(bin, owner) })
	return template, errOfTemplate
}

func initCluster(bin string, owner *account) (*cluster, error) {
	dir, err := os.MkdirTemp("", "testenv-initdb-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := owner.own(dir); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := owner.command(ctx, filepath.Join(bin, "initdb"), "-D", filepath.Join(dir, "data"), "-U", "postgres",
		"--auth=trust", "--no-sync", "--no-instructions", "--locale=C", "--encoding=UTF8", "--wal-segsize=1")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("run initdb: %w\n%s", err, out)
	}
	c := &cluster{files: make(map[string][]byte)}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			c.dirs = append(c.dirs, name)
			return nil
		}
		c.files[name], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read what initdb made: %w", err)
	}
	return c, nil
}

// write lays the cluster out in dir, which is handed to its owner.
func (c *cluster) write(dir string, owner *account) error {
	if err := owner.own(dir); err != nil {
		return err
	}
	for _, name := range c.dirs { // parents come before children
		path := filepath.Join(dir, name)
		if err := os.Mkdir(path, 0o700); err != nil {
			return err
		}
		if err := owner.own(path); err != nil {
			return err
		}
	}
	for name, content := range c.files {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return err
		}
		if err := owner.own(path); err != nil {
			return err
		}
	}
	return nil
}

// removeSharedMemory frees the System V segment that a killed PostgreSQL
// leaves behind; its number is the second of line 7 of postmaster.pid.
func removeSharedMemory(s *Server) {
	b, err := os.ReadFile(filepath.Join(s.dir, "data", "postmaster.pid"))
	if err != nil {
		return // never started, or stopped in good order
	}
	lines := strings.Split(string(b), "\n")
	if len(lines) < 7 {
		return
	}
	var key, id int
	if _, err := fmt.Sscan(lines[6], &key, &id); err == nil {
		_, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil)
	}
}
