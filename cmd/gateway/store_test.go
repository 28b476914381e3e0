package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gateway/internal/testenv"
)

// user and list are what the user service tells.
type user struct {
	ID    int64  `json:"id"`
	Name  string `json:"name"`
	Email string `json:"email"`
	Role  string `json:"role"`
}

type list struct {
	Data       []user `json:"data"`
	Pagination struct {
		Page       int    `json:"page"`
		PageSize   int    `json:"page_size"`
		Total      int    `json:"total"`
		TotalPages int    `json:"total_pages"`
		NextAfter  string `json:"next_after"`
	} `json:"pagination"`
}

// TestDemoOnBothStores is the demo with its own configuration, from one end to
// the other.
func TestDemoOnBothStores(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		s := demonstrate(t, nil, "")
		if text := s.stdout.String(); !strings.Contains(text, "users     in memory") {
			t.Errorf("the demo does not say where users are kept:\n%s", text)
		}
		endToEnd(t, s, "memory", "disconnected", map[string]string{})
	})
	t.Run("postgres and redis", func(t *testing.T) {
		pg, redis := testenv.StartPostgres(t), testenv.StartRedis(t)
		s := demonstrate(t, []string{"DATABASE_URL=" + pg.URL(), "REDIS_URL=" + redis.URL()}, "")
		if text := s.stdout.String(); !strings.Contains(text, "users     in the database of DATABASE_URL, cached in the Redis of REDIS_URL") {
			t.Errorf("the demo does not say where users are kept:\n%s", text)
		}
		s.untilHealth("connected", "connected")
		endToEnd(t, s, "postgres", "connected", map[string]string{"pg": "connected", "redis": "connected"})
	})
}

// endToEnd is the test that is the same on both stores. In memory a replica does
// not know what the others were told: what belongs together is asked of one.
func endToEnd(t *testing.T, s *site, store, redis string, dependencies map[string]string) {
	want := func(r reply, status int) reply {
		t.Helper()
		if r.status != status {
			t.Fatalf("status %d, %.300s; want %d", r.status, r.body, status)
		}
		return r
	}
	// at asks until the answer comes from that replica: on Postgres any will
	// do, and in memory a write does no harm to the others, who know nothing
	// of the user.
	at := func(replica string, status int, method, path, body string) reply {
		t.Helper()
		for range 6 {
			r := s.ask(method, path, body)
			if store == "postgres" || r.header.Get("X-Served-By") == replica {
				return want(r, status)
			}
		}
		t.Fatalf("%s does not answer", replica)
		return reply{}
	}
	const me = `{"name":"Ada","email":%q,"role":"tester","password_hash":"h"}`

	t.Run("served by", func(t *testing.T) {
		seen := map[string]int{}
		for range 9 { // a page: single users come from the cache
			seen[want(s.ask("GET", "/users?page_size=1", ""), 200).header.Get("X-Served-By")]++
		}
		if seen["users-1"] != 3 || seen["users-2"] != 3 || seen["users-3"] != 3 {
			t.Errorf("served by %v", seen)
		}
	})
	t.Run("list", func(t *testing.T) {
		l := decode[list](t, want(s.ask("GET", "/users", ""), 200).body)
		if len(l.Data) != 20 || l.Data[0].ID != 1 || l.Pagination.Total != 10000 || l.Pagination.TotalPages != 500 {
			t.Errorf("%+v", l)
		}
		l = decode[list](t, want(s.ask("GET", "/users?role=admin&page_size=3", ""), 200).body)
		if len(l.Data) != 3 || l.Data[0].ID != 9901 || l.Data[2].ID != 9701 {
			t.Errorf("newest admins: %+v", l.Data)
		}
	})
	t.Run("page", func(t *testing.T) {
		l := decode[list](t, want(s.ask("GET", "/users?page=100&page_size=100", ""), 200).body)
		if len(l.Data) != 100 || l.Data[99].ID != 10000 || l.Pagination.Page != 100 {
			t.Errorf("last page: %+v", l.Pagination)
		}
		l = decode[list](t, want(s.ask("GET", "/users?after=&page_size=100", ""), 200).body)
		l = decode[list](t, want(s.ask("GET", "/users?page_size=1&after="+l.Pagination.NextAfter, ""), 200).body)
		if len(l.Data) != 1 || l.Data[0].ID != 101 {
			t.Errorf("after the first hundred: %+v", l.Data)
		}
	})
	t.Run("get", func(t *testing.T) {
		r := want(s.ask("GET", "/users/42", ""), 200)
		if u := decode[user](t, r.body); u.ID != 42 || u.Email != "user42@example.com" || r.header.Get("Etag") == "" || r.header.Get("Surrogate-Key") != "users user-42" {
			t.Errorf("%+v, %v", u, r.header)
		}
		want(s.ask("GET", "/users/99999999", ""), 404)
	})
	t.Run("create, update, delete", func(t *testing.T) {
		email := "ada@example.org"
		r := want(s.ask("POST", "/users", fmt.Sprintf(me, email)), 201)
		who, path := r.header.Get("X-Served-By"), r.header.Get("Location")
		if u := decode[user](t, r.body); u.Email != email || path != fmt.Sprintf("/users/%d", u.ID) {
			t.Errorf("created %+v at %s", u, path)
		}
		if u := decode[user](t, at(who, 200, "GET", path, "").body); u.Name != "Ada" || u.Role != "tester" {
			t.Errorf("%+v", u)
		}
		at(who, 409, "POST", "/users", fmt.Sprintf(me, "user42@example.com"))
		if u := decode[user](t, at(who, 200, "PUT", path, `{"name":"Grace","email":"grace@example.org","role":"tester"}`).body); u.Name != "Grace" {
			t.Errorf("%+v", u)
		}
		if u := decode[user](t, at(who, 200, "GET", path, "").body); u.Email != "grace@example.org" {
			t.Errorf("%+v", u)
		}
		at(who, 204, "DELETE", path, "")
		at(who, 404, "GET", path, "")
	})
	t.Run("batch", func(t *testing.T) {
		text := ""
		for i := range 100 {
			text += fmt.Sprintf(me, fmt.Sprintf("batch%d@example.org", i)) + "\n"
		}
		r := want(s.ask("POST", "/users/batch", text), 201)
		created := decode[struct{ IDs []int64 }](t, r.body)
		if len(created.IDs) != 100 {
			t.Fatalf("created %d", len(created.IDs))
		}
		who := r.header.Get("X-Served-By")
		last := at(who, 200, "GET", fmt.Sprintf("/users/%d", created.IDs[99]), "")
		if u := decode[user](t, last.body); u.Email != "batch99@example.org" {
			t.Errorf("%+v", u)
		}
		l := decode[list](t, at(who, 200, "GET", "/users?role=tester", "").body)
		if len(l.Data) != 100 || slices.ContainsFunc(l.Data, func(u user) bool { return !slices.Contains(created.IDs, u.ID) }) {
			t.Errorf("%d testers", len(l.Data))
		}
	})
	t.Run("health", func(t *testing.T) {
		h := decode[map[string]string](t, want(s.ask("GET", "/health", ""), 200).body)
		if h["status"] != "ok" || h["database"] != "connected" || h["redis"] != redis || h["store"] != store || h["version"] != "test" {
			t.Errorf("%v", h)
		}
		if _, err := time.Parse(time.RFC3339, h["timestamp"]); err != nil {
			t.Error(err)
		}
		status, all := s.health()
		if a, b := encode(all), encode(dependencies); status != 200 || a != b {
			t.Errorf("/healthz: %d, dependencies %s; want %s", status, a, b)
		}
	})
}

func encode(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}
