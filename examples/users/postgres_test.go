package users

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gateway/internal/testenv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// connect opens a connection of the test's own.
func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func TestPlansAreIndexScansWithoutSort(t *testing.T) {
	url := newDatabase()
	start(t, Options{DatabaseURL: url, Seed: 20_000})
	conn := connect(t, url)
	f := func(query, index string, args ...any) {
		t.Helper()
		var plan []byte
		if err := conn.QueryRow(t.Context(), "EXPLAIN (FORMAT JSON) "+query, args...).Scan(&plan); err != nil {
			t.Fatal(err)
		}
		var nodes []struct{ Plan map[string]any }
		if err := json.Unmarshal(plan, &nodes); err != nil {
			t.Fatal(err)
		}
		text := string(plan)
		if !strings.Contains(text, fmt.Sprintf("%q", index)) {
			t.Errorf("plan does not use %s:\n%s", index, text)
		}
		if scansUsers(nodes[0].Plan) {
			t.Errorf("plan reads the whole table:\n%s", text)
		}
		// A page is sorted once more behind its join: at most 100 rows.
		if query != pageQuery && strings.Contains(text, `"Sort"`) {
			t.Errorf("plan sorts:\n%s", text)
		}
	}
	f(roleQuery, "users_role_newest", "editor", 100)
	f(cursorQuery, "users_oldest", seedEpoch.Add(time.Hour), 100, 21)
	f(pageQuery, "users_oldest", 20, 10_000)
	f(userQuery, "users_pkey", 42)
}

// scansUsers says whether a plan reads all rows of users.
func scansUsers(node map[string]any) bool {
	if node["Node Type"] == "Seq Scan" && node["Relation Name"] == "users" {
		return true
	}
	children, _ := node["Plans"].([]any)
	for _, c := range children {
		if scansUsers(c.(map[string]any)) {
			return true
		}
	}
	return false
}

func TestEachRequestIsOneQuery(t *testing.T) {
	var tr tracer
	r := start(t, Options{DatabaseURL: newDatabase(), Seed: 300, Tracer: &tr})
	f := func(queries, copies int64, method, path, body string) {
		t.Helper()
		q, c := tr.queries.Load(), tr.copies.Load()
		if a := r.send(method, path, body); a.status >= 300 {
			t.Fatalf("%s %s: %d %s", method, path, a.status, a.body)
		}
		if q, c = tr.queries.Load()-q, tr.copies.Load()-c; q != queries || c != copies {
			t.Errorf("%s %s: %d queries, %d copies; want %d and %d", method, path, q, c, queries, copies)
		}
	}
	const user = `{"name":"A","email":"a@example.com","password_hash":"h"}`
	f(1, 0, "GET", "/users", "")
	f(1, 0, "GET", "/users?page=2&page_size=100", "")
	f(1, 0, "GET", "/users?page=999", "")
	f(1, 0, "GET", "/users?after=&page_size=100", "")
	f(1, 0, "GET", "/users?role=editor", "")
	f(1, 0, "GET", "/users/7", "")
	f(1, 0, "POST", "/users", user)
	f(1, 0, "PUT", "/users/7", strings.Replace(user, "a@", "b@", 1))
	f(1, 0, "DELETE", "/users/7", "")
	f(3, 1, "POST", "/users/batch", rows("a", 10_000)) // begin, reserve ids, copy, commit
	f(0, 0, "GET", "/health", "")
}

