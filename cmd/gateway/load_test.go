package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gateway/internal/loadgen"
	"gateway/internal/origin"
)

func TestLoadCommand(t *testing.T) {
	o := origin.Start(t, origin.Reply(origin.OK("hello")))
	url, dir := "http://"+o.Address+"/{n}", t.TempDir()
	before, after, page := filepath.Join(dir, "before.json"), filepath.Join(dir, "after.json"), filepath.Join(dir, "page.html")
	f := func(status int, stdout, stderr string, args ...string) {
		t.Helper()
		r := command(t, append([]string{"load"}, args...)...)
		if r.status != status || !strings.Contains(r.stdout, stdout) || !strings.Contains(r.stderr, stderr) {
			t.Errorf("gateway load %v: exit status %d, %q, %q\nwant %d, %q, %q", args, r.status, r.stdout, r.stderr, status, stdout, stderr)
		}
	}
	f(0, "100 answers in", "/s  p50 ", "-n", "100", "-c", "4", "--name", "first", "--json", before, "--html", page, url)
	f(0, "200: 50", "", "-q", "-n", "50", "-r", "1000", "--arrivals", "poisson", "-b", "body", "-H", "X-A: b", "--json", after, url)
	f(0, `"answered": 10,`, "", "-q", "-n", "10", "--format", "json", url)
	for file, want := range map[string]int64{before: 100, after: 50} {
		if r, err := loadgen.ReadReport(file); err != nil || r.Answered != want {
			t.Errorf("%s: %+v, %v; want %d answers", file, r, err, want)
		}
	}
	if text, err := os.ReadFile(page); err != nil || !strings.Contains(string(text), `"answered":100,`) {
		t.Errorf("the page has no report: %v", err)
	}
	f(0, "b/a", "", "--compare", before, after, "--html", page)

	f(1, "", "connection refused", "-q", "http://127.0.0.1:1/")
	f(1, "", "missing.json", "--compare", before, filepath.Join(dir, "missing.json"))
	f(2, "", "no URL", "-n", "1")
	f(2, "", `"ftp://a/"; want http://HOST/`, "ftp://a/")
	f(2, "", "--compare wants two reports", "--compare", before)
	f(2, "", "--arrivals \"late\"", "--arrivals", "late", url)
	f(2, "", "random arrivals need a rate", "--arrivals", "poisson", url)
	f(2, "", "--format \"xml\"", "--format", "xml", url)
	f(2, "", "no such file", "-f", filepath.Join(dir, "missing"))
}
