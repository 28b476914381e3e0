package middleware

import (
	"testing"
	"time"

	"gateway/exchange"
	"gateway/internal/clock"
	"gateway/upstream/dependency"
)

func TestNeedsDecideWhileADependencyIsDown(t *testing.T) {
	r := dependency.NewRegistry(dependency.RegistryOptions{})
	defer r.Close()
	o := dependency.Options{URL: "redis://127.0.0.1:1", Interval: time.Hour, Timeout: 10 * time.Second, Fails: 1, Passes: 1} // nobody is there
	set, err := r.Build(map[string]dependency.Options{"away": o, "none": {}})
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	for end := time.Now().Add(10 * time.Second); !set.Lookup("away").Down(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the dependency does not go down")
		}
	}
	f := func(mode, passing, state string, needs ...string) {
		t.Helper()
		n := NewNeeds(NeedsOptions{Needs: needs, OnDependencyDown: mode}, set)
		for _, m := range []string{"GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH", "BREW"} {
			x := ask(t, "192.0.2.1", m+" a /p")
			passes := n.Before(x)
			want := passing == "all" || passing == "safe" && (m == "GET" || m == "HEAD" || m == "OPTIONS")
			if passes != want {
				t.Errorf("%s, %s: passes %v", mode, m, passes)
			}
			if !passes && (x.Reason != exchange.DependencyDown || x.Response.Status != 503 ||
				values(x.Response.Header, "Retry-After") == "" || values(x.Response.Header, "Proxy-Status") != "gateway; error=destination_unavailable") {
				t.Errorf("%s, %s: %v, status %d", mode, m, x.Reason, x.Response.Status)
			}
		}
		if n.Down() != (state == "down") || n.Failing() != n.Down() || n.Doubtful(clock.Mono()) != n.Down() {
			t.Errorf("%s: down %v, failing %v", mode, n.Down(), n.Failing())
		}
	}
	f("fail", "none", "down", "away")
	f("serve_stale", "none", "down", "none", "away")
	f("shed_writes", "safe", "down", "away")
	f("ignore", "all", "down", "away")
	f("fail", "all", "", "none") // not probed
	f("fail", "all", "")         // nothing is needed
}
