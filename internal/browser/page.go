package browser

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	cdpbrowser "github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// Page is a tab.
type Page struct {
	t   TB
	ctx context.Context

	mu       sync.Mutex
	console  []string
	requests []Request
	byID     map[network.RequestID]int // of requests
}

// Request is one that the page has made, redirects and preloads included.
type Request struct {
	Method, URL string
	Status      int               // 0 while there is no answer, or none came
	Protocol    string            // such as "http/1.1", "h2"
	Header      map[string]string // of the answer, names in lower case
	Received    int64             // bytes of the answer as they came over the wire, header included
	Failure     string            // why no answer came, such as "net::ERR_CONNECTION_REFUSED"
}

// View is what a page is shown on.
type View struct {
	Width, Height int
	Scale         float64 // device pixels of a CSS pixel; 0 for 1
	Dark          bool    // prefers-color-scheme
	Touch         bool    // a phone's finger instead of a mouse
}

// Open opens a tab and waits until the page at the address is loaded.
func (b *Browser) Open(url string) *Page {
	b.t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx)
	b.t.Cleanup(cancel)
	p := &Page{t: b.t, ctx: ctx, byID: map[network.RequestID]int{}}
	if err := chromedp.Listen(ctx, p.event); err != nil {
		b.t.Fatalf("open a tab: %v", err)
	}
	call(p, network.Enable, network.EnableParams{})
	call(p, log.Enable, cdp.Empty{})
	call(p, runtime.Enable, cdp.Empty{})
	p.Go(url)
	return p
}

// do runs an action within Patience.
func (p *Page) do(what string, action chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, Patience)
	defer cancel()
	if err := chromedp.Do(ctx, action); err != nil {
		p.t.Fatalf("%s: %v\n%s", what, err, strings.Join(p.Console(), "\n"))
	}
}

// call runs a command of the protocol within Patience.
func call[P, R any](p *Page, command cdp.Command[P, R], params P) R {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, Patience)
	defer cancel()
	result, err := chromedp.Call(ctx, command, params)
	if err != nil {
		p.t.Fatalf("%s: %v", command.Method, err)
	}
	return result
}

// event keeps what the tests want to know.
func (p *Page) event(e any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := e.(type) {
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning || e.Type == runtime.ConsoleAPICalledTypeAssert {
			var words []string
			for _, a := range e.Args {
				words = append(words, strings.Trim(string(a.Value)+" "+a.Description, " "))
			}
			p.console = append(p.console, fmt.Sprintf("console.%s: %s", e.Type, strings.Join(words, " ")))
		}
	case *runtime.EventExceptionThrown:
		p.console = append(p.console, "exception: "+thrown(e.ExceptionDetails))
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			p.console = append(p.console, fmt.Sprintf("%s %s: %s %s", e.Entry.Source, e.Entry.Level, e.Entry.Text, e.Entry.URL))
		}
	case *network.EventRequestWillBeSent:
		if i, known := p.byID[e.RequestID]; known && e.RedirectResponse != nil {
			p.requests[i].answered(e.RedirectResponse)
		}
		p.byID[e.RequestID] = len(p.requests)
		p.requests = append(p.requests, Request{Method: e.Request.Method, URL: e.Request.URL})
	case *network.EventResponseReceived:
		if i, known := p.byID[e.RequestID]; known {
			p.requests[i].answered(e.Response)
		}
	case *network.EventLoadingFinished:
		if i, known := p.byID[e.RequestID]; known {
			p.requests[i].Received = int64(e.EncodedDataLength)
		}
	case *network.EventLoadingFailed:
		if i, known := p.byID[e.RequestID]; known {
			p.requests[i].Failure = e.ErrorText
		}
	}
}

// thrown is an exception in words.
func thrown(e *runtime.ExceptionDetails) string {
	if e.Exception != nil && e.Exception.Description != "" {
		return e.Exception.Description
	}
	return e.Text
}

func (r *Request) answered(a *network.Response) {
	r.Status, r.Protocol, r.Header = int(a.Status), a.Protocol, map[string]string{}
	for name, value := range a.Headers {
		r.Header[strings.ToLower(name)] = fmt.Sprint(value)
	}
}

// Console is what went wrong so far: errors and warnings on the console,
// exceptions that nobody caught, resources that could not be loaded, and what
// a security policy refused.
func (p *Page) Console() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.console...)
}

// Requests are those that the page has made so far, in order.
func (p *Page) Requests() []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Request(nil), p.requests...)
}

