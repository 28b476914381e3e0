package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"gateway/internal/browser"
	"gateway/internal/load"
)

// counted is an origin that counts what it is asked for, and fails /fail.
func counted(t testing.TB) (address string, requests *atomic.Int64) {
	t.Helper()
	requests = new(atomic.Int64)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if r.URL.Path == "/fail" {
			w.WriteHeader(http.StatusInternalServerError)
		}
		io.WriteString(w, r.URL.Path)
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String(), requests
}

// shown is the page of a gateway, and what it was sent.
type shown struct {
	*child
	page        *browser.Page
	front, back string // addresses of the gateway and of its admin server
}

// send sends requests one after the other, and returns how often each status
// came.
func (s *shown) send(n int, path string) map[int]int {
	s.t.Helper()
	statuses := map[int]int{}
	for range n {
		status, _ := get(s.t, "http://"+s.front+path)
		statuses[status]++
	}
	return statuses
}

// number waits until an element of the page has this number.
func (s *shown) number(what, selector string, want int) {
	s.t.Helper()
	s.page.Until(fmt.Sprintf("%s is %d", what, want), fmt.Sprintf("Number(document.querySelector(%q).dataset.%s) === %d", selector,
		map[bool]string{true: "total", false: "value"}[strings.Contains(selector, "rate")], want))
}

// confirm presses a button of the page and then that of the dialog.
func (s *shown) confirm(selector string) {
	s.t.Helper()
	s.page.Click(selector)
	s.page.Click("#dialog[open] #d-ok")
}

