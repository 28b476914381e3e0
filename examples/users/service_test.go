package users

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestPagesAndTotals(t *testing.T) {
	onEachStore(t, Options{Seed: 250}, func(t *testing.T, r *replica) {
		f := func(path string, page, size, first, count int) {
			t.Helper()
			for range 2 { // the second may come from the cache
				l := r.list(path)
				p := l.Pagination
				if p.Page != page || p.PageSize != size || p.Total != 250 || p.TotalPages != int64((250+size-1)/size) {
					t.Errorf("%s: pagination %+v", path, p)
				}
				if len(l.Data) != count {
					t.Fatalf("%s: %d users; want %d", path, len(l.Data), count)
				}
				for i, u := range l.Data {
					want, created := seedUser(first - 1 + i)
					if u.ID != int64(first+i) || u.Name != want.Name || u.Email != want.Email || u.Role != want.Role ||
						!u.CreatedAt.Equal(created) || !u.UpdatedAt.Equal(created) {
						t.Errorf("%s: user %d is %+v; want %+v", path, i, u, want)
					}
				}
			}
		}
		f("/users", 1, 20, 1, 20)
		f("/users?page=1&page_size=20&colour=blue&colour=red", 1, 20, 1, 20)
		f("/users?page=13", 13, 20, 241, 10)
		f("/users?page=3&page_size=100", 3, 100, 201, 50)
		f("/users?page_size=1&page=250", 250, 1, 250, 1)
		f("/users?page=14", 14, 20, 0, 0)
		f("/users?page=92233720368547758&page_size=100", 92233720368547758, 100, 0, 0)
	})
}

func TestBadParametersAreNamed(t *testing.T) {
	r := start(t, Options{})
	f := func(path, parameter string) {
		t.Helper()
		if p := r.refused(400, r.get(path)); p.Parameter != parameter {
			t.Errorf("%s: parameter %q; want %q", path, p.Parameter, parameter)
		}
	}
	for _, bad := range []string{"", "0", "-1", "01", "1.5", "x", "%00", "92233720368547759", "99999999999999999999"} {
		f("/users?page="+bad, "page")
	}
	for _, bad := range []string{"", "0", "101", "abc"} {
		f("/users?page_size="+bad, "page_size")
	}
	for _, bad := range []string{"1", "1-", "-1", "x-1", "1-2-3", "1-99999999999999999999", "253402300800000000-1"} {
		f("/users?after="+bad, "after")
	}
	for _, bad := range []string{"", "Admin", "1st", "a%20b", "%FF", strings.Repeat("a", 33)} {
		f("/users?role="+bad, "role")
	}
	f("/users?page=1&page=1", "page")
	f("/users?page=1&after=", "after")
	f("/users?page=1&role=admin", "role")
	f("/users?after=&role=admin", "role")
	for _, bad := range []string{"0", "01", "x", "9223372036854775808", "-1"} {
		f("/users/"+bad, "id")
	}
	f("/slow?ms=30001", "ms")
	f("/stream?n=0", "n")
	f("/stream?n=1001", "n")
}

func TestKeysetWalkMeetsEachUserOnce(t *testing.T) {
	onEachStore(t, Options{Seed: 95}, func(t *testing.T, r *replica) {
		// The rows of a batch bear one creation time: their ids break the tie.
		r.want(201, r.send("POST", "/users/batch", rows("tie", 60)))
		for _, size := range []int{1, 7, 31, 100} {
			var ids []int64
			after := ""
			for {
				l := r.list(fmt.Sprintf("/users?after=%s&page_size=%d", after, size))
				if l.Pagination.PageSize != size || len(l.Data) == 0 {
					t.Fatalf("after %q: %d users, pagination %+v", after, len(l.Data), l.Pagination)
				}
				for _, u := range l.Data {
					ids = append(ids, u.ID)
				}
				if l.Pagination.NextAfter == nil {
					break
				}
				after = *l.Pagination.NextAfter
			}
			if len(ids) != 155 || !slices.IsSorted(ids) || len(slices.Compact(ids)) != 155 {
				t.Errorf("size %d: walk met %v; want 1 to 155 once each", size, ids)
			}
		}
		end := r.list("/users?after=253402300799999999-1")
		if len(end.Data) != 0 || end.Pagination.NextAfter != nil {
			t.Errorf("behind the end: %+v", end)
		}
	})
}

