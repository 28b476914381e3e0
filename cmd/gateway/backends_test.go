package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"gateway/internal/testenv"
)

// outages is the demo with everything that a route may do while a database is
// down; the intervals are those of probes and checks.
const outages = `
listen = "${GATEWAY_LISTEN}"
admin  = "${GATEWAY_ADMIN}"
access_log = "off"

[upstream.users]
servers = ["${USERS_1:-}", "${USERS_2}", "${USERS_3}"]
health  = { path = "/health", interval = "%[2]v", timeout = "5s" }
keepalive_idle = "1s"

[dependency.pg]
url      = "${DATABASE_URL}"
interval = "%[1]v"
ready    = true

[dependency.redis]
url      = "${REDIS_URL}"
interval = "%[1]v"

[[route]]
name     = "fail"
path     = "/users/*"
upstream = "users"
needs    = ["pg"]

[[route]]
name         = "stale"
path         = "/stale/*"
upstream     = "users"
strip_prefix = "/stale"
needs        = ["pg"]
on_dependency_down = "serve_stale"

[[route]]
name         = "shed"
path         = "/shed/*"
upstream     = "users"
strip_prefix = "/shed"
needs        = ["pg"]
on_dependency_down = "shed_writes"

[[route]]
name         = "ignore"
path         = "/ignore/*"
upstream     = "users"
strip_prefix = "/ignore"
needs        = ["pg"]
on_dependency_down = "ignore"

[[route]]
name     = "free"
path     = "/slow"
upstream = "users"
`

// secret is the database's password, which nobody may tell.
const secret = "hunter2-is-secret"

// poolSize is how many connections to the database each replica may have.
const poolSize = 6

// backed is a site with its backends.
type backed struct {
	*site
	pg, redis *testenv.Server
}

// startBacked starts all of them, with these intervals of probes and checks.
func startBacked(t *testing.T, interval, checks time.Duration) *backed {
	t.Helper()
	b := &backed{pg: testenv.StartPostgres(t), redis: testenv.StartRedis(t)}
	u, err := url.Parse(b.pg.URL())
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(u.User.Username(), secret) // any will do
	b.site = demonstrate(t, []string{
		"DATABASE_URL=" + u.String(), "REDIS_URL=" + b.redis.URL(), fmt.Sprintf("DB_POOL_SIZE=%d", poolSize),
	}, fmt.Sprintf(outages, interval, checks))
	b.untilHealth("connected", "connected")
	b.until("all servers are up", func() bool { return b.metrics().sum("gateway_upstream_up{") == 3 })
	return b
}

