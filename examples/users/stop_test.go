package users

import (
	"context"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestRunServesUntilItsContextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ready := make(chan string, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Options{Seed: 10, Ready: func(address string) { ready <- address }})
	}()
	address := <-ready
	resp, err := http.Get("http://" + address + "/users")
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v, %v", resp, err)
	}
	resp.Body.Close()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", address); err == nil {
		c.Close()
		t.Error("the port is still open")
	}
	if err := Run(t.Context(), Options{Listen: "127.0.0.1:x"}); err == nil {
		t.Error("a bad address is no error")
	}
	if err := Run(ctx, Options{}); err != nil {
		t.Errorf("context that has ended: %v", err)
	}
}

func TestRequestsEndBeforeTheServiceDoes(t *testing.T) {
	r := start(t, Options{})
	slow, stream := make(chan answer, 1), make(chan answer, 1)
	for path, answered := range map[string]chan answer{"/slow?ms=600": slow, "/stream?n=1000": stream} {
		go func() {
			a, err := r.try("GET", path, "")
			if err != nil {
				t.Error(err)
			}
			answered <- a
		}()
	}
	poll(t, "requests underway", func() bool {
		return r.service.server.GetOpenConnectionsCount() >= 2 && r.service.metrics.inFlight.Load() >= 1
	})
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if a := <-slow; a.status != 200 || a.body != `{"slept_ms":600}` {
		t.Errorf("slow request: %+v", a)
	}
	if a := <-stream; a.status != 200 || !strings.HasSuffix(a.body, "\n\n") {
		t.Errorf("stream: %+v", a)
	}
}

func TestDrainingServiceSaysSo(t *testing.T) {
	r := start(t, Options{Drain: time.Second})
	ended := make(chan error, 1)
	go func() { ended <- r.stop() }()
	<-r.service.stopping.Done()
	a := r.get("/health")
	if h := decode[map[string]string](t, r.want(503, a)); h["status"] != "stopping" {
		t.Errorf("health %v", h)
	}
	a = r.get("/users")
	if r.want(200, a); !a.closes {
		t.Errorf("header %v; want Connection: close", a.header)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestGraceIsBounded(t *testing.T) {
	s, err := New(t.Context(), Options{Grace: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	answered := make(chan int, 1)
	go func() {
		resp, err := http.Get("http://" + s.Addr() + "/slow?ms=30000")
		if err != nil {
			t.Error(err)
			answered <- 0
			return
		}
		resp.Body.Close()
		answered <- resp.StatusCode
	}()
	poll(t, "request underway", func() bool { return s.metrics.inFlight.Load() == 1 })
	cancel()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "did not end within 100ms") {
		t.Errorf("error %v", err)
	}
	if status := <-answered; status != 503 {
		t.Errorf("the slow request got %d; want 503", status)
	}
}

func TestNoGoroutineOutlivesTheService(t *testing.T) {
	life := func() {
		r := start(t, Options{DatabaseURL: newDatabase(), RedisURL: sharedRedis().URL(), Cache: CacheOptions{Prefix: t.Name()}})
		r.get("/users")
		r.get("/health")
		r.send("POST", "/users", `{"name":"A","email":"a@example.com","password":"long enough"}`)
		r.get("/stream?n=1")
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	}
	life() // starts what lives as long as the process
	before := runtime.NumGoroutine()
	for range 3 {
		life()
	}
	// fasthttp's idle workers end within 10 s.
	deadline := time.Now().Add(20 * time.Second)
	for runtime.NumGoroutine() > before {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines; want %d\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
		time.Sleep(20 * time.Millisecond)
	}
}