func TestRoleShowsTheNewestFirst(t *testing.T) {
	onEachStore(t, Options{Seed: 2000}, func(t *testing.T, r *replica) {
		f := func(path string, count int, first int64) {
			t.Helper()
			l := r.list(path)
			newer := func(a, b shown) int { return -1 * (a.CreatedAt.Compare(b.CreatedAt)*2 + int(a.ID-b.ID)) }
			if len(l.Data) != count || count > 0 && l.Data[0].ID != first || !slices.IsSortedFunc(l.Data, newer) {
				t.Errorf("%s: %d users %+v; want %d, user %d first", path, len(l.Data), l.Data, count, first)
			}
		}
		f("/users?role=editor", 100, 1991)
		f("/users?role=editor&page_size=5", 5, 1991)
		f("/users?role=admin", 20, 1901)
		f("/users?role=nobody", 0, 0)
		r.want(200, r.send("PUT", "/users/2", `{"name":"B","email":"b@example.com","role":"admin"}`))
		f("/users?role=admin", 21, 1901)
		r.want(204, r.send("DELETE", "/users/1901", ""))
		f("/users?role=admin", 20, 1801)
		r.want(201, r.send("POST", "/users", `{"name":"C","email":"c@example.com","role":"admin","password_hash":"h"}`))
		if l := r.list("/users?role=admin"); l.Data[0].Email != "c@example.com" || l.Data[20].ID != 1 {
			t.Errorf("after a new admin: %+v", l.Data)
		}
	})
}

func TestLifeOfAUser(t *testing.T) {
	onEachStore(t, Options{}, func(t *testing.T, r *replica) {
		a := r.send("POST", "/users", `{"name":"Ada \"A\" Ł","email":"Ada@Example.COM","password":"correct horse"}`)
		u := decode[shown](t, r.want(201, a))
		if u.Name != `Ada "A" Ł` || u.Email != "ada@example.com" || u.Role != "user" || u.ID < 1 ||
			time.Since(u.CreatedAt).Abs() > time.Minute || !u.CreatedAt.Equal(u.UpdatedAt) {
			t.Errorf("created %+v", u)
		}
		if at := fmt.Sprintf("/users/%d", u.ID); a.header.Get("Location") != at {
			t.Errorf("location %q; want %q", a.header.Get("Location"), at)
		}
		at := a.header.Get("Location")
		for range 2 {
			if got := decode[shown](t, r.want(200, r.get(at))); got != u {
				t.Errorf("read %+v; want %+v", got, u)
			}
		}
		if p := r.refused(409, r.send("POST", "/users", `{"name":"X","email":"ADA@example.com","password_hash":"h"}`)); p.Row != 1 || p.Field != "email" {
			t.Errorf("duplicate: %+v", p)
		}
		other := decode[shown](t, r.want(201, r.send("POST", "/users", `{"name":"O","email":"o@example.com","password_hash":"h"}`)))
		r.refused(409, r.send("PUT", fmt.Sprintf("/users/%d", other.ID), `{"name":"O","email":"ada@example.com"}`))

		changed := decode[shown](t, r.want(200, r.send("PUT", at, `{"name":"Ada","email":"ada@example.com","role":"admin"}`)))
		if changed.Name != "Ada" || changed.Role != "admin" || changed.UpdatedAt.Before(u.UpdatedAt) || !changed.CreatedAt.Equal(u.CreatedAt) {
			t.Errorf("changed %+v", changed)
		}
		if got := decode[shown](t, r.want(200, r.get(at))); got != changed {
			t.Errorf("read %+v; want %+v", got, changed)
		}
		if l := r.list("/users"); l.Pagination.Total != 2 || l.Data[0] != changed {
			t.Errorf("list %+v", l)
		}
		r.want(204, r.send("DELETE", at, ""))
		if l := r.list("/users"); l.Pagination.Total != 1 || l.Data[0].ID != other.ID {
			t.Errorf("list after delete %+v", l)
		}
		r.refused(404, r.get(at))
		r.refused(404, r.send("DELETE", at, ""))
		r.refused(404, r.send("PUT", at, `{"name":"Ada","email":"ada@example.com"}`))
		r.want(201, r.send("POST", "/users", `{"name":"Ada","email":"ada@example.com","password_hash":"h"}`))
	})
}