func TestSessionsAreBounded(t *testing.T) {
	r := start(t, Options{DatabaseURL: newDatabase(), PoolSize: 6})
	store := r.service.store.(*Postgres)
	var timeout string
	if err := store.pool.QueryRow(t.Context(), "SHOW statement_timeout").Scan(&timeout); err != nil || timeout != "5s" {
		t.Errorf("statement_timeout %q, %v; want 5s", timeout, err)
	}
	conn, err := store.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	var prepared bool
	if _, err := scanUser(conn.QueryRow(t.Context(), userQuery, 1)); !errors.Is(err, pgx.ErrNoRows) {
		t.Fatal(err)
	}
	err = conn.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_prepared_statements WHERE statement = $1)", userQuery).Scan(&prepared)
	if err != nil || !prepared {
		t.Errorf("the query is not prepared: %v", err)
	}
	c := store.pool.Config()
	if c.MaxConns != 6 || c.MinIdleConns != 3 || c.MaxConnLifetime != time.Hour || c.MaxConnIdleTime != 30*time.Minute {
		t.Errorf("pool %+v", c)
	}
}

func TestTallyIsExactUnderConcurrentWrites(t *testing.T) {
	t.Parallel()
	url := newDatabase()
	r := start(t, Options{DatabaseURL: url, Seed: 50})
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(w)))
			for i := range 25 {
				var err error
				switch random.IntN(4) {
				case 0:
					_, err = r.try("DELETE", fmt.Sprintf("/users/%d", 1+random.IntN(60)), "")
				case 1: // half of them collide, and leave nothing
					_, err = r.try("POST", "/users/batch", rows(fmt.Sprintf("b%d-", random.IntN(30)), 5))
				case 2:
					_, err = r.try("PUT", fmt.Sprintf("/users/%d", 1+random.IntN(60)), fmt.Sprintf(`{"name":"P","email":"p%d@example.com"}`, random.IntN(20)))
				case 3:
					_, err = r.try("POST", "/users", fmt.Sprintf(`{"name":"S","email":"s%d-%d@example.com","password_hash":"h"}`, w, i))
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	conn := connect(t, url)
	var counted int64
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM users").Scan(&counted); err != nil {
		t.Fatal(err)
	}
	if total := r.list("/users").Pagination.Total; total != counted || total == 50 {
		t.Errorf("total %d; the table has %d", total, counted)
	}
	if _, err := conn.Exec(t.Context(), "TRUNCATE users"); err != nil {
		t.Fatal(err)
	}
	if total := r.list("/users").Pagination.Total; total != 0 {
		t.Errorf("total %d after TRUNCATE", total)
	}
}

func TestReplicasThatStartTogetherMigrateAndSeedOnce(t *testing.T) {
	url := newDatabase()
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			p, err := NewPostgres(t.Context(), PostgresOptions{URL: url, Seed: 1000, PoolSize: 2, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Error(err)
				return
			}
			defer p.Close()
			var page Page
			if err := p.List(t.Context(), Query{Page: 1, Size: 1}, &page); err != nil || page.Total != 1000 {
				t.Errorf("total %d, %v; want 1,000", page.Total, err)
			}
		})
	}
	wg.Wait()
	r := start(t, Options{DatabaseURL: url, Seed: 5000})
	if total := r.list("/users").Pagination.Total; total != 1000 {
		t.Errorf("total %d; a table that is not empty must not be seeded", total)
	}
}

