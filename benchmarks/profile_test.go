package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	pprofile "github.com/google/pprof/profile"
)

// stack is a sample with these functions, innermost first.
func stack(p *pprofile.Profile, delay int64, names ...string) {
	s := &pprofile.Sample{Value: []int64{1, delay}}
	for _, n := range names {
		f := &pprofile.Function{ID: uint64(len(p.Function) + 1), Name: n}
		l := &pprofile.Location{ID: f.ID, Line: []pprofile.Line{{Function: f}}}
		p.Function, p.Location = append(p.Function, f), append(p.Location, l)
		s.Location = append(s.Location, l)
	}
	p.Sample = append(p.Sample, s)
}

func contended() *pprofile.Profile {
	p := &pprofile.Profile{SampleType: []*pprofile.ValueType{{Type: "contentions", Unit: "count"}, {Type: "delay", Unit: "nanoseconds"}}}
	stack(p, 1e9, "sync.(*Mutex).Unlock", "gateway/a.put", "main")
	stack(p, 2e9, "internal/sync.(*Mutex).Unlock", "sync.(*Mutex).Unlock", "gateway/b.take")
	stack(p, 3e9, "sync.(*Mutex).Unlock", "gateway/a.put")
	stack(p, 1e9, "runtime.unlock", "runtime.park_m")
	return p
}

func TestDelaysAreThoseOfWhoReleasedTheLock(t *testing.T) {
	total, holders := delays(contended())
	want := []holder{{"gateway/a.put", 4}, {"gateway/b.take", 2}, {"runtime", 1}}
	if total != 7 || len(holders) != len(want) {
		t.Fatalf("%v s by %v", total, holders)
	}
	for i, h := range holders {
		if h != want[i] {
			t.Errorf("%d is %v; want %v", i, h, want[i])
		}
	}
}

func TestFlameGraphNeedsNothingFromElsewhere(t *testing.T) {
	dir := t.TempDir()
	file, page := filepath.Join(dir, "p.pb.gz"), filepath.Join(dir, "p.html")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := contended().Write(f); err != nil {
		t.Fatal(err)
	}
	if err := flameGraph(file, page); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(page)
	if err != nil || !strings.Contains(string(text), "gateway/b.take") {
		t.Fatalf("%d bytes without a function of the profile, %v", len(text), err)
	}
	if found := regexp.MustCompile(`(?i)<(script|img|link)[^>]+(src|href)\s*=|@import|\bfetch\(\s*["']http`).FindString(string(text)); found != "" {
		t.Errorf("the page has %q", found)
	}
}
