package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"gateway/internal/loadgen"
)

// loadOptions are the flags of gateway load.
type loadOptions struct {
	plan      loadgen.Plan
	arrivals  string
	method    string
	header    []string
	body      string
	file      string
	insecure  bool
	authority string
	name      string
	format    string
	json      string
	html      string
	quiet     bool
	compare   bool
}

func loadCommand() *cobra.Command {
	var o loadOptions
	cmd := &cobra.Command{
		Use:   "load [flags] URL...",
		Short: "Load a server and measure its answers",
		Long: `Send HTTP/1.1 requests over kept connections and measure the answers.

Without --rate each connection sends its next request when the last one is
answered, which finds out how much a server can do. With --rate requests are due
at their times whatever the server does, and latency counts from then, so that
everybody who would have waited behind a stall is counted: this finds out how
long clients wait. The intervals are constant, or random like those of many
independent clients (--arrivals poisson).

In URLs, header fields and bodies {n} becomes a number that no two requests
share, and {key} one of --keys numbers, both of ten digits. A file (--file) holds
requests of several kinds:

  # comment; a blank line ends a request
  GET http://localhost:8080/users/{key}
  Accept: application/json

  2 POST http://localhost:8080/users
  Content-Type: application/json
  = {"name":"user {n}"}

  PUT http://localhost:8080/blobs/{n}
  @blob.bin

with an optional weight in front, and a body after "= " or from a file.

Only load servers that are yours.`,
		Example: `  gateway load http://localhost:8080/
  gateway load --rate 3000 --duration 30s --html report.html http://localhost:8080/users/{key}
  gateway load --requests 100000 --json before.json http://localhost:8080/
  gateway load --compare before.json after.json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.compare {
				return compareLoads(cmd.OutOrStdout(), &o, args)
			}
			return runLoad(cmd.Context(), cmd.OutOrStdout(), os.Stderr, &o, args)
		},
	}
	f := cmd.Flags()
	f.IntVarP(&o.plan.Connections, "connections", "c", 64, "connections, open at the same time")
	f.IntVarP(&o.plan.Threads, "threads", "t", 0, "threads; 0: half of the processors")
	f.Float64VarP(&o.plan.Rate, "rate", "r", 0, "requests a second; 0: as many as the connections carry")
	f.StringVar(&o.arrivals, "arrivals", "constant", "of requests with --rate: constant or poisson")
	f.DurationVarP(&o.plan.Duration, "duration", "d", 0, "of the measurement; 10s when there is no --requests")
	f.Int64VarP(&o.plan.Requests, "requests", "n", 0, "end after so many requests")
	f.DurationVar(&o.plan.Warmup, "warmup", 0, "send for so long before, and do not count")
	f.DurationVar(&o.plan.Timeout, "timeout", 10*time.Second, "of a request")
	f.StringVarP(&o.method, "method", "X", "", "request method; GET, or POST with a body")
	f.StringArrayVarP(&o.header, "header", "H", nil, "header field \"Name: value\"; may be repeated")
	f.StringVarP(&o.body, "body", "b", "", "request body, or @FILE")
	f.StringVarP(&o.file, "file", "f", "", "file of requests, see above")
	f.IntVar(&o.plan.Keys, "keys", 1000, "how many different {key} there are")
	f.Float64Var(&o.plan.Zipf, "zipf", 0, "how unlike the keys' popularity is; 0: all alike, 1: usual on the web")
	f.Uint64Var(&o.plan.Seed, "seed", 1, "of everything random")
	f.BoolVarP(&o.insecure, "insecure", "k", false, "accept any certificate")
	f.StringVar(&o.authority, "ca", "", "PEM file of authorities to trust instead of the system's")
	f.StringVar(&o.name, "name", "", "name of this run in reports")
	f.StringVar(&o.format, "format", "text", "of the report on standard output: text or json")
	f.StringVar(&o.json, "json", "", "write the report as JSON to this file")
	f.StringVar(&o.html, "html", "", "write the report as one HTML page to this file")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "no progress")
	f.BoolVar(&o.compare, "compare", false, "compare two reports, JSON files, instead; with --html as a page too")
	return cmd
}

func runLoad(ctx context.Context, out, progress io.Writer, o *loadOptions, urls []string) error {
	if o.format != "text" && o.format != "json" {
		return usageError{fmt.Errorf("--format %q; want text or json", o.format)}
	}
	switch o.arrivals {
	case "constant":
	case "poisson":
		o.plan.Poisson = true
	default:
		return usageError{fmt.Errorf("--arrivals %q; want constant or poisson", o.arrivals)}
	}
	if err := o.targets(urls); err != nil {
		return usageError{err}
	}
	if err := o.plan.Complete(); err != nil {
		return usageError{err}
	}
	if err := o.trust(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	line := newProgressLine(progress, &o.plan)
	if o.quiet {
		line = nil
	}
	run, err := loadgen.Start(ctx, o.plan, line.show)
	if err != nil {
		return err
	}
	report := run.Wait()
	line.end()
	report.Generator = "gateway load " + buildVersion()
	report.Name = o.name
	if err := writeFile(o.json, report.WriteJSON); err != nil {
		return err
	}
	if err := writeFile(o.html, func(w io.Writer) error { return loadgen.WritePage(w, report) }); err != nil {
		return err
	}
	write := report.WriteText
	if o.format == "json" {
		write = report.WriteJSON
	}
	if err := write(out); err != nil {
		return err
	}
	if report.Answered == 0 {
		return errors.New("no request was answered")
	}
	return nil
}

// targets makes the plan's targets from the command line.
func (o *loadOptions) targets(urls []string) error {
	var common []loadgen.Field
	for _, h := range o.header {
		f, err := loadgen.ParseField(h)
		if err != nil {
			return err
		}
		common = append(common, f)
	}
	body := []byte(o.body)
	if name, ok := strings.CutPrefix(o.body, "@"); ok {
		var err error
		if body, err = os.ReadFile(name); err != nil {
			return fmt.Errorf("--body: %w", err)
		}
	}
	method := o.method
	if method == "" && len(body) > 0 {
		method = "POST"
	}
	for _, u := range urls {
		o.plan.Targets = append(o.plan.Targets, loadgen.Target{Method: method, URL: u, Header: common, Body: body, Weight: 1})
	}
	if o.file != "" {
		list, err := loadgen.ReadTargets(o.file)
		if err != nil {
			return err
		}
		for _, t := range list {
			t.Header = append(t.Header, common...)
			o.plan.Targets = append(o.plan.Targets, t)
		}
	}
	if len(o.plan.Targets) == 0 {
		return errors.New("no URL; want one or more, or --file")
	}
	return nil
}

func (o *loadOptions) trust() error {
	o.plan.TLS = &tls.Config{InsecureSkipVerify: o.insecure}
	if o.authority == "" {
		return nil
	}
	pem, err := os.ReadFile(o.authority)
	if err != nil {
		return fmt.Errorf("--ca: %w", err)
	}
	o.plan.TLS.RootCAs = x509.NewCertPool()
	if !o.plan.TLS.RootCAs.AppendCertsFromPEM(pem) {
		return fmt.Errorf("--ca: no certificate in %s", o.authority)
	}
	return nil
}

func compareLoads(out io.Writer, o *loadOptions, files []string) error {
	if len(files) != 2 {
		return usageError{fmt.Errorf("--compare wants two reports, JSON files; got %d", len(files))}
	}
	var reports [2]*loadgen.Report
	for i, f := range files {
		var err error
		if reports[i], err = loadgen.ReadReport(f); err != nil {
			return err
		}
	}
	if err := writeFile(o.html, func(w io.Writer) error { return loadgen.WritePage(w, reports[:]...) }); err != nil {
		return err
	}
	return loadgen.WriteComparison(out, reports[0], reports[1])
}

// writeFile writes a file whole; nothing when path is empty.
func writeFile(path string, write func(io.Writer) error) error {
	if path == "" {
		return nil
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

// progressLine shows how a load goes: one line that changes on a terminal, else
// a line a second. A nil one shows nothing.
type progressLine struct {
	out      io.Writer
	terminal bool
	plan     *loadgen.Plan
	width    int
	began    bool
}

func newProgressLine(out io.Writer, plan *loadgen.Plan) *progressLine {
	p := &progressLine{out: out, plan: plan}
	if f, ok := out.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil {
			p.terminal, p.width = true, int(size.Col)
		}
	}
	return p
}

func (p *progressLine) show(s loadgen.Second) {
	if p == nil {
		return
	}
	at := time.Duration((s.At + s.Length) * float64(time.Second)).Round(time.Second)
	text := fmt.Sprintf("%5s  %9s/s  p50 %-8s p90 %-8s p99 %-8s max %-8s", at, loadgen.FormatNumber(s.Rate),
		loadgen.FormatSeconds(s.P50), loadgen.FormatSeconds(s.P90), loadgen.FormatSeconds(s.P99), loadgen.FormatSeconds(s.Max))
	if s.Failed > 0 {
		text += fmt.Sprintf("  failed %s", loadgen.FormatNumber(float64(s.Failed)))
	}
	if !p.terminal {
		fmt.Fprintln(p.out, text)
		return
	}
	if p.plan.Duration > 0 {
		const cells = 20
		done := min(cells, int(cells*float64(at)/float64(p.plan.Duration)))
		text = "\x1b[36m" + strings.Repeat("━", done) + "\x1b[90m" + strings.Repeat("━", cells-done) + "\x1b[0m " + text
		if p.width > 0 && p.width < len([]rune(text))-15 { // without the escapes
			text = text[strings.Index(text, "\x1b[0m ")+5:]
		}
	}
	p.began = true
	fmt.Fprintf(p.out, "\r\x1b[2K%s", text)
}

// end leaves the terminal on a fresh line.
func (p *progressLine) end() {
	if p != nil && p.began {
		fmt.Fprint(p.out, "\r\x1b[2K")
	}
}
