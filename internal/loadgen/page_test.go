package loadgen

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"gateway/internal/browser"
)

func TestPageNeedsNothingFromElsewhere(t *testing.T) {
	var out strings.Builder
	if err := WritePage(&out, &Report{Plan: PlanView{Targets: []string{"GET http://localhost/</script><b>"}}}); err != nil {
		t.Fatal(err)
	}
	if found := regexp.MustCompile(`(?i)\b(src|href)\s*=|url\(|@import|\bfetch\(|XMLHttp|import\(`).FindString(out.String()); found != "" {
		t.Errorf("the page has %q", found)
	}
	if strings.Contains(out.String(), "</script><b>") {
		t.Error("a URL ends the script")
	}
}

// TestPageInABrowser looks at pages of one run and of two.
func TestPageInABrowser(t *testing.T) {
	a, b := measured(t, "before"), measured(t, "after")
	pages := map[string][]*Report{"/one": {a}, "/two": {a, b}, "/empty": {{Plan: PlanView{Targets: []string{"GET /"}}}}}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if reports := pages[r.URL.Path]; reports != nil {
			WritePage(w, reports...)
		} else {
			w.WriteHeader(http.StatusNoContent) // the browser's own wish for an icon
		}
	}))
	defer s.Close()
	p := browser.Start(t).Open(s.URL + "/one")
	p.Until("the plots are drawn", `document.querySelectorAll("#curve path, #time path, #rate path").length >= 6`)
	p.Until("the tiles are filled", `document.querySelector("#tiles").textContent.includes("500 answers")`)
	p.Until("both latencies are told", `document.querySelector("#latency").textContent.includes("from sent")`)
	var before, after string
	p.Eval(`document.querySelector("#curve path[stroke]").getAttribute("d")`, &before)
	p.Click("#curve-scale")
	p.Eval(`document.querySelector("#curve path[stroke]").getAttribute("d")`, &after)
	if before == after {
		t.Error("the other scale draws the same curve")
	}
	p.Eval(`getComputedStyle(document.body).backgroundColor`, &before)
	p.Click("#theme")
	p.Eval(`getComputedStyle(document.body).backgroundColor`, &after)
	if before == after {
		t.Error("dark and light look the same")
	}
	p.Go(s.URL + "/two")
	p.Until("both curves are drawn", `document.querySelectorAll("#curve path").length === 2 && document.querySelector("#curve-key").textContent === "beforeafter"`)
	p.Go(s.URL + "/empty")
	p.Until("a run without answers has a page", `document.querySelector("#tiles").textContent.includes("0 answers")`)
	if problems := p.Console(); len(problems) > 0 {
		t.Errorf("the browser complains: %q", problems)
	}
	for _, r := range p.Requests() {
		if !strings.HasPrefix(r.URL, s.URL) {
			t.Errorf("the page asks for %s", r.URL)
		}
	}
}
