package loadgen

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"gateway/internal/origin"
)

// run runs a plan to its end.
func run(t *testing.T, p Plan) *Report {
	t.Helper()
	if p.Timeout == 0 {
		p.Timeout = 60 * time.Second // of a busy machine
	}
	r, err := Start(context.Background(), p, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r.Wait()
}

// seen counts requests by what of them matters.
type seen struct {
	mu    sync.Mutex
	count map[string]int
}

func (s *seen) add(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count == nil {
		s.count = map[string]int{}
	}
	s.count[what]++
}

func TestEachRequestIsSentAndCountedOnce(t *testing.T) {
	for _, rate := range []float64{0, 5000} {
		for _, threads := range []int{1, 3} {
			var got seen
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				got.add(r.Method + " " + r.URL.Path + " " + string(body))
				w.WriteHeader(http.StatusCreated)
			}))
			const n = 1000
			r := run(t, Plan{
				Targets:     []Target{{Method: "POST", URL: s.URL + "/a/{n}", Body: []byte("number {n}")}},
				Connections: 10, Threads: threads, Rate: rate, Requests: n, First: 7,
			})
			s.Close()
			if r.Answered != n || r.Failed != 0 || !maps.Equal(r.Statuses, map[string]int64{"201": n}) {
				t.Errorf("rate %v: %d answered, %d failed, %v; want %d, all 201", rate, r.Answered, r.Failed, r.Statuses, n)
			}
			if len(got.count) != n {
				t.Fatalf("rate %v: the server saw %d different requests; want %d", rate, len(got.count), n)
			}
			for k := range got.count {
				var path, body int
				if _, err := fmt.Sscanf(k, "POST /a/%010d number %010d", &path, &body); err != nil || path != body || path < 7 {
					t.Fatalf("rate %v: the server saw %q", rate, k)
				}
			}
		}
	}
}

func TestTargetsShareByWeight(t *testing.T) {
	var got seen
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got.add(r.URL.Path) })
	one, two := httptest.NewServer(handler), httptest.NewServer(handler)
	defer one.Close()
	defer two.Close()
	const n = 4000
	r := run(t, Plan{
		Targets:  []Target{{URL: one.URL + "/a", Weight: 1}, {URL: one.URL + "/b", Weight: 2}, {URL: two.URL + "/c", Weight: 5}},
		Requests: n, Connections: 8, Rate: 20_000, Seed: 1,
	})
	if r.Answered != n {
		t.Fatalf("%d answered", r.Answered)
	}
	for path, share := range map[string]float64{"/a": 1, "/b": 2, "/c": 5} {
		if want := n * share / 8; float64(got.count[path]) < want-100 || float64(got.count[path]) > want+100 {
			t.Errorf("%s was asked for %d times; want about %.0f", path, got.count[path], want)
		}
	}
}

func TestAnswersOfEveryFraming(t *testing.T) {
	large := strings.Repeat("x", 600_000)
	for name, answer := range map[string]string{
		"chunked":          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + "3\r\none\r\n927c0\r\n" + large + "\r\n0\r\nX-Sum: 1\r\n\r\n",
		"large":            origin.OK(large),
		"empty":            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"without body":     "HTTP/1.1 204 No Content\r\n\r\n",
		"interim":          "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + origin.OK("last"),
		"until close":      "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it",
		"close with it":    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx",
		"large head":       "HTTP/1.1 200 OK\r\nX: " + large[:100_000] + "\r\nContent-Length: 1\r\n\r\nx",
		"HTTP/1.0":         "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx",
		"error of a proxy": "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 1\r\n\r\nx",
	} {
		o := origin.Start(t, func(c *origin.Conn) {
			for {
				c.Read()
				half := len(answer) / 2
				c.Write(answer[:half])
				c.Write(answer[half:])
				if strings.Contains(answer, "close") || strings.HasPrefix(answer, "HTTP/1.0") {
					return
				}
			}
		})
		r := run(t, Plan{Targets: []Target{{URL: "http://" + o.Address + "/"}}, Requests: 20, Connections: 3})
		if r.Answered != 20 || r.Failed != 0 {
			t.Errorf("%s: %d answered, failed: %v; want 20 and none", name, r.Answered, r.Failures)
		}
	}
}