func TestPasswordIsHashedKeptAndNeverShown(t *testing.T) {
	o := Options{DatabaseURL: newDatabase()}
	r := start(t, o)
	store := r.service.store.(*Postgres)
	stored := func() (hash string) {
		if err := store.pool.QueryRow(t.Context(), "SELECT password_hash FROM users").Scan(&hash); err != nil {
			t.Fatal(err)
		}
		return hash
	}
	bodies := []string{
		r.want(201, r.send("POST", "/users", `{"name":"A","email":"a@example.com","password":"correct horse"}`)),
		r.want(200, r.get("/users/1")), r.want(200, r.get("/users")), r.want(200, r.get("/users?role=user")),
	}
	hash := stored()
	if !strings.HasPrefix(hash, "$2a$") {
		t.Errorf("stored hash %q; want bcrypt", hash)
	}
	bodies = append(bodies, r.want(200, r.send("PUT", "/users/1", `{"name":"B","email":"a@example.com"}`)))
	if stored() != hash {
		t.Error("an update without password changed the hash")
	}
	bodies = append(bodies, r.want(200, r.send("PUT", "/users/1", `{"name":"B","email":"a@example.com","password_hash":"given"}`)))
	if stored() != "given" {
		t.Errorf("stored hash %q; want the given one", stored())
	}
	for _, b := range bodies {
		if strings.Contains(b, "password") || strings.Contains(b, "hash") || strings.Contains(b, "$2a$") {
			t.Errorf("answer %s shows a password", b)
		}
	}
}

func TestBatchIsAllOrNothing(t *testing.T) {
	onEachStore(t, Options{Seed: 3}, func(t *testing.T, r *replica) {
		r.list("/users") // so that a cache has something to be wrong about
		post := func(body string) answer {
			t.Helper()
			return r.send("POST", "/users/batch", body)
		}
		f := func(body string, status, row int, field string) {
			t.Helper()
			if p := r.refused(status, post(body)); p.Row != row || p.Field != field {
				t.Errorf("%.60s…: %+v; want row %d, field %q", body, p, row, field)
			}
			if l := r.list("/users"); l.Pagination.Total != 3 || len(l.Data) != 3 {
				t.Fatalf("%.60s…: %d users; want the 3 of before", body, l.Pagination.Total)
			}
		}
		const (
			good  = `{"name":"G","email":"g@example.com","password_hash":"h"}`
			taken = `{"name":"T","email":"User2@example.com","password_hash":"h"}`
		)
		f(rows("a", 9999)+taken, 409, 10000, "email")
		f(rows("a", 9999)+`{"name":"","email":"x@example.com","password_hash":"h"}`, 400, 10000, "name")
		f(rows("a", 10001), 400, 10001, "")
		f(`[`+good+`,`+taken+`,`+taken+`]`, 409, 2, "email")
		f(`[`+good+`,`+strings.Replace(good, "g@", "G@", 1)+`,`+taken+`]`, 409, 2, "email")
		f(good+taken+good, 409, 2, "email")
		f(good+`{"name":"X","email":"no","password_hash":"h"}`, 400, 2, "email")
		f(good+`{"name":"X","email":"x@example.com","password_hash":"h","admin":"yes"}`, 400, 2, "admin")
		f(good+`{"name":"X","Email":"x@example.com","password_hash":"h"}`, 400, 2, "Email")
		f(good+`{"name":"X","name":"Y","email":"x@example.com","password_hash":"h"}`, 400, 2, "name")
		f(good+`{"name":1,"email":"x@example.com","password_hash":"h"}`, 400, 2, "name")
		f(good+`{"name":"X","email":"x@example.com"}`, 400, 2, "password")
		f(good+`{"name":"X","email":"x@example.com","password":"short"}`, 400, 2, "password")
		f(good+`{"name":"X","email":"x@example.com","password":"long enough","password_hash":"h"}`, 400, 2, "password")
		f(good+`{"name":"X","email":"x@example.com","password_hash":"h","role":"Not Good"}`, 400, 2, "role")
		f(good+`{"name":"X`, 400, 2, "name")
		f(good+`[]`, 400, 2, "")
		f(`[`+good, 400, 2, "")
		f(`[`+good+`]x`, 400, 0, "")
		f(`[]`, 400, 0, "")
		f(``, 400, 0, "")
		f(`null`, 400, 1, "")
		f(strings.ReplaceAll(rows("p", 101), "password_hash\":\"h", "password\":\"long enough"), 400, 101, "password")

		created := decode[struct {
			Created int
			IDs     []int64 `json:"ids"`
		}](t, r.want(201, post(rows("a", 10000))))
		if created.Created != 10000 || len(created.IDs) != 10000 {
			t.Fatalf("created %d users with %d ids; want 10,000", created.Created, len(created.IDs))
		}
		l := r.list("/users?page=1&page_size=100")
		if l.Pagination.Total != 10003 || l.Data[3].ID != created.IDs[0] || l.Data[3].Email != "a1@example.com" {
			t.Errorf("list after the batch: %+v, %+v", l.Pagination, l.Data[3])
		}
		last := decode[shown](t, r.want(200, r.get(fmt.Sprintf("/users/%d", created.IDs[9999]))))
		if last.Email != "a10000@example.com" {
			t.Errorf("last id of the batch belongs to %+v", last)
		}
		r.want(201, post(`[`+good+`]`))
		r.want(201, post(strings.ReplaceAll(rows("q", 100), "password_hash\":\"h", "password\":\"long enough")))
		if l := r.list("/users"); l.Pagination.Total != 10104 {
			t.Errorf("%d users; want 10,104", l.Pagination.Total)
		}
	})
}

