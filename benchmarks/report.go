package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gateway/internal/loadgen"
)

// report is what a series of measurements found.
type report struct {
	Date     string            `json:"date"`
	Machine  string            `json:"machine"`
	Kernel   string            `json:"kernel"`
	Command  string            `json:"command"`
	Rounds   int               `json:"rounds"`
	Versions map[string]string `json:"versions"`
	Results  []result          `json:"results"`
}

// spread is the median of rounds, and what lies to both sides of it.
type spread struct {
	median, low, high float64
	rounds            int
}

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	v := slices.Sorted(slices.Values(values))
	m := v[len(v)/2]
	if len(v)%2 == 0 {
		m = (m + v[len(v)/2-1]) / 2
	}
	return spread{m, v[0], v[len(v)-1], len(v)}
}

// text is "18.0 (17.2–18.9)", the values in a unit of so much.
func (s spread) text(unit float64) string {
	if s.rounds == 0 {
		return "–"
	}
	f := func(v float64) string { return loadgen.FormatNumber(v / unit) }
	if s.rounds == 1 {
		return f(s.median)
	}
	return fmt.Sprintf("%s (%s–%s)", f(s.median), f(s.low), f(s.high))
}

// over collects a figure of the rounds of a rival in a scenario.
func (r *report) over(scenario, rival string, of func(*result) (float64, bool)) spread {
	var values []float64
	for i := range r.Results {
		if x := &r.Results[i]; x.Scenario == scenario && x.Rival == rival && x.Error == "" && x.Without == "" {
			if v, ok := of(x); ok {
				values = append(values, v)
			}
		}
	}
	return spreadOf(values)
}

func closedPart(of func(*part) float64) func(*result) (float64, bool) {
	return func(x *result) (float64, bool) {
		if x.Closed == nil {
			return 0, false
		}
		return of(x.Closed), true
	}
}

func fixedPart(of func(*part) float64) func(*result) (float64, bool) {
	return func(x *result) (float64, bool) {
		if x.Fixed == nil {
			return 0, false
		}
		return of(x.Fixed), true
	}
}

func perConn(x *result) (float64, bool) { return x.PerConn, x.PerConn != 0 }

func cpuOf(p *part) float64 { return p.CPU }

// line is one line of the summary, and one group of the plot.
type line struct {
	name, unit string
	scenario   string
	of         func(*result) (float64, bool)
	figures    map[string]spread // by rival
	best       string            // of the rivals, not of ours
}

// lines are the figures that count.
func (r *report) lines() (all []line) {
	add := func(name, scenario, unit string, of func(*result) (float64, bool)) {
		l := line{name: name, unit: unit, scenario: scenario, of: of, figures: map[string]spread{}}
		for _, v := range rivals {
			s := r.over(scenario, v.name, of)
			if s.rounds == 0 {
				continue
			}
			l.figures[v.name] = s
			if !ours(v.name) && (l.best == "" || s.median < l.figures[l.best].median) {
				l.best = v.name
			}
		}
		if len(l.figures) > 0 {
			all = append(all, l)
		}
	}
	for _, s := range scenarios {
		if s.idle > 0 {
			add(s.name, s.name, "bytes a connection", perConn)
			continue
		}
		add(s.name, s.name, "µs", closedPart(cpuOf))
		if s.name == "proxy-small" {
			add(fmt.Sprintf("%s at %s/s", s.name, loadgen.FormatNumber(s.rate)), s.name, "µs", fixedPart(cpuOf))
		}
	}
	return all
}

func ours(rival string) bool { return strings.HasPrefix(rival, "gateway") }

func (l *line) ratio(rival string) string {
	s, best := l.figures[rival], l.figures[l.best]
	if s.rounds == 0 || best.median == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f×", s.median/best.median)
}

// paired is the ratio to the best rival within each round: where the machine's
// speed changes from round to round, it says more than that of the medians.
func (r *report) paired(l *line, rival string) string {
	byRound := map[int][2]float64{}
	for i := range r.Results {
		x := &r.Results[i]
		if x.Scenario != l.scenario || x.Rival != rival && x.Rival != l.best {
			continue
		}
		if v, ok := l.of(x); ok {
			pair := byRound[x.Round]
			if x.Rival == rival {
				pair[0] = v
			} else {
				pair[1] = v
			}
			byRound[x.Round] = pair
		}
	}
	var ratios []float64
	for _, pair := range byRound {
		if pair[0] > 0 && pair[1] > 0 {
			ratios = append(ratios, pair[0]/pair[1])
		}
	}
	if len(ratios) == 0 {
		return "–"
	}
	s := spreadOf(ratios)
	return fmt.Sprintf("%.2f× (%.2f–%.2f)", s.median, s.low, s.high)
}

