package loadgen

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

// WriteText writes the report for people at a terminal.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", r.Plan.Describe())
	for i, t := range r.Plan.Targets {
		if i == 5 {
			fmt.Fprintf(&b, "  … and %d more\n", len(r.Plan.Targets)-i)
			break
		}
		fmt.Fprintf(&b, "  %s\n", t)
	}
	fmt.Fprintf(&b, "\n  %s answers in %s: %s a second, %s/s in, %s/s out\n", group(r.Answered), FormatSeconds(r.Elapsed), FormatNumber(r.Rate),
		FormatBytes(float64(r.BytesIn)/r.Elapsed), FormatBytes(float64(r.BytesOut)/r.Elapsed))
	fmt.Fprintf(&b, "  status     %s\n", counts(r.Statuses))
	if r.Failed > 0 {
		fmt.Fprintf(&b, "  failed     %s", counts(r.Failures))
		if r.Cause != "" {
			fmt.Fprintf(&b, " (%s)", r.Cause)
		}
		b.WriteString("\n")
	}
	if r.Reconnects > 0 {
		fmt.Fprintf(&b, "  reconnects %s\n", group(r.Reconnects))
	}
	fmt.Fprintf(&b, "  CPU        %.0f %% of a core, %s a request\n", 100*r.CPU/r.Elapsed, FormatSeconds(r.CPU/max(1, float64(r.Answered))))

	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "\n  latency\tp50\tp75\tp90\tp95\tp99\tp99.9\tp99.99\tmax\tmean\tdeviation\t\n")
	row := func(name string, l *Latency) {
		fmt.Fprintf(t, "  %s\t", name)
		for _, v := range []float64{l.P50, l.P75, l.P90, l.P95, l.P99, l.P999, l.P9, l.Max, l.Mean, l.Dev} {
			fmt.Fprintf(t, "%s\t", FormatSeconds(v))
		}
		fmt.Fprint(t, "\n")
	}
	if r.Service == nil {
		row("", &r.Latency)
	} else {
		row("from due", &r.Latency)
		row("from sent", r.Service)
	}
	t.Flush()
	_, err := io.WriteString(w, b.String())
	return err
}

// Describe says in a line what the plan was.
func (p *PlanView) Describe() string {
	s := fmt.Sprintf("%s connections, %s", group(int64(p.Connections)), plural(p.Threads, "thread"))
	if p.Rate > 0 {
		s += fmt.Sprintf(", %s requests a second", FormatNumber(p.Rate))
		if p.Poisson {
			s += " at random intervals"
		}
	}
	if p.Duration > 0 {
		s += ", for " + FormatSeconds(p.Duration)
	}
	if p.Requests > 0 {
		s += fmt.Sprintf(", %s requests", group(p.Requests))
	}
	if p.Keys > 0 {
		s += fmt.Sprintf(", %s keys", group(int64(p.Keys)))
		if p.Zipf > 0 {
			s += fmt.Sprintf(" (Zipf %v)", p.Zipf)
		}
	}
	return s
}

func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

func counts(m map[string]int64) string {
	if len(m) == 0 {
		return "none"
	}
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s: %s", k, group(m[k])))
	}
	return strings.Join(parts, ", ")
}

// WriteComparison writes how b differs from a.
func WriteComparison(w io.Writer, a, b *Report) error {
	var s strings.Builder
	fmt.Fprintf(&s, "a  %s: %s\nb  %s: %s\n", a.Name, a.Plan.Describe(), b.Name, b.Plan.Describe())
	if a.Plan.Describe() != b.Plan.Describe() || !slices.Equal(a.Plan.Targets, b.Plan.Targets) {
		s.WriteString("The two runs did not do the same.\n")
	}
	t := tabwriter.NewWriter(&s, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "\n  \ta\tb\tb/a\tchange\t\n")
	row := func(name string, x, y float64, format func(float64) string) {
		fmt.Fprintf(t, "  %s\t%s\t%s\t", name, format(x), format(y))
		if x > 0 && y > 0 {
			fmt.Fprintf(t, "%.3f\t%+.1f %%\t\n", y/x, 100*(y/x-1))
		} else {
			fmt.Fprint(t, "\t\t\n")
		}
	}
	ra, spreadA := a.rates()
	rb, spreadB := b.rates()
	row("answers/s", ra, rb, FormatNumber)
	row("  ± each second", spreadA, spreadB, FormatNumber)
	row("failed", float64(a.Failed), float64(b.Failed), FormatNumber)
	for _, x := range []struct {
		name string
		of   func(*Latency) float64
	}{
		{"p50", func(l *Latency) float64 { return l.P50 }}, {"p90", func(l *Latency) float64 { return l.P90 }},
		{"p99", func(l *Latency) float64 { return l.P99 }}, {"p99.9", func(l *Latency) float64 { return l.P999 }},
		{"p99.99", func(l *Latency) float64 { return l.P9 }}, {"max", func(l *Latency) float64 { return l.Max }},
		{"mean", func(l *Latency) float64 { return l.Mean }},
	} {
		row(x.name, x.of(&a.Latency), x.of(&b.Latency), FormatSeconds)
	}
	row("CPU/request", a.CPU/max(1, float64(a.Answered)), b.CPU/max(1, float64(b.Answered)), FormatSeconds)
	t.Flush()
	_, err := io.WriteString(w, s.String())
	return err
}

// rates are the rate and the standard deviation of that of the whole seconds.
func (r *Report) rates() (rate, deviation float64) {
	var n, sum, squares float64
	for _, s := range r.Series {
		if s.Length > 0.9 {
			n, sum, squares = n+1, sum+s.Rate, squares+s.Rate*s.Rate
		}
	}
	if n > 1 {
		deviation = math.Sqrt(max(0, squares/n-(sum/n)*(sum/n)))
	}
	return r.Rate, deviation
}