func TestBodiesAreBounded(t *testing.T) {
	r := start(t, Options{})
	r.refused(413, r.send("POST", "/users", strings.Repeat(" ", maxBody+1)))
	r.refused(415, r.send("POST", "/users", "{}", "Content-Encoding: gzip"))
	r.refused(400, r.send("POST", "/users", "{\"name\":\"\xff\"}"))
	r.refused(400, r.send("POST", "/users", `{"name":"A","email":"a@example.com","password_hash":"h"} {}`))
}

func TestConditionalReads(t *testing.T) {
	onEachStore(t, Options{Seed: 30, CacheTTL: 30 * time.Second}, func(t *testing.T, r *replica) {
		later := time.Now().Add(time.Minute)
		r.service.now = func() time.Time { return later } // the seeds' second is over
		for _, path := range []string{"/users", "/users?after=", "/users?role=admin", "/users/7"} {
			a := r.get(path)
			r.want(200, a)
			tag, date := a.header.Get("ETag"), a.header.Get("Last-Modified")
			if tag == "" || date == "" || a.header.Get("Cache-Control") != "public, max-age=5" || a.header.Get("Content-Type") != "application/json" {
				t.Fatalf("%s: header %v", path, a.header)
			}
			if b := r.get(path); b.body != a.body || b.header.Get("ETag") != tag || b.header.Get("Last-Modified") != date {
				t.Errorf("%s: second answer differs: %v %s", path, b.header, b.body)
			}
			f := func(status int, headers ...string) {
				t.Helper()
				b := r.get(path, headers...)
				r.want(status, b)
				if b.header.Get("ETag") != tag || b.header.Get("Surrogate-Key") != a.header.Get("Surrogate-Key") {
					t.Errorf("%s %v: header %v; want that of the 200", path, headers, b.header)
				}
				if status == 304 && b.body != "" {
					t.Errorf("%s: 304 with body %q", path, b.body)
				}
			}
			f(304, "If-None-Match: "+tag)
			f(304, "If-None-Match: W/"+tag)
			f(304, `If-None-Match: "x", `+tag)
			f(304, "If-None-Match: *")
			f(200, `If-None-Match: "x"`)
			f(304, "If-Modified-Since: "+date)
			f(200, "If-Modified-Since: Mon, 01 Jan 2001 00:00:00 GMT")
			f(200, "If-Modified-Since: yesterday")
			f(200, `If-None-Match: "x"`, "If-Modified-Since: "+date)
			head := r.send("HEAD", path, "")
			if head.status != 200 || head.body != "" || head.header.Get("ETag") != tag ||
				head.header.Get("Content-Length") != strconv.Itoa(len(a.body)) {
				t.Errorf("HEAD %s: %d %v %q", path, head.status, head.header, head.body)
			}
		}
		if keys := r.get("/users?page_size=3").header.Get("Surrogate-Key"); keys != "users users-list user-1 user-2 user-3" {
			t.Errorf("surrogate keys of a list: %q", keys)
		}
		if keys := r.get("/users/7").header.Get("Surrogate-Key"); keys != "users user-7" {
			t.Errorf("surrogate keys of a user: %q", keys)
		}
		if keys := r.get("/users?role=admin").header.Get("Surrogate-Key"); keys != "users users-list role-admin user-1" {
			t.Errorf("surrogate keys of a role: %q", keys)
		}

		// A change changes the tag; its date is withheld until its second is
		// over.
		before := r.get("/users").header.Get("ETag")
		r.service.now = time.Now
		began := time.Now()
		r.want(200, r.send("PUT", "/users/7", `{"name":"Changed","email":"user7@example.com"}`))
		for _, path := range []string{"/users", "/users/7"} {
			a := r.get(path)
			if a.header.Get("ETag") == before ||
				a.header.Get("Last-Modified") != "" && time.Now().Unix() == began.Unix() {
				t.Errorf("%s after a change: %v", path, a.header)
			}
		}
	})
}

