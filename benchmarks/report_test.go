package main

import (
	"encoding/xml"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
)

// sample is a report of three rounds of two scenarios.
func sample() *report {
	r := &report{Machine: "machine", Kernel: "6", Date: "today", Command: "make bench-rivals", Rounds: 3, Versions: map[string]string{"nginx": "1.2.3"}}
	add := func(scenario, rival string, cpu ...float64) {
		for i, v := range cpu {
			r.Results = append(r.Results, result{Scenario: scenario, Rival: rival, Round: i + 1, Closed: &part{CPU: v, Rate: 1e6 / v}, Fixed: &part{CPU: 3 * v, P99: 0.001}})
		}
	}
	add("proxy-small", "gateway", 9, 8, 10)
	add("proxy-small", "gateway-full", 11, 11, 11)
	add("proxy-small", "nginx", 20, 22, 21)
	add("proxy-small", "haproxy", 18, 17, 100)
	r.Results = append(r.Results,
		result{Scenario: "proxy-small", Rival: "varnish", Round: 1, Error: "wrong answer: status 503"},
		result{Scenario: "cache-1k", Rival: "caddy", Without: "cache"},
		result{Scenario: "idle", Rival: "nginx", Round: 1, PerConn: 587, IdleHeld: 10000},
		result{Scenario: "idle", Rival: "gateway", Round: 1, PerConn: 240, IdleHeld: 10000})
	return r
}

func TestReportComparesMediansWithTheBestRival(t *testing.T) {
	text := sample().markdown("plot.svg")
	for _, want := range []string{
		"medians of 3 interleaved rounds", "make bench-rivals", "![CPU time of a request, as a ratio to the best rival](plot.svg)",
		"| proxy-small | haproxy | 18 (17–100) | 9 (8–10) | 0.50× | 0.47× (0.10–0.50) | 11 (11–11) | 0.61× |",
		"| proxy-small at 3,000/s | haproxy | 54 (51–300) | 27 (24–30) | 0.50× | 0.47× (0.10–0.50) |",
		"| idle, bytes a connection | nginx | 587 | 240 | 0.41× | 0.41× (0.41–0.41) | – | – |",
		"| nginx | 1.2.3 |", "varnish failed in round 1: wrong answer: status 503", "caddy cannot take part: no cache",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
}

func TestReportsAreKept(t *testing.T) {
	r, name := sample(), filepath.Join(t.TempDir(), "results", "x")
	if err := r.write(name); err != nil {
		t.Fatal(err)
	}
	again, err := readReport(name + ".json")
	if err != nil || again.markdown("") != r.markdown("") {
		t.Errorf("read %+v, %v", again, err)
	}
}

func TestPlotIsValidXML(t *testing.T) {
	text := sample().plot()
	dots := 0
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "title" {
			dots++
		}
	}
	if dots != 4+4+2 {
		t.Errorf("%d dots; want 10", dots)
	}
}

func TestSpread(t *testing.T) {
	f := func(want string, values ...float64) {
		t.Helper()
		if got := spreadOf(values).text(1); got != want {
			t.Errorf("%v: %q; want %q", values, got, want)
		}
	}
	f("–")
	f("5", 5)
	f("2 (1–3)", 3, 1, 2)
	f("2.50 (1–9)", 9, 1, 2, 3)
}