func TestStoresAgree(t *testing.T) {
	t.Parallel()
	p, err := NewPostgres(t.Context(), PostgresOptions{URL: newDatabase(), Seed: 40, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	stores := [2]Store{NewMemory(40), p}
	random := rand.New(rand.NewPCG(1, 2))
	roles := []string{"user", "admin", "editor"}
	draft := func() Draft {
		return Draft{Name: "N", Email: fmt.Sprintf("user%d@example.com", 1+random.IntN(80)),
			Role: roles[random.IntN(3)], PasswordHash: "h"}
	}
	// Ids differ, since PostgreSQL spends one on an insert that fails; so users
	// are chosen by address, and lists compared by addresses.
	ids := [2]map[string]int64{{}, {}}
	for i := range 40 {
		d, _ := seedUser(i)
		ids[0][d.Email], ids[1][d.Email] = int64(i+1), int64(i+1)
	}
	ctx := t.Context()
	for step := range 300 {
		d, target := draft(), draft().Email
		batch := []Draft{draft(), draft(), draft()}
		op := random.IntN(4)
		var outcome [2]string
		for i, s := range stores {
			id := ids[i][target]
			var created []User
			var err error
			switch op {
			case 0:
				created, err = s.Create(ctx, []Draft{d})
			case 1:
				created, err = s.Create(ctx, batch)
			case 2:
				var u User
				if u, err = s.Update(ctx, id, d); err == nil {
					delete(ids[i], target)
					created = []User{u}
				}
			case 3:
				if err = s.Delete(ctx, id); err == nil {
					delete(ids[i], target)
				}
			}
			for _, u := range created {
				ids[i][u.Email] = u.ID
			}
			outcome[i] = fmt.Sprint(op, len(created), err)
			for _, q := range []Query{
				{Page: 1, Size: 100}, {Page: 3, Size: 7}, {Kind: ByCursor, Size: 9},
				{Kind: ByRole, Role: "admin", Size: 100}, {Kind: ByRole, Role: "user", Size: 5},
			} {
				var page Page
				if err := s.List(ctx, q, &page); err != nil {
					t.Fatal(err)
				}
				outcome[i] += fmt.Sprint(" | ", page.Total, page.More)
				for _, u := range page.Users {
					outcome[i] += " " + u.Email + " " + u.Role
				}
			}
		}
		if outcome[0] != outcome[1] {
			t.Fatalf("step %d:\nmemory   %s\npostgres %s", step, outcome[0], outcome[1])
		}
	}
}

func TestKillingPostgresInABatchLeavesNothing(t *testing.T) {
	t.Parallel()
	pg := testenv.StartPostgres(t)
	r := start(t, Options{DatabaseURL: pg.URL(), Seed: 10})
	// Another transaction holds the address of the last row, so the copy waits
	// in the middle of the batch.
	conn := connect(t, pg.URL())
	if _, err := conn.Exec(t.Context(), "BEGIN; INSERT INTO users (name, email, password_hash, role) VALUES ('X', 'k10000@example.com', 'h', 'user')"); err != nil {
		t.Fatal(err)
	}
	watch := connect(t, pg.URL())
	answered := make(chan answer, 1)
	go func() {
		a, err := r.try("POST", "/users/batch", rows("k", 10_000))
		if err != nil {
			t.Error(err)
		}
		answered <- a
	}()
	poll(t, "copy that waits", func() bool {
		var waits bool
		err := watch.QueryRow(t.Context(),
			"SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ILIKE 'copy%')").Scan(&waits)
		if err != nil {
			t.Fatal(err)
		}
		return waits
	})
	pg.Kill()
	a := <-answered
	r.refused(503, a)
	if a.header.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
	pg.Restart()
	if l := r.list("/users"); l.Pagination.Total != 10 || len(l.Data) != 10 {
		t.Errorf("%d users; want the 10 of before", l.Pagination.Total)
	}
	r.want(201, r.send("POST", "/users/batch", rows("k", 10_000)))
}

// Reads survive a restart of the database although each connection of the pool
// is dead by then.
func TestReadsGoOnWhenPostgresIsRestarted(t *testing.T) {
	t.Parallel()
	pg := testenv.StartPostgres(t)
	r := start(t, Options{DatabaseURL: pg.URL(), Seed: 100, PoolSize: 8})
	var failing atomic.Bool
	var sent, refused atomic.Int64
	var wg sync.WaitGroup
	ended := make(chan struct{})
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-ended:
					return
				default:
				}
				mayFail := failing.Load()
				a, err := r.try("GET", "/users", "")
				mayFail = mayFail || failing.Load()
				sent.Add(1)
				switch {
				case err != nil:
					t.Error(err)
					return
				case a.status == 503:
					if refused.Add(1); !mayFail {
						t.Error("503 while the database is there")
						return
					}
				case a.status != 200:
					t.Errorf("status %d: %s", a.status, a.body)
					return
				}
			}
		})
	}
	for range 3 {
		sent.Store(0)
		poll(t, "round of requests", func() bool { return sent.Load() > 20 })
		failing.Store(true)
		pg.Kill()
		poll(t, "503 of /health", func() bool { return r.get("/health").status == 503 })
		pg.Restart()
		poll(t, "200 of /health", func() bool { return r.get("/health").status == 200 })
		// Those that were sent before may still be refused.
		poll(t, "200 of a read", func() bool { return r.get("/users").status == 200 })
		failing.Store(false)
	}
	close(ended)
	wg.Wait()
	if refused.Load() == 0 {
		t.Error("no request was refused while the database was dead")
	}
}

