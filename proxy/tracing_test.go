package proxy

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	collect "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"gateway/internal/origin"
)

// collector takes spans over OTLP.
type collector struct {
	*httptest.Server
	t      *testing.T
	mu     sync.Mutex
	spans  []*spans.Span
	tokens []string // Authorization of the requests
}

func startCollector(t *testing.T) *collector {
	c := &collector{t: t}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q collect.ExportTraceServiceRequest
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = proto.Unmarshal(body, &q)
		}
		if err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", r.URL, err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.tokens = append(c.tokens, r.Header.Get("Authorization"))
		for _, resource := range q.ResourceSpans {
			for _, scope := range resource.ScopeSpans {
				c.spans = append(c.spans, scope.Spans...)
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// trace waits for the span of the request with this path, and returns it with
// those below it.
func (c *collector) trace(r *running, path string) (root *spans.Span, steps []*spans.Span) {
	c.t.Helper()
	r.until("the collector has the trace of "+path, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		root, steps = nil, nil
		for _, s := range c.spans {
			if s.Kind == spans.Span_SPAN_KIND_SERVER && value(s, "url.path") == path {
				root = s
			}
		}
		if root == nil {
			return false
		}
		for _, s := range c.spans {
			if string(s.ParentSpanId) == string(root.SpanId) {
				steps = append(steps, s)
			}
		}
		return true
	})
	return root, steps
}

func (c *collector) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.spans)
}

// value is that of an attribute of a span, as text.
func value(s *spans.Span, key string) string {
	for _, a := range s.Attributes {
		if a.Key == key {
			if n, ok := a.Value.Value.(*common.AnyValue_IntValue); ok {
				return strconv.FormatInt(n.IntValue, 10)
			}
			return a.Value.GetStringValue()
		}
	}
	return ""
}

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-"

func TestTracesOfRequests(t *testing.T) {
	o := record(t, cacheable("hello"))
	c := startCollector(t)
	r := begin(t, "[client]\ntrusted_proxies = [\"127.0.0.1\"]\n[tracing]\nendpoint = \""+c.URL+"\"\nsample = \"0%\"\nheaders = { Authorization = \"Bearer abc\" }\n",
		app(o.Address), caching("true"))
	r.get("/miss", "traceparent: "+parent+"01").expect(t, 200, "hello", "")
	root, steps := c.trace(r, "/miss")
	if got := hex.EncodeToString(root.TraceId) + " " + hex.EncodeToString(root.ParentSpanId); got != "0af7651916cd43dd8448eb211c80319c b7ad6b7169203331" {
		t.Errorf("trace and parent %s", got)
	}
	if root.Name != "GET r" || value(root, "http.response.status_code") != "200" || value(root, "gateway.reason") != "done" {
		t.Errorf("span %v", root)
	}
	if len(steps) != 2 || steps[0].Name != "cache" || value(steps[0], "gateway.result") != "miss" ||
		steps[1].Name != "attempt" || value(steps[1], "server.address") != o.Address || value(steps[1], "gateway.result") != "ok" {
		t.Errorf("steps %v", steps)
	}
	for _, s := range steps {
		if s.StartTimeUnixNano < root.StartTimeUnixNano || s.EndTimeUnixNano > root.EndTimeUnixNano || s.EndTimeUnixNano < s.StartTimeUnixNano {
			t.Errorf("%s is from %d to %d, the request from %d to %d", s.Name, s.StartTimeUnixNano, s.EndTimeUnixNano, root.StartTimeUnixNano, root.EndTimeUnixNano)
		}
	}
	if got, want := o.last(t).Field("traceparent"), "00-0af7651916cd43dd8448eb211c80319c-"+hex.EncodeToString(root.SpanId)+"-01"; got != want {
		t.Errorf("the origin gets %s, want %s", got, want)
	}
	r.get("/miss?again", "traceparent: "+parent+"00") // its parent has decided
	if got := o.last(t).Field("traceparent"); !strings.HasSuffix(got, "-00") {
		t.Errorf("the origin gets %s", got)
	}
	r.get("/none") // sample is 0%
	if got := o.last(t).Field("traceparent"); !strings.HasSuffix(got, "-00") {
		t.Errorf("the origin gets %s", got)
	}
	r.get("/hit")
	r.get("/hit", "traceparent: "+parent+"01").expect(t, 200, "hello", "hit")
	if _, steps = c.trace(r, "/hit"); len(steps) != 1 || value(steps[0], "gateway.result") != "hit" {
		t.Errorf("steps %v", steps)
	}
	if n := c.count(); n != 5 {
		t.Errorf("%d spans, want 5", n)
	}
	if c.tokens[0] != "Bearer abc" {
		t.Errorf("Authorization %q", c.tokens[0])
	}
	r.until("the spans are counted", func() bool { return r.metric("gateway_trace_spans_total", `result="sent"`) == 5 })
}

