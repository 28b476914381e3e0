package loadgen

import (
	_ "embed"
	"html/template"
	"io"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Parse(pageText))

// WritePage writes reports, of which there must be one at least, as one HTML
// page that needs nothing from elsewhere: plots of the latency by percentile,
// and of latency and rate over time. Several reports are laid over each other.
func WritePage(w io.Writer, reports ...*Report) error {
	title := "Load report"
	if len(reports) > 1 {
		title = "Load comparison"
	}
	plain := make([]*Report, len(reports))
	for i, r := range reports { // the plots need no histogram
		c := *r
		c.Histogram = ""
		plain[i] = &c
	}
	return page.Execute(w, struct {
		Title   string
		Reports []*Report
	}{title, plain})
}