func TestHeadHasNoBody(t *testing.T) {
	o := origin.Start(t, origin.Reply("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"))
	r := run(t, Plan{Targets: []Target{{Method: "HEAD", URL: "http://" + o.Address + "/"}}, Requests: 20, Connections: 2})
	if r.Answered != 20 || r.Failed != 0 {
		t.Errorf("%d answered, failed: %v", r.Answered, r.Failures)
	}
}

func TestFailuresAreNamed(t *testing.T) {
	f := func(want Failure, script origin.Script) {
		t.Helper()
		o := origin.Start(t, func(c *origin.Conn) {
			if c.Number == 0 { // the connection that was tried first
				c.AwaitClose()
				return
			}
			script(c)
		})
		for _, rate := range []float64{0, 1000} {
			r := run(t, Plan{Targets: []Target{{URL: "http://" + o.Address + "/"}}, Requests: 6, Connections: 2, Rate: rate, Timeout: 500 * time.Millisecond})
			if r.Answered != 0 || !maps.Equal(r.Failures, map[string]int64{want.String(): 6}) {
				t.Errorf("%d answered, failed: %v; want 6: %v", r.Answered, r.Failures, want)
			}
		}
	}
	f(Broken, func(c *origin.Conn) { c.Read(); c.Write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf") })
	f(Broken, func(c *origin.Conn) { c.Read(); c.Reset() })
	f(TimedOut, func(c *origin.Conn) { c.Read(); c.AwaitClose() })
	f(Malformed, func(c *origin.Conn) { c.Read(); c.Write("220 smtp.example.com\r\n"); c.AwaitClose() })
	f(Malformed, func(c *origin.Conn) { c.Read(); c.Write(origin.OK("one") + origin.OK("two")); c.AwaitClose() })
	f(Malformed, func(c *origin.Conn) {
		c.Read()
		c.Write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		c.AwaitClose()
	})
}

func TestServersThatAreNotThereAreAnErrorAtOnce(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	_, err := Start(context.Background(), Plan{Targets: []Target{{URL: s.URL}}}, nil)
	if err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("%v; want connection refused", err)
	}
	s = httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	_, err = Start(context.Background(), Plan{Targets: []Target{{URL: s.URL}}}, nil)
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("%v; want an unknown certificate", err)
	}
}

func TestServerThatGoesAwayFailsWhatIsLeft(t *testing.T) {
	var s *httptest.Server
	var once sync.Once
	s = httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { once.Do(func() { s.Listener.Close() }) }))
	s.Config.SetKeepAlivesEnabled(false)
	defer s.Close()
	r := run(t, Plan{Targets: []Target{{URL: s.URL}}, Requests: 10, Connections: 4})
	if r.Answered == 0 || r.Answered+r.Failed != 10 || r.Failures["connect"] == 0 {
		t.Errorf("%d answered, failed: %v; want 10 together", r.Answered, r.Failures)
	}
}

func TestTLS(t *testing.T) {
	authority := origin.NewAuthority(t)
	config := &tls.Config{Certificates: []tls.Certificate{authority.Issue("127.0.0.1")}}
	large := origin.OK(strings.Repeat("y", 300_000))
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for name, script := range map[string]origin.Script{
			"kept":   origin.Reply(large),
			"closed": func(c *origin.Conn) { c.Read(); c.Write("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall") },
		} {
			c := config.Clone()
			c.MaxVersion = version
			o := origin.StartTLS(t, c, script)
			r := run(t, Plan{
				Targets: []Target{{Method: "POST", URL: "https://" + o.Address + "/", Body: []byte(strings.Repeat("z", 500_000))}}, TLS: &tls.Config{RootCAs: authority.Pool},
				Requests: 20, Connections: 4, Rate: 1000,
			})
			if r.Answered != 20 || r.Failed != 0 {
				t.Errorf("%s, TLS %x: %d answered, failed: %v (%s)", name, version, r.Answered, r.Failures, r.Cause)
			}
		}
	}
}