func TestTracesShowEachAttempt(t *testing.T) {
	bad := origin.Start(t, func(c *origin.Conn) { c.Read(); c.Reset() })
	good := record(t, origin.OK("hello"))
	c := startCollector(t)
	r := start(t, "[tracing]\nendpoint = %q\nsample = \"100%%\"\n[upstream.app]\nservers = [%q, %q]\n", c.URL, bad.Address, good.Address)
	failed := 0
	for _, path := range []string{"/1", "/2"} { // one of them meets the bad server first
		r.get(path).expect(t, 200, "hello", "")
		root, steps := c.trace(r, path)
		if root.ParentSpanId != nil {
			t.Errorf("%s has a parent", path)
		}
		for _, s := range steps {
			if s.Status.GetCode() == spans.Status_STATUS_CODE_ERROR {
				failed++
				if value(s, "gateway.result") != "reset" || value(s, "server.address") != bad.Address {
					t.Errorf("attempt %v", s)
				}
			}
		}
	}
	if failed != 1 {
		t.Errorf("%d attempts have failed", failed)
	}
}

func TestStrangersDecideAboutTracesOnlyIfTheyMay(t *testing.T) {
	o := record(t, origin.OK("hello"))
	for _, trust := range []string{"trusted", "all", "none"} {
		c := startCollector(t)
		r := start(t, "[tracing]\nendpoint = %q\nsample = \"0%%\"\nparent = %q\n[upstream.app]\nservers = [%q]\n", c.URL, trust, o.Address)
		r.get("/", "traceparent: "+parent+"01")
		want := map[bool]string{true: "-01", false: "-00"}[trust == "all"]
		if got := o.last(t).Field("traceparent"); !strings.HasPrefix(got, parent[:36]) || !strings.HasSuffix(got, want) {
			t.Errorf("%s: the origin gets %s", trust, got)
		}
		r.stop()
		<-r.ended // what there is has been sent
		if n := c.count(); n != map[bool]int{true: 2, false: 0}[trust == "all"] {
			t.Errorf("%s: %d spans", trust, n)
		}
	}
}

func TestCollectorsThatFailHoldNothingUp(t *testing.T) {
	o := record(t, origin.OK("hello"))
	release := make(chan struct{})
	stuck := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-release
		w.WriteHeader(500)
	}))
	defer stuck.Close()
	defer close(release)
	tracing := "[tracing]\nendpoint = %q\nsample = \"100%%\"\nqueue = 16\ntimeout = \"100ms\"\n[upstream.app]\nservers = [%q]\n"
	r := start(t, tracing, stuck.URL, o.Address)
	for range 500 {
		r.get("/").expect(t, 200, "hello", "")
	}
	r.until("spans are given up", func() bool { return r.metric("gateway_trace_spans_total", `result="failed"`) > 0 })
	// Another collector is taken by a reload.
	c := startCollector(t)
	r.configure(tracing, c.URL, o.Address)
	if _, err := r.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.get("/after").expect(t, 200, "hello", "")
	c.trace(r, "/after")
}
