package cache

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestRFC9111_4_UnsafeMethodsAreWrittenThrough(t *testing.T) {
	y := newPlay(t, policy())
	y.fill("GET /", nil, 200, "x", fresh)
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "FOO"} {
		if v := y.look(method + " /"); v != Bypass || y.l.Forward != ForwardMethod || y.l.Entry.Valid() {
			t.Errorf("%s: verdict %d, reason %s", method, v, y.l.Forward)
		}
	}
	y.expect(Bypass, "", "GET /", "Content-Length: 3") // the body may matter to the origin
	y.expect(Hit, "x", "GET /")
	y.expect(Hit, "x", "HEAD /")
}

func TestRFC9111_4_TheNewestOfSeveralResponsesCounts(t *testing.T) {
	y := newPlay(t, policy())
	fill := func(body, date string, answer string, asked ...string) {
		t.Helper()
		if reason := y.fill("GET /", asked, 200, body, "Cache-Control: max-age=3600", answer, "Date: Sun, 06 Nov 1994 08:"+date+" GMT"); reason != Storable {
			t.Fatal(reason)
		}
	}
	fill("bar", "49:20", "Vary: Bar", "Foo: 1", "Bar: 1")
	fill("foo", "49:10", "Vary: Foo", "Foo: 1", "Bar: 1") // came later, and is older
	y.expect(Hit, "bar", "GET /", "Foo: 1", "Bar: 1")
	y.expect(Hit, "foo", "GET /", "Foo: 1", "Bar: 2")
	fill("foo", "49:30", "Vary: Foo", "Foo: 1", "Bar: 1")
	y.expect(Hit, "foo", "GET /", "Foo: 1", "Bar: 1")
	// A response that does not vary takes the place of those that did, and the
	// other way round (section 4.1).
	fill("all", "49:31", "X: 1", "Foo: 2")
	y.expect(Hit, "all", "GET /", "Foo: 1")
	fill("foo", "49:32", "Vary: Foo", "Foo: 1")
	y.expect(Hit, "foo", "GET /", "Foo: 1")
	y.expect(Miss, "", "GET /", "Foo: 2")
}

func TestRFC9111_3_4_NewFieldsUpdateThoseOfTheCombinedResponse(t *testing.T) {
	y := newPlay(t, policy())
	part := func(span, body string, answer ...string) {
		t.Helper()
		if reason := y.fill("GET /", []string{"Range: bytes=" + span}, 206, body,
			append(answer, fresh, `ETag: "a"`, "Content-Range: bytes "+span+"/6")...); reason != Storable {
			t.Fatal(reason)
		}
	}
	part("0-2", "abc", "Content-Type: text/plain", "X: old", "Y: 1")
	part("3-5", "def", "X: new", "X: newer")
	y.expect(Hit, "abcdef", "GET /")
	y.look("GET /")
	defer y.l.Release()
	head := string(y.l.Entry.Head())
	if y.l.Entry.Status() != 200 || !strings.Contains(head, "Content-Type: text/plain\r\n") || !strings.Contains(head, "Y: 1\r\n") ||
		!strings.Contains(head, "X: new\r\nX: newer\r\n") || strings.Contains(head, "old") || strings.Contains(head, "Content-Range") ||
		strings.Count(head, "ETag") != 1 || strings.Count(head, "Date") != 1 {
		t.Errorf("status %d:\n%s", y.l.Entry.Status(), head)
	}
}

func TestRFC9111_3_1_TrailersAreNotMergedIntoFields(t *testing.T) {
	y := newPlay(t, policy())
	q := ask(t, "GET /")
	y.look("GET /")
	_, f, _ := y.c.Begin(&y.l, q, y.now, true)
	if reason := f.Response(y.origin(200, fresh), -1); reason != Storable {
		t.Fatal(reason)
	}
	r := f.Reader()
	defer r.Close()
	if err := f.Write([]byte("body")); err != nil {
		t.Fatal(err)
	}
	f.Finish([]byte("Cache-Control: no-store\r\nX-Trailer: 1\r\n"))
	if got, err := read(r); got != "body" || err != nil || string(r.Trailer()) != "Cache-Control: no-store\r\nX-Trailer: 1\r\n" {
		t.Errorf("%q, %v, trailer %q", got, err, r.Trailer())
	}
	y.expect(Hit, "body", "GET /")
	y.look("GET /")
	if head := y.l.Entry.Head(); bytes.Contains(head, []byte("X-Trailer")) || bytes.Contains(head, []byte("no-store")) {
		t.Errorf("stored:\n%s", head)
	}
	y.l.Release()
}

func TestRFC9111_4_3_3_FullAnswersReplaceWhatWasToBeValidated(t *testing.T) {
	y := newPlay(t, policy())
	y.fill("GET /", nil, 200, "old", fresh, `ETag: "a"`)
	y.pass(100)
	validate := func(status int, body string, answer ...string) NoStoreReason {
		t.Helper()
		if v := y.look("GET /"); v != Validate {
			t.Fatal("verdict", v)
		}
		q := ask(t, "GET /")
		_, f, _ := y.c.Begin(&y.l, q, y.now, true)
		defer y.l.Release()
		return f.Whole(y.origin(status, answer...), []byte(body))
	}
	// A failure that is not to be stored leaves what there is.
	if reason := validate(503, "down"); reason == Storable {
		t.Error("a failure without a lifetime is stored")
	}
	y.expect(Validate, "old", "GET /")
	if reason := validate(200, "new", fresh, `ETag: "b"`); reason != Storable {
		t.Error(reason)
	}
	y.expect(Hit, "new", "GET /")
}

