package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"gateway/internal/loadgen"
)

// TestMain lets this binary be the origin, as the command is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "origin" {
		fail(runOrigin(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// startedBench has an origin, and whatever else measuring takes.
func startedBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{warmup: 50 * time.Millisecond, closed: 300 * time.Millisecond, fixed: 300 * time.Millisecond, connections: 50, dir: t.TempDir()}
	if err := certificate(b.dir); err != nil {
		t.Fatal(err)
	}
	if err := b.startOrigin(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.stopOrigin)
	return b
}

func TestOriginAnswersWhatItIsAskedFor(t *testing.T) {
	b := startedBench(t)
	before, err := b.asked()
	if err != nil || before != 0 {
		t.Fatalf("%v requests before the first, %v", before, err)
	}
	for _, address := range b.origins {
		for name, size := range answerSizes {
			for prefix, control := range map[string]string{"": "no-store", "c": "public, max-age=3600"} {
				response, err := http.Post("http://"+address+"/"+prefix+name+"/1", "text/plain", strings.NewReader(strings.Repeat("x", 100_000)))
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(response.Body)
				response.Body.Close()
				if err != nil || !bytes.Equal(body, listing(size)) || response.Header.Get("Cache-Control") != control {
					t.Errorf("%s: %d bytes, %v, %v", name, len(body), response.Header, err)
				}
			}
		}
	}
	if n, err := b.asked(); err != nil || n != 24 {
		t.Errorf("%v requests counted, %v; want 24", n, err)
	}
}

func TestOriginTakesRequestsInPieces(t *testing.T) {
	b := startedBench(t)
	c, err := net.Dial("tcp", b.origins[0])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	in := bufio.NewReader(c)
	ask := func(request string, step int) {
		t.Helper()
		for len(request) > 0 {
			n := min(step, len(request))
			io.WriteString(c, request[:n])
			request = request[n:]
			time.Sleep(100 * time.Microsecond) // another segment, most often
		}
		response, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(response.Body); err != nil || !bytes.Equal(body, listing(1024)) {
			t.Fatalf("%d bytes, %v", len(body), err)
		}
	}
	for _, step := range []int{1, 7, 1000} {
		ask("GET /1k/1 HTTP/1.1\r\nHost: a\r\n\r\n", step)
		ask("POST /1k/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789", step)
		ask("POST /1k/1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", step)
	}
	fmt.Fprint(c, strings.Repeat("GET /1k/1 HTTP/1.1\r\nHost: a\r\n\r\n", 50)) // at once
	for range 50 {
		response, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(response.Body); err != nil || len(body) != 1024 {
			t.Fatalf("%d bytes, %v", len(body), err)
		}
	}
}

func TestRenewedBodiesDiffer(t *testing.T) {
	b := startedBench(t)
	s := findScenario("all-on-new")
	var last []byte
	for i := range 3 {
		response, body, err := s.ask(b.origins[0], i)
		if err != nil || response.StatusCode != 200 || len(body) != answerSizes[s.answer] || bytes.Equal(body, last) {
			t.Fatalf("%d bytes, %v; the same ones: %v", len(body), err, bytes.Equal(body, last))
		}
		last = body
	}
	identity := *s
	identity.needs.Gzip = false
	if err := identity.verify(b.origins[0]); err != nil {
		t.Error(err)
	}
}

// TestWrongAnswersAreFound: what is measured must be the origin's own.
func TestWrongAnswersAreFound(t *testing.T) {
	good := listing(answerSizes["1k"])
	for want, answer := range map[string]func(w http.ResponseWriter){
		"":                     func(w http.ResponseWriter) { w.Write(good) },
		"status 502; want 200": func(w http.ResponseWriter) { w.WriteHeader(502) },
		"1023 bytes that are not the origin's 1024": func(w http.ResponseWriter) { w.Write(good[1:]) },
		"1024 bytes that are not the origin's 1024": func(w http.ResponseWriter) { w.Write(bytes.ToUpper(good)) },
		`content coding "gzip"`:                     func(w http.ResponseWriter) { w.Header().Set("Content-Encoding", "gzip") },
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w) })}
		go server.Serve(l)
		err = findScenario("proxy-small").verify(l.Addr().String())
		server.Close()
		if want == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
}

func TestChecksOfWhatWasMeasured(t *testing.T) {
	s := findScenario("proxy-small")
	r := &loadgen.Report{Answered: 1000, Statuses: map[string]int64{"200": 1000}}
	f := func(want string, origin float64, r *loadgen.Report) {
		t.Helper()
		err := s.check(&part{Origin: origin}, r)
		if want == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
	f("", 1, r)
	f("0.500 requests to the origin", 0.5, r)
	f("want 200", 1, &loadgen.Report{Answered: 1000, Statuses: map[string]int64{"200": 900, "429": 100}})
	f("want 200", 1, &loadgen.Report{Answered: 1000, Failed: 10, Statuses: map[string]int64{"200": 1000}})
}

// TestProcessorTimeIsMeasured measures the origin as if it were a proxy.
func TestProcessorTimeIsMeasured(t *testing.T) {
	b := startedBench(t)
	s := findScenario("proxy-small")
	p := &process{cmd: b.origin}
	plan := loadgen.Plan{
		Targets: []loadgen.Target{s.target(b.origins[0])}, Connections: 4, Threads: 1, Duration: 500 * time.Millisecond, Timeout: 60 * time.Second,
	}
	m, err := b.load(p, s, plan)
	if err != nil {
		t.Fatal(err)
	}
	if m.CPU <= 0 || m.Rate <= 0 || m.Share <= 0 || m.Share > 1.5 || m.Resident < 1<<20 || m.Body < 1024 || m.Origin != 1 {
		t.Errorf("measured %+v", m)
	}
	run, err := loadgen.Start(context.Background(), plan, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r := run.Wait(); r.Failed != 0 {
		t.Errorf("failed: %v", r.Failures)
	}
}
