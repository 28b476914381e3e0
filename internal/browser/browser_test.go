package browser_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gateway/internal/browser"
)

const sample = `<!doctype html><html lang="en"><title>sample</title><meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">
<style>:root { color-scheme: light dark } @media (prefers-color-scheme: dark) { p { font-style: italic } }</style>
<p id="size"></p><input id="name" value="before"><button id="b" hidden>press</button><p id="out"></p>
<script>
const say = t => document.getElementById("out").innerText = t;
document.getElementById("b").onclick = e => say(e.isTrusted + " " + document.getElementById("name").value);
setTimeout(() => document.getElementById("b").hidden = false, 100);
</script>`

func TestPageIsDriven(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/":
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			fmt.Fprint(w, sample)
		case "/old":
			http.Redirect(w, r, "/", http.StatusFound)
		case "/data":
			w.Header().Set("X-Data", "yes")
			fmt.Fprint(w, "data")
		default:
			http.NotFound(w, r)
		}
	}))
	defer s.Close()
	b := browser.Start(t)
	p := b.Open(s.URL + "/old")
	p.Type("#name", "after")
	p.Click("#b")
	p.Until("the click was seen", `document.getElementById("out").innerText`)
	if got := p.Text("#out"); got != "true after" {
		t.Errorf("the page says %q", got)
	}
	var got struct {
		Status int
		Text   string
	}
	p.Eval(`fetch("/data").then(async r => ({Status: r.status, Text: await r.text()}))`, &got)
	if got.Status != 200 || got.Text != "data" {
		t.Errorf("fetched %+v", got)
	}
	var seen []string
	for _, r := range p.Requests() {
		seen = append(seen, fmt.Sprint(strings.TrimPrefix(r.URL, s.URL), " ", r.Status, " ", r.Header["x-data"]))
	}
	if want := "/old 302 , / 200 , /data 200 yes"; strings.Join(seen, ", ") != want {
		t.Errorf("requests %q", seen)
	}
	if c := p.Console(); len(c) > 0 {
		t.Errorf("console %q", c)
	}

	for _, dark := range []bool{true, false} {
		p.Show(browser.View{Width: 390, Height: 700, Dark: dark, Touch: true})
		var width int
		p.Eval("innerWidth", &width)
		var style string
		p.Eval(`getComputedStyle(document.getElementById("size")).fontStyle`, &style)
		if want := map[bool]string{true: "italic", false: "normal"}[dark]; width != 390 || style != want {
			t.Errorf("dark %v: width %d, style %s", dark, width, style)
		}
	}
	file := filepath.Join(t.TempDir(), "page.png")
	p.Screenshot(file, false)
	if text, err := os.ReadFile(file); err != nil || !strings.HasPrefix(string(text), "\x89PNG") {
		t.Errorf("screenshot: %.20q, %v", text, err)
	}
	if v := p.Version(); !strings.Contains(v, "Chrome/") {
		t.Errorf("version %q", v)
	}
}

func TestWhatGoesWrongIsKept(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'self'; script-src 'unsafe-inline'; connect-src 'none'")
		fmt.Fprint(w, `<!doctype html><title>bad</title><link rel="icon" href="/none">
<script>console.error("one", 2); fetch("/three").catch(() => {}); setTimeout(() => { throw new Error("four") })</script>`)
	}))
	defer s.Close()
	p := browser.Start(t).Open(s.URL)
	for _, want := range []string{`console.error: "one" 2`, "Content Security Policy", "four", "404"} {
		for end := time.Now().Add(browser.Patience); !strings.Contains(strings.Join(p.Console(), "\n"), want); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("no %q in %q", want, p.Console())
			}
		}
	}
}
