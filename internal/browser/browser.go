// Package browser drives a real browser in tests: headless Chromium, through
// the DevTools protocol.
//
//	b := browser.Start(t)
//	p := b.Open("http://127.0.0.1:9180/")
//	p.Until("the page shows servers", `document.querySelectorAll("tr").length > 2`)
//	p.Click("button.drain")
//	if problems := p.Console(); len(problems) > 0 { … }
//
// Every call waits for what it needs, at most Patience, and fails the test
// otherwise. The browser has a profile of its own, knows no host names but
// localhost, and is gone when the test ends.
package browser

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/chromedp/chromedp"
)

// Patience bounds every wait: a start of the browser on a busy machine takes
// seconds.
const Patience = 60 * time.Second

// TB is what this package needs of a *testing.T. Fatalf does not return.
type TB interface {
	Helper()
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
	Cleanup(func())
}

// Browser is a running Chromium.
type Browser struct {
	t   TB
	ctx context.Context // of the first tab, which keeps the browser
}

// Start starts Chromium (Debian package chromium), with more command line
// flags if wanted: a name without its dashes, and "" or its value. The end of
// the test ends it.
func Start(t TB, flags ...[2]string) *Browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("%v; install Debian's package chromium, as scripts/needs does", err)
	}
	home, err := os.MkdirTemp("", "browser-")
	if err != nil {
		t.Fatalf("make a profile: %v", err)
	}
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path),
		chromedp.UserDataDir(filepath.Join(home, "profile")),
		chromedp.Env("HOME="+home, "TZ=UTC", "LANG=C.UTF-8"),
		chromedp.WindowSize(1280, 900),
		// Nothing goes out: neither the browser's own business nor a page's.
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1, EXCLUDE ::1"),
	}
	for _, f := range []string{
		"headless", "no-sandbox", "no-first-run", "no-default-browser-check", "hide-scrollbars", "mute-audio",
		"disable-gpu", "disable-quic", "disable-background-networking", "disable-component-update", "disable-sync",
		"disable-breakpad", "disable-crash-reporter", "disable-extensions", "disable-dev-shm-usage",
		"disable-client-side-phishing-detection", "disable-default-apps", "metrics-recording-only",
		// A page that nobody looks at is not slowed down.
		"disable-background-timer-throttling", "disable-backgrounding-occluded-windows", "disable-renderer-backgrounding",
	} {
		options = append(options, chromedp.Flag(f, true))
	}
	for _, f := range flags {
		if f[1] == "" {
			options = append(options, chromedp.Flag(f[0], true))
		} else {
			options = append(options, chromedp.Flag(f[0], f[1]))
		}
	}
	allocator, end := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(allocator, chromedp.WithErrorf(func(string, ...any) {})) // events of newer browsers are no errors
	t.Cleanup(func() {
		cancel() // waits for the process
		end()
		os.RemoveAll(home)
	})
	b := &Browser{t: t, ctx: ctx}
	timer := time.AfterFunc(Patience, cancel) // a deadline of ctx would be the browser's own
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	timer.Stop()
	return b
}
