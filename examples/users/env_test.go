package users

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gateway/internal/testenv"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"golang.org/x/crypto/bcrypt"
)

// shared holds the servers that tests share which do not hurt them.
var shared testenv.Program

var (
	sharedPostgres = sync.OnceValue(func() *testenv.Server { return testenv.StartPostgres(&shared) })
	sharedRedis    = sync.OnceValue(func() *testenv.Server { return testenv.StartRedis(&shared) })
	databases      atomic.Int64
)

func TestMain(m *testing.M) {
	redis.SetLogger(&logging.VoidLogger{}) // it reports each dial that fails
	code := m.Run()
	shared.Close()
	os.Exit(code)
}

// newDatabase is the URL of an empty database of its own.
func newDatabase() string {
	return sharedPostgres().CreateDatabase(fmt.Sprintf("test%d", databases.Add(1)))
}

// replica is a running service and a client of it.
type replica struct {
	t       *testing.T
	service *Service
	client  *http.Client
	stop    func() error // ends the service and waits
}

// start runs a service until the test ends.
func start(t *testing.T, o Options) *replica {
	t.Helper()
	o.BcryptCost = bcrypt.MinCost
	s, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	r := &replica{t: t, service: s, client: &http.Client{Transport: transport, Timeout: 30 * time.Second}}
	r.stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-ended:
			transport.CloseIdleConnections()
			return err
		case <-time.After(20 * time.Second):
			return fmt.Errorf("the service does not stop")
		}
	})
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// onEachStore runs a test on the in-memory store, on PostgreSQL, and on
// PostgreSQL behind the cache.
func onEachStore(t *testing.T, o Options, test func(t *testing.T, r *replica)) {
	t.Run("memory", func(t *testing.T) { test(t, start(t, o)) })
	o.DatabaseURL = "set"
	t.Run("postgres", func(t *testing.T) {
		o := o
		o.DatabaseURL = newDatabase()
		test(t, start(t, o))
	})
	t.Run("cached", func(t *testing.T) {
		o := o
		o.DatabaseURL = newDatabase()
		o.RedisURL = sharedRedis().URL()
		o.Cache.Prefix = t.Name() + ":"
		o.Cache.Deadline = 5 * time.Second // a busy machine must not turn it off
		test(t, start(t, o))
	})
}

// answer is a response that has been read.
type answer struct {
	status int
	header http.Header
	body   string
	closes bool // the connection
	took   time.Duration
}

// try sends a request; it may be used on any goroutine. Headers are "Name:
// value".
func (r *replica) try(method, path, body string, headers ...string) (answer, error) {
	req, err := http.NewRequest(method, "http://"+r.service.Addr()+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	begin := time.Now()
	resp, err := r.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(b), resp.Close, time.Since(begin)}, err
}

func (r *replica) send(method, path, body string, headers ...string) answer {
	r.t.Helper()
	a, err := r.try(method, path, body, headers...)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

func (r *replica) get(path string, headers ...string) answer {
	r.t.Helper()
	return r.send("GET", path, "", headers...)
}

// want fails the test unless the answer has the status; it returns the body.
func (r *replica) want(status int, a answer) string {
	r.t.Helper()
	if a.status != status {
		r.t.Fatalf("status %d, body %.300s; want %d", a.status, a.body, status)
	}
	return a.body
}

// shown is a user as a client sees it.
type shown struct {
	ID        int64     `json:"id"`
	Name      string    `json:"name"`
	Email     string    `json:"email"`
	Role      string    `json:"role"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// listing is a list as a client sees it.
type listing struct {
	Data       []shown
	Pagination struct {
		Page       int     `json:"page"`
		PageSize   int     `json:"page_size"`
		Total      int64   `json:"total"`
		TotalPages int64   `json:"total_pages"`
		NextAfter  *string `json:"next_after"`
	}
}

// decode reads an answer strictly: fields that are not expected fail the test.
func decode[T any](t *testing.T, body string) T {
	t.Helper()
	var v T
	d := json.NewDecoder(strings.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("decode %.300s: %v", body, err)
	}
	return v
}

func (r *replica) list(path string) listing {
	r.t.Helper()
	return decode[listing](r.t, r.want(200, r.get(path)))
}

// issue is an error as a client sees it.
type issue struct {
	Type, Title, Detail, Parameter, Field string
	Status, Row                           int
}

// refused fails the test unless the answer is an error of this status.
func (r *replica) refused(status int, a answer) issue {
	r.t.Helper()
	p := decode[issue](r.t, r.want(status, a))
	if p.Status != status || p.Detail == "" || a.header.Get("Content-Type") != "application/problem+json" ||
		a.header.Get("Cache-Control") != "no-store" {
		r.t.Errorf("error %+v with header %v; want a problem that is not stored", p, a.header)
	}
	return p
}

// rows is a batch of n users with addresses that begin with prefix.
func rows(prefix string, n int) string {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, "{\"name\":\"N\",\"email\":\"%s%d@example.com\",\"role\":\"batch\",\"password_hash\":\"h\"}\n", prefix, i+1)
	}
	return b.String()
}

// poll waits until ok, for at most 20 s.
func poll(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %s within 20 s", what)
		}
	}
}

// tracer counts the queries and copies that reach PostgreSQL.
type tracer struct{ queries, copies atomic.Int64 }

func (tr *tracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	if d.SQL != "-- ping" {
		tr.queries.Add(1)
	}
	return ctx
}

func (tr *tracer) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (tr *tracer) TraceCopyFromStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceCopyFromStartData) context.Context {
	tr.copies.Add(1)
	return ctx
}

func (tr *tracer) TraceCopyFromEnd(context.Context, *pgx.Conn, pgx.TraceCopyFromEndData) {}
