package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"gateway/config"
	"gateway/proxy"
)

func explainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain URL",
		Short: "Tell what would become of a request, and why",
		Long: `Tell what would become of a request, and why: the route that matches and why
earlier ones do not, with lines of the file; the target that the origin sees,
limits and their keys, the cache's answer, the servers, the coding.

By itself it knows the file alone: nothing is stored then, every bucket is full,
and no server was asked. With --live it asks the gateway that runs with the
file, at its admin address, and with --address one anywhere else. Nothing is
sent to an origin, counted or taken for it.

With --sign it prints a field that makes a running gateway explain a request on
live traffic, in the field Gateway-Explanation of its answer ([explain]):

    curl -i -H "$(gateway explain --sign URL)" URL`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{fmt.Errorf("explain takes one URL, such as https://api.example.com/users")}
			}
			return nil
		},
	}
	at := newOperatorFlags(cmd)
	var q proxy.Question
	flags := cmd.Flags()
	flags.StringVarP(&q.Method, "request", "X", "GET", "method")
	flags.StringArrayVarP(&q.Fields, "header", "H", nil, `field of the request, "Name: value"; several`)
	flags.StringVar(&q.Client, "client", "127.0.0.1", "address that the request comes from")
	live := flags.Bool("live", false, "ask the gateway that runs with this configuration")
	asJSON := flags.Bool("json", false, "print JSON")
	sign := flags.Bool("sign", false, "print the field that makes a running gateway explain the request")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		q.URL = args[0]
		e, err := explained(cmd.Context(), at, *live, *sign, q)
		if err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		switch e := e.(type) {
		case string:
			_, err = fmt.Fprintln(out, e)
		case *proxy.Explanation:
			if *asJSON {
				encoder := json.NewEncoder(out)
				encoder.SetEscapeHTML(false)
				encoder.SetIndent("", "  ")
				return encoder.Encode(e)
			}
			_, err = out.Write(describe(e))
		}
		return err
	}
	return cmd
}

// explained is the explanation, or the signed field.
func explained(ctx context.Context, at operatorFlags, live, sign bool, q proxy.Question) (any, error) {
	if (live || *at.address != "") && !sign {
		o, err := at.open()
		if err != nil {
			return nil, err
		}
		return o.explain(ctx, q)
	}
	c, err := config.Load(*at.config)
	if err != nil {
		return nil, problems(err)
	}
	o, err := proxy.NewOffline(c)
	if err != nil {
		return nil, err
	}
	defer o.Close()
	if sign {
		return o.Sign(q)
	}
	return o.Explain(q)
}

// explain asks a running gateway.
func (o *operator) explain(ctx context.Context, q proxy.Question) (*proxy.Explanation, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	values := url.Values{"url": {q.URL}, "method": {q.Method}, "header": q.Fields, "client": {q.Client}}
	resp, err := o.do(ctx, "GET", "/explain?"+values.Encode())
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	const most = 16 << 20
	e := new(proxy.Explanation)
	if err := json.NewDecoder(io.LimitReader(resp.Body, most)).Decode(e); err != nil {
		return nil, fmt.Errorf("ask %s: unexpected answer: %w", o.shown, err)
	}
	return e, nil
}

// page is an explanation in the making: a margin of names, and lines.
type page struct {
	bytes.Buffer
	file string
}

// line writes a line under a name.
func (p *page) line(name, format string, args ...any) {
	fmt.Fprintf(p, "%-10s%s\n", name, fmt.Sprintf(format, args...))
}

// at is a place in the file, in brackets; "" without one.
func (p *page) at(line int) string {
	if line == 0 {
		return ""
	}
	return fmt.Sprintf("  (%s:%d)", p.file, line)
}

// maxMisses bounds the routes that are listed before the one that matches.
const maxMisses = 30

// describe is an explanation for people.
func describe(e *proxy.Explanation) []byte {
	p := &page{file: cmp.Or(e.File, "line")}
	q := &e.Request
	target := q.Path
	if q.Query != "" {
		target += "?" + q.Query
	}
	from := ""
	if q.Client != "" {
		from = "  from " + q.Client
	}
	p.line("request", "%s %s://%s%s%s", q.Method, q.Scheme, q.Host, target, from)
	p.routes(e)
	p.limits(e)
	for _, s := range e.Stages {
		result := "passed"
		if !s.Passed {
			result = "refused: " + s.Why
		}
		p.line(s.Stage, "%s", result)
	}
	if t := e.Target; t != nil {
		p.line("target", "%s %s, Host: %s", t.Method, t.Target, t.Host)
	}
	p.cache(e)
	p.pool(e)
	p.coding(e)
	for _, note := range e.Notes {
		p.line("note", "%s", note)
	}
	status := ""
	if e.Outcome.Status != 0 {
		status = fmt.Sprintf("%d ", e.Outcome.Status)
	}
	if to := e.Outcome.Location; to != "" {
		p.line("location", "%s", to)
	}
	p.line("outcome", "%s%s (%s, by the %s)", status, e.Outcome.Text, e.Outcome.Reason, e.Outcome.By)
	return p.Bytes()
}