func TestSurrogateKeysAreBounded(t *testing.T) {
	r := acquireReply()
	defer r.release()
	r.addKey("users")
	r.addKey("users-list")
	r.addKey("role-" + strings.Repeat("r", maxRole))
	for range maxSize {
		r.addUserKey(1<<63 - 1)
	}
	if len(r.keys) > 2600 {
		t.Errorf("%d bytes of keys; want at most 2,600", len(r.keys))
	}
}

func TestPathsAndMethods(t *testing.T) {
	r := start(t, Options{Name: "replica-7"})
	for _, path := range []string{"/", "/nothing", "/users/", "/users/1/posts", "/Users"} {
		r.refused(404, r.get(path))
	}
	f := func(method, path, allow string) {
		t.Helper()
		a := r.send(method, path, "")
		r.refused(405, a)
		if a.header.Get("Allow") != allow {
			t.Errorf("%s %s: Allow %q; want %q", method, path, a.header.Get("Allow"), allow)
		}
	}
	f("DELETE", "/users", "GET, HEAD, POST")
	f("GET", "/users/batch", "POST")
	f("POST", "/users/1", "GET, HEAD, PUT, DELETE")
	f("POST", "/health", "GET, HEAD")
	if name := r.get("/fail").header.Get("X-Served-By"); name != "replica-7" {
		t.Errorf("served by %q", name)
	}
	if name := start(t, Options{}).get("/users").header.Get("X-Served-By"); !regexp.MustCompile(`^\S+:\d+$`).MatchString(name) {
		t.Errorf("served by %q; want hostname:port", name)
	}
}

func TestHealth(t *testing.T) {
	f := func(o Options, want map[string]string) {
		t.Helper()
		o.Version = "v1"
		r := start(t, o)
		a := r.get("/health")
		got := decode[map[string]string](t, r.want(200, a))
		if at, err := time.Parse(time.RFC3339, got["timestamp"]); err != nil || time.Since(at).Abs() > time.Minute {
			t.Errorf("timestamp %q: %v", got["timestamp"], err)
		}
		delete(got, "timestamp")
		want["version"] = "v1"
		if !maps.Equal(got, want) || a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("health %v, header %v; want %v", got, a.header, want)
		}
	}
	f(Options{}, map[string]string{"status": "ok", "database": "connected", "redis": "disconnected", "store": "memory"})
	f(Options{DatabaseURL: newDatabase(), RedisURL: sharedRedis().URL()},
		map[string]string{"status": "ok", "database": "connected", "redis": "connected", "store": "postgres"})
	f(Options{RedisURL: "redis://127.0.0.1:1"},
		map[string]string{"status": "degraded", "database": "connected", "redis": "disconnected", "store": "memory"})
}