func TestDashboardShowsWhatIsTrueAndControls(t *testing.T) {
	first, firstCount := counted(t)
	second, secondCount := counted(t)
	s := &shown{child: prepare(t), front: load.FreeAddress(t), back: load.FreeAddress(t)}
	configuration := fmt.Sprintf(`
listen = %q
admin = %q
reload.watch = false
[upstream.app]
servers = [%q, %q]
health = false
eject = false
[limit.few]
rate = "1/d"
burst = 5
[[route]]
name = "few"
path = "/few"
limit = "few"
respond = { body = "few" }
[[route]]
name = "kept"
path = "/kept"
upstream = "app"
cache = { ttl = "1h" }
[[route]]
name = "app"
path = ["/app", "/fail"]
upstream = "app"
`, s.front, s.back, first, second)
	s.write(configuration)
	s.run()
	s.line("msg=listening")
	b := browser.Start(t)
	s.page = b.Open("http://" + s.back + "/")
	s.page.Until("it shows that the gateway serves", `document.getElementById("state").textContent === "serving"`)

	// What it shows is what was sent.
	if got := s.send(60, "/app"); got[200] != 60 {
		t.Fatalf("statuses %v", got)
	}
	s.send(7, "/fail")
	if got := s.send(12, "/few"); got[200] != 5 || got[429] != 7 {
		t.Fatalf("statuses %v", got)
	}
	s.send(3, "/nowhere")
	s.number("the number of requests", "#t-total", 82)
	s.number("the number of failures", "#t-errors-total", 7)
	s.number("the number of refused requests", `[data-limit="few"] [data-value]`, 7)
	s.number("the requests of a route", `[data-route="app"] [data-part="total"]`, 67)
	s.number("the requests of no route", `[data-route="none"] [data-part="total"]`, 3)
	for _, server := range []string{first, second} {
		n := map[string]int64{first: firstCount.Load(), second: secondCount.Load()}[server]
		s.number("the requests of "+server, fmt.Sprintf(`[data-server=%q] [data-part="rate"]`, server), int(n))
	}
	if n := firstCount.Load() + secondCount.Load(); n != 67 {
		t.Errorf("the servers got %d requests", n)
	}
	s.page.Until("the samples have all requests", `fetch("/history").then(r => r.json()).then(h => h.samples.flatMap(s => s.requests).reduce((a, b) => a + b, 0) === 82)`)
	s.page.Until("the charts have them", `document.querySelector("#c-requests svg[role=img]").getAttribute("aria-label").includes("2xx") && document.querySelector("#c-requests .area")`)

	// It drains a server, and takes it back.
	row := fmt.Sprintf(`[data-server=%q]`, first)
	s.page.Click(row + ` [data-action="drain"]`)
	s.page.Press("\x1b") // nothing happens without confirmation
	s.page.Until("the dialog is closed", `!document.getElementById("dialog").open`)
	s.confirm(row + ` [data-action="drain"]`)
	s.page.Until("the server is drained", fmt.Sprintf("document.querySelector(%q)", row+`[data-state="drained"]`))
	before := firstCount.Load()
	s.send(20, "/app")
	if n := firstCount.Load() - before; n != 0 {
		t.Errorf("a drained server got %d requests", n)
	}
	s.confirm(row + ` [data-action="drain"]`)
	s.page.Until("the server is in use", fmt.Sprintf("document.querySelector(%q)", row+`:not([data-state="drained"])`))
	s.send(20, "/app")
	if n := firstCount.Load() - before; n != 10 {
		t.Errorf("a server in use again got %d of 20 requests", n)
	}
	s.page.Click(row + ` [data-action="weight"]`)
	s.page.Type("#dialog[open] [name=weight]", "3")
	s.page.Click("#d-ok")
	s.page.Until("the weight is 3", fmt.Sprintf(`document.querySelector(%q)?.textContent === "3"`, row+` [data-part="weight"]`))
	before = firstCount.Load()
	s.send(20, "/app")
	if n := firstCount.Load() - before; n != 15 {
		t.Errorf("a server of weight 3 beside one of weight 1 got %d of 20 requests", n)
	}

	// It disables one too.
	s.page.Click(row + ` [data-action="drain"]`)
	s.page.Eval(`void (document.querySelector("#dialog[open] [name=order]").value = "disable")`, nil)
	s.page.Click("#d-ok")
	s.page.Until("the server is disabled", fmt.Sprintf("document.querySelector(%q)", row+`[data-state="disabled"]`))
	s.confirm(row + ` [data-action="drain"]`)
	s.page.Until("the server is in use", fmt.Sprintf("document.querySelector(%q)", row+`:not([data-state="disabled"])`))

	// It purges.
	s.send(3, "/kept")
	origins := firstCount.Load() + secondCount.Load()
	s.send(3, "/kept")
	if n := firstCount.Load() + secondCount.Load() - origins; n != 0 {
		t.Errorf("the servers got %d requests for what is stored", n)
	}
	s.page.Click("#purge")
	s.page.Type("#dialog[open] [name=which]", "http://"+s.front+"/kept")
	s.page.Click("#d-ok")
	s.page.Until("it is purged", `document.getElementById("toast").textContent === "Purged"`)
	s.send(3, "/kept")
	if n := firstCount.Load() + secondCount.Load() - origins; n != 1 {
		t.Errorf("the servers got %d requests for what was purged", n)
	}

	// It reloads, and says what is wrong.
	s.write(strings.Replace(configuration, `body = "few"`, `bdy = "few"`, 1))
	s.confirm("#reload")
	s.page.Until("the dialog names the mistake", `document.getElementById("d-result").textContent.includes("did you mean")`)
	s.page.Click("#d-cancel")
	s.page.Until("the page says that the configuration was rejected", `document.getElementById("trouble").textContent.includes("rejected")`)
	s.write(strings.Replace(configuration, `body = "few"`, `body = "other"`, 1))
	s.confirm("#reload")
	s.page.Until("the trouble is over", `document.getElementById("trouble").hidden`)
	s.page.Until("the event is listed", `document.querySelector('[data-event="configuration reloaded"]')`)
	s.page.Until("the drain is listed", `document.querySelector('[data-event="server is drained"]')`)
	// The browser itself reports the refused reload, as it does for every 422.
	for _, line := range s.page.Console() {
		if !strings.Contains(line, "422") || !strings.Contains(line, "/reload") {
			t.Errorf("console: %s", line)
		}
	}

	// It outlives the gateway.
	known := len(s.page.Console())
	s.Process.Kill()
	<-s.ended
	s.page.Until("it shows that nobody answers", `document.body.dataset.lost === "yes"`)
	s.ended = make(chan struct{})
	s.run()
	s.line("msg=listening")
	s.page.Until("it shows the new gateway", `document.body.dataset.lost === "" && document.getElementById("state").textContent === "serving"`)
	s.send(9, "/app")
	s.number("the number of requests after a restart", "#t-total", 9)
	for _, line := range s.page.Console()[known:] {
		if !strings.Contains(line, "net::ERR_") {
			t.Errorf("console: %s", line)
		}
	}
	for _, r := range s.page.Requests() {
		if !strings.HasPrefix(r.URL, "http://"+s.back+"/") {
			t.Errorf("a request to elsewhere: %s", r.URL)
		}
	}
}

func TestDashboardWantsTheToken(t *testing.T) {
	s := &shown{child: prepare(t), front: load.FreeAddress(t), back: load.FreeAddress(t)}
	origin, _ := counted(t)
	s.write(fmt.Sprintf(`
listen = %q
[upstream.app]
servers = [%q]
[admin]
address = %q
token = "operators-0123456789"
read_token = "readers-0123456789"
`, s.front, origin, s.back))
	s.run()
	s.line("msg=listening")
	b := browser.Start(t)
	for _, c := range []struct {
		token  string
		button bool
	}{{"operators-0123456789", true}, {"readers-0123456789", false}} {
		s.page = b.Open("http://" + s.back + "/")
		s.page.Eval("sessionStorage.clear()", nil)
		s.page.Go("http://" + s.back + "/")
		s.page.Type("#dialog[open] [name=token]", "wrong-0123456789")
		s.page.Click("#d-ok")
		s.page.Until("a wrong token is refused", `!document.getElementById("d-result").hidden`)
		s.page.Type("#dialog[open] [name=token]", c.token)
		s.page.Click("#d-ok")
		s.page.Until("it shows that the gateway serves", `document.getElementById("state").textContent === "serving"`)
		s.page.Until("it knows the role", fmt.Sprintf(`document.getElementById("reload").checkVisibility() === %v`, c.button))
	}
}