func (p *page) routes(e *proxy.Explanation) {
	misses := e.Routes
	if n := len(misses); n > 0 && misses[n-1].Matches {
		misses = misses[:n-1]
	}
	if n := len(misses) - maxMisses; n > 0 {
		p.line("not", "%d routes before these", n)
		misses = misses[n:]
	}
	for _, r := range misses {
		p.line("not", "%s: %s: %s%s", r.Name, r.Option, r.Why, p.at(cmp.Or(r.At, r.Line)))
	}
	if e.Route == "" {
		p.line("route", "none")
		return
	}
	p.line("route", "%s: %s%s", e.Route, e.Action, p.at(e.Line))
}

func (p *page) limits(e *proxy.Explanation) {
	for _, l := range e.Limits {
		var about []string
		switch {
		case l.Paced != "":
			about = append(about, "paced at "+l.Paced+" a second")
		case l.Rate != "":
			about = append(about, l.Rate)
		case l.Places > 0:
			about = append(about, fmt.Sprintf("%d at a time", l.Places))
		}
		key := l.Source
		if l.Key != "" {
			key += " " + l.Key
		}
		if !l.Exempt {
			about = append(about, "key "+key)
		}
		if l.Store != "local" {
			about = append(about, "store "+l.Store)
		}
		switch {
		case l.Exempt:
			about = append(about, "exempt")
		case l.Paced != "":
		case !l.Known:
			about = append(about, "state in Redis")
		case !l.Allowed:
			verdict := "refuses"
			if l.DryRun {
				verdict = "would refuse, but only counts"
			}
			about = append(about, verdict)
			if l.Wait != "" {
				about = append(about, "again in "+l.Wait)
			}
		default:
			about = append(about, fmt.Sprintf("costs %d, %d left", l.Cost, l.Left))
			if l.Wait != "" {
				about = append(about, "after a wait of "+l.Wait)
			}
		}
		p.line("limit", "%s: %s%s", l.Policy, strings.Join(about, ", "), p.at(l.Line))
	}
}

func (p *page) cache(e *proxy.Explanation) {
	c := e.Cache
	if c == nil {
		return
	}
	if c.URL != "" {
		variant := ""
		if c.Variant {
			variant = ", one of several variants"
		}
		p.line("key", "%s %s in %s%s", c.Method, c.URL, c.Namespace, variant)
	}
	text := c.Verdict
	if c.Why != "" {
		text += ": " + c.Why
	}
	if c.Age != nil && c.TTL != nil {
		text += fmt.Sprintf(", stored %d, %.0f s old, fresh for %.0f s", c.Status, *c.Age, *c.TTL)
	}
	p.line("cache", "%s", text)
	if c.Store != "" {
		p.line("store", "no: %s", c.Store)
	}
}

func (p *page) pool(e *proxy.Explanation) {
	c := e.Pool
	if c == nil {
		return
	}
	next := ""
	if c.Next != "" {
		next = fmt.Sprintf(", next %s by %s", c.Next, c.Why)
	}
	panics := ""
	if c.Panic {
		panics = ", ejections ignored"
	}
	p.line("upstream", "%s: %s, %s%s%s%s", c.Pool, c.Balance, c.Verdict, panics, next, p.at(c.Line))
	for _, s := range c.Servers {
		about := []string{s.State}
		if s.Eligible {
			about = append(about, fmt.Sprintf("score %.3g", s.Score))
		} else {
			about = append(about, "not eligible: "+s.Why)
		}
		about = append(about, fmt.Sprintf("weight %d", s.Weight))
		if s.Backup {
			about = append(about, "backup")
		}
		about = append(about, fmt.Sprintf("%d in flight", s.InFlight))
		if s.Latency > 0 {
			about = append(about, fmt.Sprintf("%.3g ms", s.Latency))
		}
		p.line("", "%s: %s", s.Address, strings.Join(about, ", "))
	}
	for _, name := range c.Unknown {
		p.line("", "%s: not looked up", name)
	}
}

func (p *page) coding(e *proxy.Explanation) {
	c := e.Compress
	switch {
	case c == nil:
	case c.Coding == "" && c.Why == "":
		p.line("coding", "none: no body")
	case c.Coding == "":
		p.line("coding", "none: %s", codingReasons[c.Why])
	case c.Certain:
		p.line("coding", "%s", c.Coding)
	default:
		p.line("coding", "%s, if the response is of a type for it, has at least %d bytes and is not coded", c.Coding, c.MinSize)
	}
}

// codingReasons are compress.Skip in words.
var codingReasons = map[string]string{
	"not_accepted": "the client accepts none that is offered", "type": "the response's type is not one to compress",
	"small": "the response is too small", "coded": "the response is coded already",
	"no_transform": "no-transform forbids it", "range": "a part of a body is not coded",
	"cross_site": "a page of another site asks (cross_site)",
}