// Go loads another address in the tab. An answer with an error status is a
// page too; no answer fails the test.
func (p *Page) Go(url string) {
	p.t.Helper()
	p.do("open "+url, chromedp.Navigate(url))
}

// Eval gives the value of a JavaScript expression, waiting for it when it is a
// promise, to into, a pointer; nil to ignore it.
func (p *Page) Eval(expression string, into any) {
	p.t.Helper()
	if err := p.eval(expression, into); err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
}

func (p *Page) eval(expression string, into any) error {
	ctx, cancel := context.WithTimeout(p.ctx, Patience)
	defer cancel()
	r, err := chromedp.Call(ctx, runtime.Evaluate, runtime.EvaluateParams{
		Expression: expression, AwaitPromise: new(true), ReturnByValue: new(true), UserGesture: new(true),
	})
	switch {
	case err != nil:
		return err
	case r.ExceptionDetails != nil:
		return errors.New(thrown(r.ExceptionDetails))
	case into == nil:
		return nil
	case len(r.Result.Value) == 0: // undefined
		return json.Unmarshal([]byte("null"), into)
	}
	return json.Unmarshal(r.Result.Value, into)
}

// Until waits until a JavaScript expression is true, or a promise of what is;
// what says so in words. An expression that throws is one that is not true yet.
func (p *Page) Until(what, expression string) {
	p.t.Helper()
	var err error
	for end := time.Now().Add(Patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		var ok bool
		if err = p.eval("(async () => Boolean(await ("+expression+")))()", &ok); err == nil && ok {
			return
		}
	}
	var text string
	_ = p.eval("document.body.innerText.slice(0, 4000)", &text)
	p.t.Fatalf("not within %v: %s (%v)\n%s\n%s", Patience, what, err, strings.Join(p.Console(), "\n"), text)
}

// Text is the visible text of the first element that matches a CSS selector,
// waited for.
func (p *Page) Text(selector string) string {
	p.t.Helper()
	q := quote(selector)
	p.Until("there is "+selector, "document.querySelector("+q+")")
	var text string
	p.Eval("document.querySelector("+q+")?.innerText ?? ''", &text)
	return text
}

// Click clicks on the middle of the first element that matches a CSS selector,
// as a mouse would, once it can be seen.
func (p *Page) Click(selector string) {
	p.t.Helper()
	p.visible(selector)
	p.do("click "+selector, chromedp.Click(chromedp.CSS(selector)))
}

// Type writes into the first element that matches a CSS selector, key by key,
// in place of what is in it.
func (p *Page) Type(selector, text string) {
	p.t.Helper()
	p.visible(selector)
	p.Eval("document.querySelector("+quote(selector)+").select?.()", nil)
	p.do("type into "+selector, chromedp.SendKeys(chromedp.CSS(selector), text))
}

// Press presses keys where the focus is, such as "\t", "\r" or "\x1b".
func (p *Page) Press(keys string) {
	p.t.Helper()
	p.do(fmt.Sprintf("press %q", keys), chromedp.KeyEvent(keys))
}

func (p *Page) visible(selector string) {
	p.t.Helper()
	q := quote(selector)
	p.Until(selector+" can be seen", "document.querySelector("+q+").checkVisibility({visibilityProperty: true})")
}

// Show shows the page on another view.
func (p *Page) Show(v View) {
	p.t.Helper()
	if v.Scale == 0 {
		v.Scale = 1
	}
	scheme := "light"
	if v.Dark {
		scheme = "dark"
	}
	call(p, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: int64(v.Width), Height: int64(v.Height), DeviceScaleFactor: v.Scale, Mobile: v.Touch})
	call(p, emulation.SetTouchEmulationEnabled, emulation.SetTouchEmulationEnabledParams{Enabled: v.Touch})
	call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme},
		{Name: "prefers-reduced-motion", Value: "reduce"},
	}})
}

// Screenshot writes a PNG of the view, or of the whole page, to a file.
func (p *Page) Screenshot(file string, whole bool) {
	p.t.Helper()
	shot := call(p, page.CaptureScreenshot, page.CaptureScreenshotParams{
		Format: page.CaptureScreenshotFormatPng, CaptureBeyondViewport: new(whole)})
	if err := os.WriteFile(file, shot.Data, 0o644); err != nil {
		p.t.Fatalf("write a screenshot: %v", err)
	}
}

// Version is the browser's name and version, such as "HeadlessChrome/156.0.8078.108".
func (p *Page) Version() string {
	p.t.Helper()
	return call(p, cdpbrowser.GetVersion, cdp.Empty{}).Product
}

// quote makes a JavaScript string.
func quote(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}
