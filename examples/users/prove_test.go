//go:build prove

package users

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestProve loads 1,000,000 users and shows what the indexes are worth. Its
// figures are for people; only the plan of the role query decides.
//
//	go test -tags prove -run TestProve -count=1 -v ./examples/users
func TestProve(t *testing.T) {
	const users, size = 1_000_000, 20
	const last = users / size // page 50,000
	url := newDatabase()
	begin := time.Now()
	r := start(t, Options{DatabaseURL: url, Seed: users})
	fmt.Printf("%d users loaded and indexed in %v\n\n", users, time.Since(begin).Round(time.Millisecond))
	conn := connect(t, url)
	if _, err := conn.Exec(t.Context(), "VACUUM ANALYZE users"); err != nil {
		t.Fatal(err)
	}

	rows, err := conn.Query(t.Context(), "EXPLAIN (ANALYZE, BUFFERS) "+roleQuery, "editor", maxSize)
	if err != nil {
		t.Fatal(err)
	}
	var plan strings.Builder
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			t.Fatal(err)
		}
		plan.WriteString("    " + line + "\n")
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("GET /users?role=editor\n%s\n", plan.String())
	if !strings.Contains(plan.String(), "Index Scan using users_role_newest") || strings.Contains(plan.String(), "Seq Scan on users ") {
		t.Error("the role query is not an index scan")
	}

	// The cursor in front of the last page, by the rule of the seeds.
	_, created := seedUser(users - size - 1)
	after := string(Cursor{created.UnixMicro(), users - size}.append(nil))
	cases := []struct{ name, path string }{
		{"keyset, page 1", "/users?after="},
		{fmt.Sprintf("keyset, page %d", last), "/users?after=" + after},
		{"offset, page 1", "/users?page=1"},
		{fmt.Sprintf("offset, page %d", last), fmt.Sprintf("/users?page=%d", last)},
		{"role, newest 100", "/users?role=editor"},
	}
	// In turns, so that whatever else the machine does hits all alike.
	times := make([][]time.Duration, len(cases))
	for range 200 {
		for i, c := range cases {
			if i == 3 && len(times[i]) == 20 {
				continue
			}
			a := r.get(c.path)
			if r.want(200, a); strings.Count(a.body, `"id":`) < size {
				t.Fatalf("%s: %.200s", c.path, a.body)
			}
			times[i] = append(times[i], a.took)
		}
	}
	fmt.Printf("%-22s %10s %10s %10s\n", "request", "median", "p95", "slowest")
	for i, c := range cases {
		slices.Sort(times[i])
		n := len(times[i])
		fmt.Printf("%-22s %10v %10v %10v\n", c.name, times[i][n/2].Round(time.Microsecond),
			times[i][n*95/100].Round(time.Microsecond), times[i][n-1].Round(time.Microsecond))
	}
}