// TestOpenLoopCountsThoseWhoWouldHaveWaited: a server that answers nothing for
// a second while a thousand requests are due. Only as many as there are
// connections were sent before, and yet all of them waited.
func TestOpenLoopCountsThoseWhoWouldHaveWaited(t *testing.T) {
	const rate, n, stall, connections = 1000, 2500, time.Second, 4
	var mu sync.Mutex
	requests, stalled := 0, sync.OnceFunc(func() { time.Sleep(stall) })
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if requests++; requests == 500 {
			stalled()
		}
	}))
	defer s.Close()
	r := run(t, Plan{Targets: []Target{{URL: s.URL}}, Rate: rate, Requests: n, Connections: connections})
	if r.Answered != n {
		t.Fatalf("%d answered, failed: %v", r.Answered, r.Failures)
	}
	if r.Latency.P999 < 0.9 {
		t.Errorf("p99.9 is %s; want the stall of %v in it", FormatSeconds(r.Latency.P999), stall)
	}
	// Those due in its first half waited for at least the second: 500 of 2,500.
	share := 0.0
	for _, p := range r.Curve {
		if p.Latency < 0.5 {
			share = p.Share
		}
	}
	if waited := (1 - share) * n; waited < 450 {
		t.Errorf("%.0f requests waited for half a second or longer; want 500", waited)
	}
	if r.Service.Max < 0.9 {
		t.Errorf("the longest answer took %s from when its request was sent", FormatSeconds(r.Service.Max))
	}
}

// TestInjectedDelayIsMeasured: one request of ten is answered 50 ms later.
func TestInjectedDelayIsMeasured(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "0") {
			time.Sleep(50 * time.Millisecond)
		}
	}))
	defer s.Close()
	r := run(t, Plan{Targets: []Target{{URL: s.URL + "/{n}"}}, Requests: 1000, Connections: 20})
	if r.Answered != 1000 || r.Latency.Min >= 0.05 || r.Latency.P95 < 0.0499 || r.Latency.Max < 0.05 || r.Elapsed < 0.05*100/20 {
		t.Errorf("%d answered within %v s, latency %+v; want a tenth of them later than 50 ms", r.Answered, r.Elapsed, r.Latency)
	}
}

func TestRunsEndEarlyWhenToldTo(t *testing.T) {
	o := origin.Start(t, origin.Reply(origin.OK("x")))
	for _, p := range []Plan{{}, {Rate: 100}, {Requests: 1 << 40}, {Rate: 1e6, Connections: 1}} {
		ctx, cancel := context.WithCancel(context.Background())
		p.Targets, p.Timeout = []Target{{URL: "http://" + o.Address}}, 60*time.Second
		if p.Requests == 0 {
			p.Duration = time.Hour
		}
		r, err := Start(ctx, p, nil)
		if err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(60 * time.Second); r.Answered() < 10 && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		cancel()
		if report := r.Wait(); report.Answered < 10 || report.Failed != 0 {
			t.Errorf("%+v: %d answered, failed: %v", p, report.Answered, report.Failures)
		}
	}
}

func TestWarmupIsNotCounted(t *testing.T) {
	o := origin.Start(t, origin.Reply(origin.OK("x")))
	r, err := Start(context.Background(), Plan{
		Targets: []Target{{URL: "http://" + o.Address}}, Rate: 1000, Warmup: 300 * time.Millisecond, Requests: 50, Timeout: 60 * time.Second,
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	<-r.Measuring()
	report := r.Wait()
	if report.Answered != 50 || r.Answered() != 350 {
		t.Errorf("%d counted of %d; want 50 of 350", report.Answered, r.Answered())
	}
}
