package proxy

import (
	"strings"
	"testing"
	"time"

	"gateway/exchange"
	"gateway/middleware"
)

// signed is the field for a request, as of a moment.
func (r *running) signed(q Question, at time.Time) string {
	r.t.Helper()
	x := exchange.Acquire()
	defer exchange.Release(x)
	s := r.snapshot.Load()
	if err := q.fill(x, s.config.Client.Limits()); err != nil {
		r.t.Fatal(err)
	}
	return middleware.ExplainField + ": " + middleware.NewExplain(middleware.ExplainOptions{
		Secret: "0123456789abcdef0123456789abcdef", Window: time.Minute,
	}).Sign(x, at)
}

func TestSignedFieldIsAnsweredWithAnExplanation(t *testing.T) {
	servers, _ := echoes(t, 3)
	r := start(t, explainable, servers[0], servers[1], servers[2], "")
	now := time.Now()
	note := func(a answer) string { return a.Header.Get(middleware.ExplanationField) }
	expect := func(a answer, parts ...string) {
		t.Helper()
		for _, part := range parts {
			if !strings.Contains("; "+note(a)+";", "; "+part) {
				t.Errorf("%d %q; want %q", a.StatusCode, note(a), part)
			}
		}
	}
	field := r.signed(Question{URL: "http://test/c/fresh/1?x=2"}, now)
	expect(r.get("/c/fresh/1?x=2", field), "route=cached;", "line=", `not="moved:host api:host"`, "limit=missing:69;", `target="/c/fresh/1?x=2";`,
		"cache=miss;", "upstream=least:2/2;", `server="127.0.0.1:`, "attempts=1;", "coding=none:not_accepted;", "expected=origin:done;", "reason=done;")
	r.settled()
	a := r.get("/c/fresh/1?x=2", field) // once more within the window
	expect(a, "cache=hit;", "expected=cache:done;", "reason=done;")
	if strings.Contains(note(a), "server=") {
		t.Errorf("a hit names a server: %q", note(a))
	}
	expect(r.get("/none", r.signed(Question{URL: "http://test/none"}, now)), "route=;", "expected=gateway:no_route;", "reason=no_route;")

	silent := func(what, path string, fields ...string) {
		t.Helper()
		if got := note(r.get(path, fields...)); got != "" {
			t.Errorf("%s: %q", what, got)
		}
	}
	silent("without the field", "/c/fresh/1?x=2")
	silent("for another target", "/c/fresh/1?x=3", field)
	silent("of yesterday", "/c/fresh/1?x=2", r.signed(Question{URL: "http://test/c/fresh/1?x=2"}, now.Add(-24*time.Hour)))
	silent("of tomorrow", "/c/fresh/1?x=2", r.signed(Question{URL: "http://test/c/fresh/1?x=2"}, now.Add(24*time.Hour)))
	silent("for another host", "/c/fresh/1?x=2", r.signed(Question{URL: "http://other/c/fresh/1?x=2"}, now))
	silent("for another method", "/c/fresh/1?x=2", r.signed(Question{URL: "http://test/c/fresh/1?x=2", Method: "HEAD"}, now))
	silent("altered", "/c/fresh/1?x=2", field[:len(field)-1]+map[bool]string{true: "1", false: "0"}[field[len(field)-1] == '0'])
	for _, value := range []string{"", "t=", "t=1;mac=", "t=x;mac=00", "mac=00;t=1", "t=99999999999999999999;mac=00"} {
		silent(value, "/c/fresh/1?x=2", middleware.ExplainField+": "+value)
	}
}

func TestExplainFieldIsOneOfManyWithoutASecret(t *testing.T) {
	servers, _ := echoes(t, 1)
	r := start(t, "[upstream.app]\nservers = [%q]\n", servers[0])
	if a := r.get("/", r.signed(Question{URL: "http://test/"}, time.Now())); a.StatusCode != 200 || a.Header.Get(middleware.ExplanationField) != "" {
		t.Errorf("%d %v", a.StatusCode, a.Header)
	}
}