func TestFrozenPostgresIsRefusedInTime(t *testing.T) {
	t.Parallel()
	pg := testenv.StartPostgres(t)
	r := start(t, Options{DatabaseURL: pg.URL(), Seed: 10})
	r.list("/users")
	pg.Freeze()
	a := r.get("/health")
	if p := decode[map[string]string](t, r.want(503, a)); p["status"] != "down" || p["database"] != "disconnected" {
		t.Errorf("health %v", p)
	}
	a = r.get("/users")
	if r.refused(503, a); a.took > 4*queryTimeout {
		t.Errorf("refused after %v; want about %v", a.took, queryTimeout)
	}
	pg.Thaw()
	poll(t, "200 of a read", func() bool { return r.get("/users").status == 200 })
	poll(t, "200 of /health", func() bool { return r.get("/health").status == 200 })
}

func TestDatabaseThatComesLateIsWaitedFor(t *testing.T) {
	t.Parallel()
	pg := testenv.StartPostgres(t)
	pg.Kill()
	began := make(chan error, 1)
	go func() {
		p, err := NewPostgres(t.Context(), PostgresOptions{URL: pg.URL(), StartTimeout: time.Minute, Log: slog.New(slog.DiscardHandler)})
		if err == nil {
			p.Close()
		}
		began <- err
	}()
	select {
	case err := <-began:
		t.Fatalf("did not wait: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	pg.Restart()
	if err := <-began; err != nil {
		t.Error(err)
	}
}

func TestUselessDatabaseURLIsRefusedAtOnce(t *testing.T) {
	f := func(url string) {
		t.Helper()
		begin := time.Now()
		_, err := New(t.Context(), Options{DatabaseURL: url, StartTimeout: time.Minute})
		if err == nil || time.Since(begin) > 30*time.Second {
			t.Errorf("%s: error %v after %v", url, err, time.Since(begin))
		} else if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: error shows the password: %v", url, err)
		}
	}
	f("postgres://u:s3cret@127.0.0.1:port/db")
	f(strings.Replace(sharedPostgres().URL(), "/postgres?", "/nowhere?", 1))
}

func TestErrorsOfPostgresAreToldApart(t *testing.T) {
	p := &Postgres{}
	f := func(err error, unavailable bool) {
		t.Helper()
		if got := errors.Is(p.judge(err), ErrUnavailable); got != unavailable {
			t.Errorf("%v: unavailable %v; want %v", err, got, unavailable)
		}
	}
	f(nil, false)
	f(context.DeadlineExceeded, true)
	f(&net.OpError{Op: "read", Err: errors.New("reset")}, true)
	f(&ConflictError{Row: 1}, false)
	if !errors.Is(p.judge(pgx.ErrNoRows), ErrNotFound) {
		t.Error("no rows is not ErrNotFound")
	}
	for code, unavailable := range map[string]bool{"57P01": true, "57014": true, "53300": true, "40P01": true,
		"08006": true, "25006": true, "23505": false, "42601": false, "22021": false} {
		f(sqlError(code), unavailable)
	}
}

func sqlError(code string) error {
	return fmt.Errorf("query: %w", &pgconn.PgError{Code: code})
}
