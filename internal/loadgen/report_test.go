package loadgen

import (
	"bytes"
	"context"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/HdrHistogram/hdrhistogram-go"

	"gateway/internal/origin"
)

// measured is a report of a run with an answer of each kind.
func measured(t *testing.T, name string) *Report {
	t.Helper()
	o := origin.Start(t, origin.Reply(origin.OK("hello")))
	seconds := 0
	r, err := Start(context.Background(), Plan{Targets: []Target{{URL: "http://" + o.Address + "/{key}"}}, Rate: 300, Requests: 500, Connections: 4}, func(Second) { seconds++ })
	if err != nil {
		t.Fatal(err)
	}
	report := r.Wait()
	report.Name = name
	if seconds != len(report.Series) || seconds == 0 {
		t.Errorf("progress was shown %d times, the series has %d seconds", seconds, len(report.Series))
	}
	return report
}

func TestReportAgreesWithItself(t *testing.T) {
	r := measured(t, "one")
	h, err := hdrhistogram.Decode([]byte(r.Histogram))
	if err != nil || h.TotalCount() != r.Answered {
		t.Fatalf("the histogram has %v counts, %v; want %d", h, err, r.Answered)
	}
	if got := newLatency(h); math.Abs(got.P99-r.Latency.P99) > 1e-3*got.P99 || got.Max != r.Latency.Max {
		t.Errorf("the histogram says %+v, the report %+v", got, r.Latency)
	}
	last := Percent{}
	for _, p := range r.Curve {
		if p.Share < last.Share || p.Latency < last.Latency {
			t.Fatalf("the curve falls from %v to %v", last, p)
		}
		last = p
	}
	if last.Share != 1 || last.Latency < r.Latency.Max*0.999 {
		t.Errorf("the curve ends at %v; want the maximum of %v", last, r.Latency.Max)
	}

	path := filepath.Join(t.TempDir(), "report.json")
	var b bytes.Buffer
	if err := r.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if again, err := ReadReport(path); err != nil || !reflect.DeepEqual(again, r) {
		t.Errorf("read %+v, %v\nwritten %+v", again, err, r)
	}
}

func TestReportsThatAreNone(t *testing.T) {
	f := func(want, text string) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "x.json")
		os.WriteFile(path, []byte(text), 0o600)
		if _, err := ReadReport(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %s", text, err, want)
		}
	}
	f("not a report of a load", "<html>")
	f("a report of schema 0; want 1", "{}")
	f("a report of schema 7; want 1", `{"schema":7}`)
}

func TestComparison(t *testing.T) {
	a := &Report{Name: "before", Rate: 1000, Answered: 10, CPU: 1, Plan: PlanView{Targets: []string{"GET /"}}, Latency: Latency{P50: 0.001, Max: 0.5}}
	b := &Report{Name: "after", Rate: 1100, Answered: 10, CPU: 0.5, Failed: 3, Plan: PlanView{Targets: []string{"GET /x"}}, Latency: Latency{P50: 0.0005, Max: 0.5}}
	var out strings.Builder
	if err := WriteComparison(&out, a, b); err != nil {
		t.Fatal(err)
	}
	words := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"The two runs did not do the same.", "answers/s 1,000 1,100 1.100 +10.0 %", "failed 0 3 ", "p50 1 ms 500 µs 0.500 -50.0 %", "max 500 ms 500 ms 1.000 +0.0 %", "CPU/request 100 ms 50 ms 0.500",
	} {
		if !strings.Contains(words, want) {
			t.Errorf("the comparison lacks %q:\n%s", want, out.String())
		}
	}
}

func TestFormats(t *testing.T) {
	f := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%q; want %q", got, want)
		}
	}
	f(FormatSeconds(0), "0")
	f(FormatSeconds(0.0000123), "12.3 µs")
	f(FormatSeconds(0.00123), "1.23 ms")
	f(FormatSeconds(2), "2 s")
	f(FormatNumber(1234567), "1,234,567")
	f(FormatNumber(0.5), "0.5")
	f(FormatBytes(1536), "1.50 KiB")
}