// query asks the database for a number.
func (b *backed) query(sql string, args ...any) (n int64) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, b.pg.URL())
	if err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close(ctx)
	if err := conn.QueryRow(ctx, sql, args...).Scan(&n); err != nil {
		b.t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// habits are those of the 32 clients: reads and writes on each kind of route.
func habits() []habit {
	read := func(prefix string) func(client, number int) (string, string, string) {
		return func(client, number int) (string, string, string) {
			if number%8 == 7 {
				return "GET", fmt.Sprintf("%s/users?page=%d", prefix, 1+number%50), ""
			}
			return "GET", fmt.Sprintf("%s/users/%d", prefix, 1+(client*977+number*31)%10000), ""
		}
	}
	write := func(prefix string) func(client, number int) (string, string, string) {
		return func(client, number int) (string, string, string) {
			return "PUT", fmt.Sprintf("%s/users/%d", prefix, 1+client),
				fmt.Sprintf(`{"name":"Writer %d","email":"writer%d@example.org","role":"writer"}`, number, client)
		}
	}
	return []habit{
		{"fail, reads", "fail", read("")},
		{"fail, writes", "fail", write("")},
		{"serve_stale, reads", "stale", read("/stale")},
		{"shed_writes, reads", "shed", read("/shed")},
		{"shed_writes, writes", "shed", write("/shed")},
		{"ignore, reads", "ignore", read("/ignore")},
		{"ignore, writes", "ignore", write("/ignore")},
		{"no needs", "free", func(int, int) (string, string, string) { return "GET", "/slow?ms=1", "" }},
	}
}

const crowdSize = 32

// TestBackendsFailUnderLoad kills and freezes the backends under the eyes of a
// crowd, which must see what the routes promise and nothing else.
func TestBackendsFailUnderLoad(t *testing.T) {
	failBackends(t, 500*time.Millisecond, 300*time.Millisecond, 5)
}

func failBackends(t *testing.T, interval, checks time.Duration, rounds int) {
	b := startBacked(t, interval, checks)
	warm := gather(t, b.gateway, crowdSize, habits())
	warm.proceed(2000)
	warm.leave()
	base := b.rest()

	before := b.metrics()
	c := gather(t, b.gateway, crowdSize, habits())
	began := c.proceed(2000)

	// Postgres is killed.
	killed := time.Now()
	b.pg.Kill()
	b.untilHealth("disconnected", "connected")
	down := time.Now()
	b.explains()
	c.proceed(2000)
	for end := time.Now().Add(4 * checks); time.Now().Before(end); {
		b.allInUse()
		time.Sleep(100 * time.Millisecond)
	}
	if r := b.look("/readyz"); r.status != 503 {
		t.Errorf("/readyz without the database that readiness depends on: %d", r.status)
	}
	stillDown := time.Now()
	b.pg.Restart()
	back := time.Now()
	b.untilHealth("connected", "connected")
	up := time.Now()
	c.proceed(2000)
	upStill := time.Now()

	// Redis freezes.
	frozen := time.Now()
	b.redis.Freeze()
	b.untilHealth("connected", "disconnected")
	if status, _ := b.health(); status != 503 {
		t.Errorf("/healthz without Redis: %d", status)
	}
	if r := b.look("/readyz"); r.status != 200 {
		t.Errorf("/readyz without Redis: %d", r.status)
	}
	time.Sleep(2 * time.Second) // the services try Redis again each second
	c.proceed(2000)
	b.allInUse()
	thawed := time.Now()
	b.redis.Thaw()
	b.untilHealth("connected", "connected")

	// Both are killed, again and again.
	for range rounds {
		b.redis.Kill()
		b.pg.Kill()
		b.untilHealth("disconnected", "disconnected")
		c.proceed(200)
		b.allInUse()
		b.redis.Restart()
		b.pg.Restart()
		b.untilHealth("connected", "connected")
		c.proceed(200)
	}
	well := time.Now()
	c.proceed(1000)
	c.leave()
	end := time.Now()

	// What the crowd has seen.
	good := func(when string, notes []note) {
		t.Helper()
		for _, n := range notes {
			if n.status != 200 {
				t.Fatalf("%s: %s: status %d after %v", when, n.habit.name, n.status, n.took)
			}
		}
		if len(notes) < 500 {
			t.Errorf("%s: %d answers", when, len(notes))
		}
	}
	good("before", c.within(began, killed))
	median, longest := waits(c.within(began, killed))
	t.Logf("all is well: an answer takes %v, %v at most", median, longest)

	flip, refused := time.Time{}, map[string][]note{}
	for _, n := range c.within(killed, stillDown) {
		if n.own && flip.IsZero() {
			flip = n.ended()
		}
		switch name := n.habit.name; {
		case n.status != 200 && n.status != 503, n.own && !n.right:
			t.Fatalf("Postgres is down: %s: status %d, %+v", name, n.status, n)
		case n.habit.route == "free" && n.status != 200:
			t.Fatalf("Postgres is down: %s: status %d", name, n.status)
		case n.begun.Before(down):
		case name == "fail, reads", name == "fail, writes", name == "serve_stale, reads", name == "shed_writes, writes":
			if n.status != 503 || !n.own {
				t.Fatalf("Postgres is down: %s: status %d, the gateway's own: %v", name, n.status, n.own)
			}
			refused[name] = append(refused[name], n)
		case n.own:
			t.Fatalf("Postgres is down: %s: does not pass", name)
		}
	}
	if len(refused) != 4 {
		t.Errorf("refused: %d kinds of requests", len(refused))
	}
	t.Logf("Postgres is killed: the first 503 of the gateway comes after %v (probes each %v, 3 have to fail)", flip.Sub(killed).Round(time.Millisecond), interval)
	if late := flip.Sub(killed) - 4*interval; late > 2*time.Second {
		t.Errorf("that is %v too late", late)
	}
	for name, notes := range refused {
		median, longest := waits(notes)
		t.Logf("Postgres is down: %s: 503 takes %v, %v at most, %d times", name, median, longest, len(notes))
		if median > 100*time.Millisecond {
			t.Errorf("Postgres is down: %s: 503 does not come at once", name)
		}
	}
	last := back
	for _, n := range c.within(stillDown, upStill) {
		if n.status != 200 && n.begun.After(last) {
			last = n.begun
		}
	}
	t.Logf("Postgres is back: the last 503 is asked for %v later", last.Sub(back).Round(time.Millisecond))
	if late := last.Sub(back) - interval; late > 2*time.Second {
		t.Errorf("that is %v too late", late)
	}
	good("Postgres is back", c.within(later(up, last), upStill))

	good("Redis is frozen", c.within(frozen, thawed))
	median, longest = waits(c.within(frozen, thawed))
	t.Logf("Redis is frozen: an answer takes %v, %v at most, of which Redis may take 100ms", median, longest)
	if longest > 3*time.Second { // what go-redis allows a read without that deadline
		t.Errorf("that is too long")
	}
	good("both are back", c.within(well, end))

	// The counters add up.
	seen, own := map[string]float64{}, 0.0
	for _, n := range c.noted {
		seen[fmt.Sprintf(`{route=%q,status="%d"}`, n.habit.route, n.status)]++
		if n.own {
			own++
		}
	}
	t.Logf("%d answers: %v", len(c.noted), seen)
	b.until("everything is counted", func() bool { return b.metrics().sum("gateway_http_in_flight") == 0 })
	after := b.metrics()
	var total float64
	for key, n := range seen {
		parts := strings.Split(strings.Trim(key, "{}"), ",")
		counted := after.sum("gateway_http_requests_total{", parts[0], parts[1]) - before.sum("gateway_http_requests_total{", parts[0], parts[1])
		if counted != n {
			t.Errorf("requests%s: counted %v, seen %v", key, counted, n)
		}
		total += counted
	}
	if all := after.sum("gateway_http_requests_total{") - before.sum("gateway_http_requests_total{"); all != total {
		t.Errorf("%v requests counted, %v seen", all, total)
	}
	for reason, n := range map[string]float64{"dependency_down": own, "done": total - own} {
		name := fmt.Sprintf("gateway_ended_total{reason=%q}", reason)
		if counted := after[name] - before[name]; counted != n {
			t.Errorf("%s: counted %v, seen %v", name, counted, n)
		}
	}
	for _, name := range []string{`to="down"`, "gateway_upstream_ejections_total", "gateway_panics_total"} {
		if n := after.sum(name); n != 0 {
			t.Errorf("%s: %v; want none", name, n)
		}
	}

	// Nothing is left behind.
	b.settled("goroutines of the gateway", base["go_goroutines"], func() float64 { return b.metrics()["go_goroutines"] })
	b.settled("descriptors of the gateway", base["process_open_fds"], func() float64 { return b.metrics()["process_open_fds"] })
	for i, address := range b.users {
		b.settled(fmt.Sprintf("goroutines of users-%d", i+1), base[address]+2*poolSize, func() float64 { return b.replica(address)["go_goroutines"] })
	}
	b.settled("connections of the users services to Postgres", 3*(poolSize+1), func() float64 {
		return float64(b.query("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'users'"))
	})
	b.settled("connections of the gateway to Postgres", 1, func() float64 {
		return float64(b.query("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'gateway'"))
	})
	b.settled("connections of all to Redis", 3*redisPoolSize+2, func() float64 {
		list, err := redisClient(b.redis.Addr(), "CLIENT LIST")
		if err != nil {
			t.Fatal(err)
		}
		return float64(strings.Count(list, "id="))
	})
	b.tellsNoSecret()
}

// redisPoolSize is the default of REDIS_POOL_SIZE. The gateway's probe and
// whoever counts have a connection each.
const redisPoolSize = 10

// redisClient sends a command that is answered with one text.
func redisClient(address, command string) (text string, err error) {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	var length int
	in := bufio.NewReader(conn)
	if _, err = fmt.Fprintf(conn, "%s\r\n", command); err == nil {
		_, err = fmt.Fscanf(in, "$%d\r\n", &length)
	}
	if err != nil {
		return "", fmt.Errorf("ask Redis: %w", err)
	}
	body := make([]byte, length)
	_, err = io.ReadFull(in, body)
	return string(body), err
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// rest waits until the gateway is at rest after a crowd, and tells what it has
// open then, and by address how many goroutines the replicas have.
func (b *backed) rest() samples {
	b.t.Helper()
	b.until("idle connections are closed", func() bool {
		m := b.metrics()
		return m.sum("gateway_upstream_connections{") == 0 && m.sum("gateway_connections_active{") == 0
	})
	most := samples{}
	for range 3 {
		time.Sleep(time.Second) // the gateway looks at itself once a second
		m := b.metrics()
		for _, name := range []string{"go_goroutines", "process_open_fds"} {
			most[name] = max(most[name], m[name])
		}
		for _, address := range b.users {
			most[address] = max(most[address], b.replica(address)["go_goroutines"])
		}
	}
	if most["go_goroutines"] == 0 || most["process_open_fds"] == 0 || most[b.users[0]] == 0 {
		b.t.Errorf("no metrics: %v", most)
	}
	return most
}

// replica are the metrics of a user service.
func (b *backed) replica(address string) samples {
	b.t.Helper()
	return b.scrape("http://" + address + "/metrics")
}

// allInUse fails the test unless all servers are up and may be picked.
func (b *backed) allInUse() {
	b.t.Helper()
	type server struct {
		Address, State, Reason string
		Usable                 bool
	}
	status := decode[struct {
		Upstreams []struct{ Servers []server }
	}](b.t, b.look("/status").body)
	for _, s := range status.Upstreams[0].Servers {
		if s.State != "up" || !s.Usable {
			b.t.Errorf("a backend is down, and so is a server: %+v", s)
		}
	}
	if n := len(status.Upstreams[0].Servers); n != 3 {
		b.t.Errorf("%d servers", n)
	}
}

// explains fails the test unless the gateway says that Postgres is away, why,
// and that Redis is not.
func (b *backed) explains() {
	b.t.Helper()
	if status, d := b.health(); status != 503 || d["redis"] != "connected" {
		b.t.Errorf("/healthz without Postgres: %d, %v", status, d)
	}
	type dependency struct{ Name, Kind, State, Reason string }
	status := decode[struct{ Dependencies []dependency }](b.t, b.look("/status").body)
	if d := status.Dependencies; len(d) != 2 || d[0].State != "disconnected" || !strings.Contains(d[0].Reason, "connection refused") ||
		d[1] != (dependency{"redis", "redis", "connected", ""}) {
		b.t.Errorf("/status without Postgres: %+v", d)
	}
	m := b.metrics()
	if m[`gateway_dependency_up{dependency="pg"}`] != 0 || m[`gateway_dependency_up{dependency="redis"}`] != 1 {
		b.t.Errorf("gateway_dependency_up: %v", m.sum("gateway_dependency_up"))
	}
	b.tellsNoSecret()
}

// tellsNoSecret looks for the password wherever something is told.
func (b *backed) tellsNoSecret() {
	b.t.Helper()
	said := map[string]string{"standard output": b.stdout.String(), "standard error": b.stderr.String()}
	for _, path := range []string{"/status", "/healthz", "/config", "/metrics"} {
		said[path] = b.look(path).body
	}
	for where, text := range said {
		if strings.Contains(text, secret) {
			b.t.Errorf("%s tells the password", where)
		}
	}
}

// batch is a body for POST /users/batch of so many rows.
func batch(role string, rows int, last string) string {
	var text strings.Builder
	for i := range rows - 1 {
		fmt.Fprintf(&text, `{"name":"Row %d","email":"%s%d@example.org","role":%q,"password_hash":"h"}`+"\n", i+1, role, i+1, role)
	}
	text.WriteString(last)
	return text.String()
}

// TestBatchIsAllOrNothing sends batches of ten thousand rows through the
// gateway.
func TestBatchIsAllOrNothing(t *testing.T) {
	b := startBacked(t, 500*time.Millisecond, 300*time.Millisecond)
	const rows = 10_000
	row := func(role, email string) string {
		return fmt.Sprintf(`{"name":"Last","email":%q,"role":%q,"password_hash":"h"}`, email, role)
	}
	kept := func(role string) int64 { return b.query("SELECT count(*) FROM users WHERE role = $1", role) }

	for name, last := range map[string]struct {
		row    string
		status int
	}{
		"malformed": {`{"name":"Last"`, 400},
		"invalid":   {row("invalid", "no address"), 400},
		"taken":     {row("taken", "user42@example.com"), 409},
		"twice":     {row("twice", "twice1@example.org"), 409},
	} {
		r := b.ask("POST", "/users/batch", batch(name, rows, last.row))
		if blamed := decode[struct{ Row int }](t, r.body).Row; r.status != last.status || blamed != rows {
			t.Errorf("last row is %s: status %d, %s", name, r.status, r.body)
		}
		if n := kept(name); n != 0 {
			t.Errorf("last row is %s: %d rows are left behind", name, n)
		}
	}

	began := time.Now()
	whole := batch("whole", rows, row("whole", "last@example.org"))
	r := b.ask("POST", "/users/batch", whole)
	t.Logf("a batch of %d users, %d KiB, takes %v", rows, len(whole)>>10, time.Since(began).Round(time.Millisecond))
	if r.status != 201 || len(decode[struct{ IDs []int64 }](t, r.body).IDs) != rows || kept("whole") != rows {
		t.Errorf("status %d, %d users; %.100s", r.status, kept("whole"), r.body)
	}
	if n := b.query("SELECT count(DISTINCT xmin::text) FROM users WHERE role = 'whole'"); n != 1 {
		t.Errorf("%d transactions; want 1", n)
	}

	// Postgres is killed in the middle: the row before the last waits for
	// somebody else, who has not decided about the same address.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, b.pg.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	tx, err := conn.Begin(ctx)
	if err == nil {
		_, err = tx.Exec(ctx, "INSERT INTO users (name, email, role, password_hash) VALUES ('Other', $1, 'other', 'h')",
			fmt.Sprintf("cut%d@example.org", rows-1))
	}
	if err != nil {
		t.Fatal(err)
	}
	cut := batch("cut", rows, row("cut", "cut@example.org"))
	answered := make(chan reply, 1)
	go func() {
		r, err := b.try("POST", "http://"+b.gateway+"/users/batch", cut)
		if err != nil {
			t.Errorf("Postgres is killed in the middle: %v", err)
		}
		answered <- r
	}()
	b.until("the batch is in the middle", func() bool {
		return b.query("SELECT count(*) FROM pg_stat_activity WHERE query ILIKE 'copy%users%' AND wait_event_type = 'Lock'") == 1
	})
	b.pg.Kill()
	select {
	case r := <-answered:
		if r.status != 503 || r.header.Get("X-Served-By") == "" {
			t.Errorf("Postgres is killed in the middle: status %d, %s", r.status, r.body)
		}
	case <-time.After(patience):
		t.Fatal("Postgres is killed in the middle: no answer")
	}
	b.pg.Restart()
	if n := kept("cut"); n != 0 {
		t.Errorf("Postgres is killed in the middle: %d rows are left behind", n)
	}
	b.untilHealth("connected", "connected")
	// The first ones may still meet connections that are dead.
	b.until("the batch is taken", func() bool { return b.ask("POST", "/users/batch", cut).status == 201 })
	if n := kept("cut"); n != rows {
		t.Errorf("once more: %d users", n)
	}
}