func TestMetrics(t *testing.T) {
	r := start(t, Options{DatabaseURL: newDatabase(), RedisURL: sharedRedis().URL()})
	r.get("/users")
	r.get("/users?page=0")
	r.send("BREW", "/coffee", "")
	text := r.want(200, r.get("/metrics"))
	for _, line := range []string{
		`users_http_requests_total{route="/users",method="GET",status="200"} 1`,
		`users_http_requests_total{route="/users",method="GET",status="400"} 1`,
		`users_http_requests_total{route="other",method="OTHER",status="404"} 1`,
		`users_http_request_duration_seconds_count{route="/users",method="GET"} 2`,
		`users_http_in_flight 1`,
		`users_redis_breaker_open 0`,
		`users_cache_requests_total{result="miss"} 1`,
		`# TYPE users_http_request_duration_seconds histogram`,
		`# TYPE users_db_connections gauge`,
		`go_goroutines `,
		`process_open_fds `,
	} {
		if !strings.Contains(text, "\n"+line) {
			t.Errorf("metrics lack %q", line)
		}
	}
}

func TestSlowFailAndStream(t *testing.T) {
	r := start(t, Options{Name: "s"})
	a := r.get("/slow?ms=150")
	if r.want(200, a); a.took < 150*time.Millisecond {
		t.Errorf("slow took %v; want 150 ms", a.took)
	}
	r.refused(500, r.get("/fail"))
	a = r.get("/stream?n=2")
	want := "id: 1\ndata: {\"n\":1,\"served_by\":\"s\"}\n\nid: 2\ndata: {\"n\":2,\"served_by\":\"s\"}\n\n"
	if r.want(200, a) != want || a.header.Get("Content-Type") != "text/event-stream" || a.took < streamInterval {
		t.Errorf("stream: %q after %v, %v", a.body, a.took, a.header)
	}
	if a = r.send("HEAD", "/stream", ""); a.status != 200 || a.body != "" {
		t.Errorf("HEAD of a stream: %d %q", a.status, a.body)
	}
}

// panicking is a store with a bug.
type panicking struct{ Store }

func (panicking) User(context.Context, int64) (User, error) { panic("BUG: on purpose") }

func TestPanicIsAnAnswer(t *testing.T) {
	r := start(t, Options{Name: "p"})
	r.service.store = panicking{r.service.store}
	a := r.get("/users/1")
	if r.refused(500, a); a.header.Get("X-Served-By") != "p" || a.header.Get("ETag") != "" {
		t.Errorf("header %v", a.header)
	}
	r.want(200, r.get("/users"))
	if text := r.want(200, r.get("/metrics")); !strings.Contains(text, `{route="/users/{id}",method="GET",status="500"} 1`) {
		t.Error("the panic is not counted")
	}
}

func TestUnreadableRequestIsAnsweredAndCounted(t *testing.T) {
	r := start(t, Options{Name: "m"})
	f := func(request string, status int) {
		t.Helper()
		c, err := net.Dial("tcp", r.service.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.WriteString(c, request); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != status || resp.Header.Get("X-Served-By") != "m" {
			t.Errorf("%.40q: %d %v; want %d", request, resp.StatusCode, resp.Header, status)
		}
	}
	f("nonsense\r\n\r\n", 400)
	f("POST /users/batch HTTP/1.1\r\nHost: h\r\nContent-Length: "+strconv.Itoa(maxBatchBody+1)+"\r\n\r\n", 413)
	f("GET / HTTP/1.1\r\nHost: h\r\nX: "+strings.Repeat("x", maxHeader)+"\r\n\r\n", 431)
	if text := r.want(200, r.get("/metrics")); !strings.Contains(text, `{route="other",method="OTHER",status="400"} 1`) {
		t.Error("the malformed request is not counted")
	}
}