func (r *report) markdown(plot string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# The gateway and its rivals\n\n%s, kernel %s, %s; medians of %d interleaved rounds, in brackets the lowest and the highest.\n\n    %s\n\n", r.Machine, r.Kernel, r.Date, r.Rounds, r.Command)
	b.WriteString("How it is measured, and what the words mean: [performance.md](../../docs/performance.md).\n\n")
	if plot != "" {
		fmt.Fprintf(&b, "![CPU time of a request, as a ratio to the best rival](%s)\n\n", plot)
	}
	b.WriteString("| CPU time of a request | best rival | | gateway | ratio | in each round | with limit and access log | ratio |\n|---|---|---|---|---|---|---|---|\n")
	for _, l := range r.lines() {
		best := "–"
		if l.best != "" {
			best = l.figures[l.best].text(1)
		}
		unit := ""
		if l.unit != "µs" {
			unit = ", " + l.unit
		}
		fmt.Fprintf(&b, "| %s%s | %s | %s | %s | %s | %s | %s | %s |\n", l.name, unit, l.best, best, l.figures["gateway"].text(1), l.ratio("gateway"), r.paired(&l, "gateway"), l.figures["gateway-full"].text(1), l.ratio("gateway-full"))
	}
	b.WriteString("\n| | version | |\n|---|---|---|\n")
	for _, v := range rivals {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", v.name, r.Versions[v.name], v.tuning)
	}
	for i := range scenarios {
		r.detail(&b, &scenarios[i])
	}
	return b.String()
}

// detail is everything about one scenario.
func (r *report) detail(b *strings.Builder, s *scenario) {
	var rows, remarks []string
	for _, v := range rivals {
		var failed string
		for i := range r.Results {
			x := &r.Results[i]
			if x.Scenario != s.name || x.Rival != v.name {
				continue
			}
			if x.Without != "" {
				remarks = append(remarks, fmt.Sprintf("%s cannot take part: no %s", v.name, x.Without))
			}
			if x.Error != "" {
				failed = fmt.Sprintf("%s failed in round %d: %s", v.name, x.Round, strings.Join(strings.Fields(x.Error), " "))
			}
		}
		if failed != "" {
			remarks = append(remarks, failed)
		}
		c := func(of func(*part) float64) spread { return r.over(s.name, v.name, closedPart(of)) }
		f := func(of func(*part) float64) spread { return r.over(s.name, v.name, fixedPart(of)) }
		if s.idle > 0 {
			n := r.over(s.name, v.name, perConn)
			if n.rounds > 0 {
				base := r.over(s.name, v.name, func(x *result) (float64, bool) { return float64(x.Base), true })
				held := r.over(s.name, v.name, func(x *result) (float64, bool) { return float64(x.IdleHeld), true })
				used := r.over(s.name, v.name, func(x *result) (float64, bool) { return x.IdleCPU, true })
				rows = append(rows, fmt.Sprintf("| %s | %s | %.0f | %s | %.1f %% |", v.name, n.text(1), held.median, loadgen.FormatBytes(base.median), 100*used.median))
			}
			continue
		}
		if c(cpuOf).rounds == 0 {
			continue
		}
		noise := max(c(func(p *part) float64 { return p.Foreign }).high, 0)
		rows = append(rows, fmt.Sprintf("| %s | %s | %s | %.2f | %s | %s | %s | %s | %s | %s | %.0f %% |", v.name,
			c(cpuOf).text(1), c(func(p *part) float64 { return p.Rate }).text(1), c(func(p *part) float64 { return p.Share }).median, f(cpuOf).text(1),
			f(func(p *part) float64 { return p.P50 }).text(1e-6), f(func(p *part) float64 { return p.P99 }).text(1e-6), f(func(p *part) float64 { return p.P999 }).text(1e-6),
			loadgen.FormatBytes(float64(f(func(p *part) float64 { return float64(p.Resident) }).median)), loadgen.FormatNumber(c(func(p *part) float64 { return p.Body }).median), 100*noise))
	}
	if len(rows) == 0 && len(remarks) == 0 {
		return
	}
	fmt.Fprintf(b, "\n## %s\n\n%s", s.name, s.doc)
	if s.idle > 0 {
		b.WriteString("\n\n| | bytes a connection | connections | without them | CPU meanwhile |\n|---|---|---|---|---|\n")
	} else {
		fmt.Fprintf(b, "; %d connections, fixed rate %s/s\n\n| | CPU µs | answers/s | core | CPU µs, fixed | p50 µs | p99 µs | p99.9 µs | resident | bytes | noise |\n|---|---|---|---|---|---|---|---|---|---|---|\n", s.clients, loadgen.FormatNumber(s.rate))
	}
	b.WriteString(strings.Join(rows, "\n") + "\n")
	if len(remarks) > 0 {
		fmt.Fprintf(b, "\n%s.\n", strings.Join(remarks, "; "))
	}
}

// write keeps the report as JSON, Markdown and plot: name.json, name.md, name.svg.
func (r *report) write(name string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	for file, content := range map[string][]byte{".json": append(text, '\n'), ".md": []byte(r.markdown(filepath.Base(name) + ".svg")), ".svg": []byte(r.plot())} {
		if err := os.WriteFile(name+file, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func readReport(file string) (*report, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r := &report{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}