func TestRFC9111_5_2_2_2_MustRevalidateWhileDisconnected(t *testing.T) {
	f := func(want bool, control string, asked ...string) {
		t.Helper()
		terms, _ := judge(t, policy(), nil, 200, "Cache-Control: "+control, `ETag: "a"`)
		q := ParseRequestControl(fields(t, asked...))
		if got := terms.MayDisconnected(&q); got != want {
			t.Errorf("%s, asked %q: %v", control, asked, got)
		}
	}
	f(true, "max-age=60")
	f(false, "max-age=60", "Cache-Control: no-cache")
	f(false, "max-age=60, must-revalidate")
	f(false, "max-age=60, proxy-revalidate")
	f(false, "s-maxage=60")
	f(false, "no-cache")
}

func TestRFC9111_4_2_4_StaleWhileDisconnected(t *testing.T) {
	p := policy(func(o *RouteOptions) { o.StaleIfDisconnected = time.Minute })
	f := func(want bool, age int64, control string, asked ...string) {
		t.Helper()
		terms, _ := judge(t, p, nil, 200, "Cache-Control: "+control, `ETag: "a"`)
		q := ParseRequestControl(fields(t, asked...))
		if got := p.MayUnanswered(&terms, &q, epoch+age*second, false); got != want {
			t.Errorf("%s after %d s, asked %q: %v", control, age, asked, got)
		}
		if policy().MayUnanswered(&terms, &q, epoch+age*second, false) {
			t.Errorf("%s after %d s, asked %q: and the option is off", control, age, asked)
		}
		if p.MayUnanswered(&terms, &q, epoch+age*second, true) {
			t.Errorf("%s after %d s, asked %q: and it was purged", control, age, asked)
		}
	}
	f(true, 61, "max-age=60")
	f(true, 119, "max-age=60")
	f(false, 120, "max-age=60")
	// The origin forbids it, or says itself how long.
	for _, control := range []string{"max-age=60, must-revalidate", "max-age=60, proxy-revalidate", "s-maxage=60", "max-age=60, no-cache",
		"max-age=60, stale-if-error=5", "max-age=60, stale-if-error=0"} {
		f(false, 66, control)
	}
	// So does the client.
	for _, control := range []string{"no-cache", "max-age=0", "max-age=600", "min-fresh=1", "max-stale=1", "stale-if-error=1"} {
		f(false, 66, "max-age=60", "Cache-Control: "+control)
	}
}

func TestRFC9111_5_2_3_UnknownDirectivesAreIgnored(t *testing.T) {
	for _, control := range []string{"max-age=60, foo", `max-age=60, foo="no-store, private", bar=1`, "community=x, max-age=60"} {
		if terms, reason := judge(t, policy(), nil, 200, "Cache-Control: "+control); reason != Storable || terms.Lifetime != 60*second {
			t.Errorf("%s: %s, %d", control, reason, terms.Lifetime)
		}
	}
}

// TestConformanceTable sees to it that docs/cache-conformance.md names tests that
// exist, at least one for each requirement, and all tests that are named after
// a section.
func TestConformanceTable(t *testing.T) {
	table, err := os.ReadFile("../../docs/cache-conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("git", "-C", "../..", "ls-files", "-co", "--exclude-standard", "*_test.go").Output()
	if err != nil {
		t.Skip("not a git work tree")
	}
	exists := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func (Test\w+|Fuzz\w+)\(`)
	own := map[string]bool{}
	for file := range strings.FieldsSeq(string(out)) {
		text, err := os.ReadFile(filepath.Join("../..", file))
		if err != nil {
			continue // removed and not yet committed
		}
		for _, m := range declared.FindAllSubmatch(text, -1) {
			exists[string(m[1])] = true
			if filepath.Dir(file) == "middleware/cache" && strings.HasPrefix(string(m[1]), "TestRFC") {
				own[string(m[1])] = false
			}
		}
	}
	name := regexp.MustCompile("`((?:Test|Fuzz)\\w+)`")
	rows := 0
	for i, line := range strings.Split(string(table), "\n") {
		cells := strings.Split(line, "|")
		if len(cells) < 5 || strings.HasPrefix(strings.TrimSpace(cells[1]), "-") || strings.Contains(line, "| level |") {
			continue
		}
		rows++
		tests := name.FindAllStringSubmatch(cells[len(cells)-2], -1)
		if len(tests) == 0 {
			t.Errorf("line %d names no test: %s", i+1, line)
		}
		for _, m := range tests {
			if !exists[m[1]] {
				t.Errorf("line %d names %s, which does not exist", i+1, m[1])
			}
			own[m[1]] = true
		}
	}
	if rows < 80 {
		t.Errorf("only %d requirements", rows)
	}
	for test, named := range own {
		if !named {
			t.Errorf("%s covers a section and is not in the table", test)
		}
	}
}
