package main

import (
	"fmt"
	"html"
	"math"
	"strings"

	"gateway/internal/loadgen"
)

// marks are how rivals look in the plot.
var marks = map[string]struct{ light, dark string }{
	"gateway":      {"#2563eb", "#60a5fa"},
	"gateway-full": {"#93b4f5", "#2f5fb3"},
	"nginx":        {"#15803d", "#4ade80"},
	"haproxy":      {"#0e7490", "#22d3ee"},
	"varnish":      {"#7e22ce", "#c084fc"},
	"caddy":        {"#b45309", "#fbbf24"},
	"traefik":      {"#be123c", "#fb7185"},
}

// mostPlotted is the ratio at the right end of the plot's logarithmic axis.
const leastPlotted, mostPlotted = 0.25, 8.0

// plot is an SVG picture: for each line of the summary a row of dots, one for
// each rival, at its ratio to the best rival, with the spread of the rounds.
func (r *report) plot() string {
	const left, right, width, row, top = 176.0, 24.0, 960.0, 34.0, 84.0
	lines := r.lines()
	height := top + row*float64(len(lines)) + 34
	x := func(ratio float64) float64 {
		ratio = min(max(ratio, leastPlotted), mostPlotted)
		return left + math.Log(ratio/leastPlotted)/math.Log(mostPlotted/leastPlotted)*(width-left-right)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" font-family="system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif" font-size="13">`+"\n<style>\n", width, height)
	style := func(dark bool) {
		page, ink, soft, grid := "#ffffff", "#16191f", "#5c6470", "#e5e8ed"
		if dark {
			page, ink, soft, grid = "#0e1116", "#e8ebf0", "#98a1af", "#262c36"
		}
		fmt.Fprintf(&b, ".page{fill:%s}.ink{fill:%s}.soft{fill:%s}.grid{stroke:%s}.one{stroke:%s}", page, ink, soft, grid, soft)
		for _, v := range rivals {
			colour := marks[v.name].light
			if dark {
				colour = marks[v.name].dark
			}
			fmt.Fprintf(&b, ".%s{fill:%s;stroke:%s}", v.name, colour, colour)
		}
		b.WriteString("\n")
	}
	style(false)
	b.WriteString("@media (prefers-color-scheme:dark){\n")
	style(true)
	fmt.Fprintf(&b, "}\n</style>\n<rect class=\"page\" width=\"%.0f\" height=\"%.0f\" rx=\"10\"/>\n", width, height)
	b.WriteString(`<text class="ink" x="20" y="30" font-size="16" font-weight="650">CPU time of a request, against the best rival</text>` + "\n")
	at := 20.0
	for _, v := range rivals {
		found := false
		for _, l := range lines {
			found = found || l.figures[v.name].rounds > 0
		}
		if !found {
			continue
		}
		name := v.name
		if name == "gateway-full" {
			name = "gateway with limit and log"
		}
		fmt.Fprintf(&b, `<circle class="%s" cx="%.0f" cy="51" r="5"/><text class="soft" x="%.0f" y="55">%s</text>`+"\n", v.name, at+5, at+15, name)
		at += 36 + 7.2*float64(len(name))
	}
	for _, tick := range []float64{0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8} {
		class := "grid"
		if tick == 1 {
			class = "one"
		}
		fmt.Fprintf(&b, `<line class="%s" x1="%.1f" x2="%.1f" y1="%.0f" y2="%.0f"/><text class="soft" x="%.1f" y="%.0f" text-anchor="middle">%s×</text>`+"\n",
			class, x(tick), x(tick), top-8, height-30, x(tick), height-12, loadgen.FormatNumber(tick))
	}
	for i := range lines {
		l := &lines[i]
		y := top + row*(float64(i)+0.5)
		fmt.Fprintf(&b, `<text class="ink" x="%.0f" y="%.1f" text-anchor="end">%s</text>`+"\n", left-14, y+4.5, html.EscapeString(l.name))
		best := l.figures[l.best].median
		if best == 0 {
			continue
		}
		for k := len(rivals) - 1; k >= 0; k-- { // ours on top
			name := rivals[k].name
			s := l.figures[name]
			if s.rounds == 0 {
				continue
			}
			shift := 3.0
			if k%2 == 0 {
				shift = -3
			}
			if name == "gateway" {
				shift = 0
			}
			size := 5.0
			if name == "gateway" {
				size = 6.5
			}
			said := fmt.Sprintf("%s, %s: %s %s, %s of the best rival", l.name, name, s.text(1), l.unit, l.ratio(name))
			fmt.Fprintf(&b, `<g class="%s"><title>%s</title><line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke-width="2" opacity=".55"/><circle cx="%.1f" cy="%.1f" r="%.1f"/></g>`+"\n",
				name, html.EscapeString(said), x(s.low/best), x(s.high/best), y+shift, y+shift, x(s.median/best), y+shift, size)
		}
	}
	b.WriteString("</svg>\n")
	return b.String()
}
