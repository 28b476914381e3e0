package main

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gateway/internal/load"
	"gateway/internal/testenv"
)

// fleet is gateways that keep one limit.
type fleet struct {
	t        testing.TB
	store    string
	rate     float64 // a second
	burst    float64
	gateways []*child
	callers  int  // connections to each
	closed   bool // callers ask as soon as they are answered, instead of three times as often as the rate allows
}

// startFleet starts so many gateways and waits until they know each other.
func startFleet(t testing.TB, gateways int, redis *testenv.Server, store string, rate, burst int, timeout time.Duration) *fleet {
	t.Helper()
	f := &fleet{t: t, store: store, rate: float64(rate), burst: float64(burst), callers: 1}
	url := ""
	if redis != nil {
		url = redis.URL()
	}
	for range gateways {
		f.gateways = append(f.gateways, runs(t, fmt.Sprintf(`
[redis]
url     = "%s"
timeout = "%v"
prefix  = "%s:"

[limit.api]
rate        = "%d/s"
burst       = %d
key         = "header:X-Key"
cost_header = "X-Cost"
store       = "%[3]s"
body        = "text"
announce    = true

[[route]]
limit   = "api"
respond = { status = 204 }
`, url, timeout, store, rate, burst)))
	}
	if redis == nil {
		return f
	}
	for _, g := range f.gateways {
		g.until("all gateways are seen", func() bool {
			_, metrics := g.ask("GET", "/metrics")
			return strings.Contains(metrics, fmt.Sprintf("\ngateway_limit_nodes %d\n", gateways))
		})
	}
	return f
}

// bound is what the configuration reference says that is admitted at most in
// such a time.
func (f *fleet) bound(span time.Duration) float64 {
	exact := f.burst + f.rate*span.Seconds()
	if f.store != "redis" {
		return exact
	}
	return exact + f.rate*0.060 + 3*max(1, float64(int(f.burst)/8/3))
}

// caller is a connection to one of them.
type caller struct {
	net.Conn
	in *bufio.Reader
}

func (f *fleet) call(gateway int) (*caller, error) {
	conn, err := net.DialTimeout("tcp", f.gateways[gateway].address(), patience)
	if err != nil {
		return nil, err
	}
	return &caller{conn, bufio.NewReader(conn)}, nil
}

// ask sends one request; left is what the bucket has according to the answer.
func (c *caller) ask(key string, cost int) (admitted bool, left int, took time.Duration, err error) {
	began := time.Now()
	c.SetDeadline(began.Add(patience))
	if _, err = fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: test\r\nX-Key: %s\r\nX-Cost: %d\r\n\r\n", key, cost); err != nil {
		return
	}
	a, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return
	}
	_, err = io.Copy(io.Discard, a.Body)
	took = time.Since(began)
	switch {
	case err != nil:
	case a.StatusCode == 204 || a.StatusCode == 429:
		admitted = a.StatusCode == 204
		_, err = fmt.Sscanf(a.Header.Get("RateLimit"), `"api";r=%d`, &left)
	default:
		err = fmt.Errorf("status %d", a.StatusCode)
	}
	return
}

// tally is what callers of a key have got.
type tally struct {
	asked, admitted, failed atomic.Int64
	fullest                 atomic.Int64 // tokens that an answer left, at most
	slowest                 atomic.Int64 // ns
	began                   time.Time
	span                    time.Duration
}

func most(a *atomic.Int64, n int64) {
	for old := a.Load(); n > old && !a.CompareAndSwap(old, n); old = a.Load() {
	}
}

func (y *tally) add(f *fleet, gateway int, c *caller, key string, cost int) (admitted, ok bool) {
	admitted, left, took, err := c.ask(key, cost)
	y.asked.Add(1)
	if err != nil {
		y.failed.Add(1)
		f.t.Errorf("%s: gateway %d: %v after %v", f.store, gateway, err, took)
		return false, false
	}
	if admitted {
		y.admitted.Add(int64(cost))
		most(&y.fullest, int64(left))
	}
	most(&y.slowest, int64(took))
	return admitted, true
}

// shape is how much of the demand each gateway gets.
type shape func(gateway int, at time.Duration) float64

func even(int, time.Duration) float64 { return 1. / 3 }

func skewed(gateway int, _ time.Duration) float64 { return []float64{0.9, 0.06, 0.04}[gateway] }

func shifting(gateway int, at time.Duration) float64 {
	if int(at/(300*time.Millisecond))%3 == gateway {
		return 1
	}
	return 0
}

// crowdOf asks for a key. What is due is counted by the time that has passed: a machine that stands still for a
// moment does not make the demand smaller.
func (f *fleet) crowdOf(key string, span time.Duration, share shape) *tally {
	y := &tally{began: time.Now()}
	var all sync.WaitGroup
	for i := range f.callers * len(f.gateways) {
		all.Go(func() {
			gateway := i % len(f.gateways)
			c, err := f.call(gateway)
			if err != nil {
				y.failed.Add(1)
				f.t.Errorf("%s: gateway %d: %v", f.store, gateway, err)
				return
			}
			defer c.Close()
			due, last := 0.0, time.Duration(0)
			for at := time.Duration(0); at < span; at = time.Since(y.began) {
				due = min(due+3*f.rate/float64(f.callers)*share(gateway, at)*(at-last).Seconds(), f.rate)
				if last = at; f.closed {
					due = 100
				}
				for ; due >= 1 && time.Since(y.began) < span; due-- {
					if _, ok := y.add(f, gateway, c, key, 1); !ok {
						return
					}
				}
				if !f.closed {
					time.Sleep(2 * time.Millisecond)
				}
			}
		})
	}
	all.Wait()
	y.span = time.Since(y.began)
	return y
}

// exact has a crowd of this shape ask for a key, and fails the test when more
// is admitted than the store's bound, or less than there was.
//
// Between the first answer and the question that finds the bucket empty at the
// end, it must never have been full, when tokens are lost; that, and a lack of
// demand, is seen in what answers say is left. Then the crowd was too slow, and
// another one is tried.
func (f *fleet) exact(key string, span time.Duration, share shape) {
	for attempt := 1; ; attempt++ {
		key := fmt.Sprint(key, attempt)
		c, err := f.call(0)
		if err != nil {
			f.t.Error(err)
			return
		}
		defer c.Close()
		var first, last tally
		began := time.Now()
		if _, ok := first.add(f, 0, c, key, int(f.burst/2)); !ok {
			return
		}
		begun := time.Now()
		y := f.crowdOf(key, span, share)
		var end time.Time
		for admitted, ok := true, true; admitted; { // until nothing is left
			end = time.Now()
			if admitted, ok = last.add(f, 0, c, key, 1); !ok {
				return
			}
		}
		ended := time.Now()

		got := float64(first.admitted.Load() + y.admitted.Load() + last.admitted.Load())
		exact := f.burst + f.rate*end.Sub(begun).Seconds()
		bound := f.bound(ended.Sub(began))
		f.t.Logf("%s, %s: %.0f of %d admitted in %v, %+.1f %%; the bound is %+.1f %%; slowest answer %v", f.store, key, got,
			y.asked.Load()+last.asked.Load()+1, end.Sub(begun).Round(time.Millisecond), 100*(got/exact-1), 100*(bound/exact-1), time.Duration(y.slowest.Load()))
		if got > bound+1 {
			f.t.Errorf("%s, %s: %.0f admitted, want at most %.1f", f.store, key, got, bound)
			return
		}
		least := exact*0.98 - 1
		switch f.store {
		case "local":
			least = exact*0.99 - 1
		case "redis":
			least = exact*0.9 - 1
		}
		if got >= least {
			return
		}
		if full := float64(max(y.fullest.Load(), last.fullest.Load())) >= f.burst-1; attempt == 10 || f.store != "redis" && !full {
			f.t.Errorf("%s, %s: %.0f admitted, want at least %.1f", f.store, key, got, least)
			return
		}
	}
}

// TestThreeGatewaysShareALimit runs three processes on one Redis, for each of
// the shared stores.
func TestThreeGatewaysShareALimit(t *testing.T) {
	shareLimits(t, 50, 50, 2*time.Second, 100*time.Millisecond)
}

// shareLimits counts under even, skewed and shifting load, and then while
// Redis is frozen for five seconds.
//
// Strict gateways wait for Redis no longer than the deadline. Leased ones have
// five seconds' patience with it here, and nobody may notice.
func shareLimits(t *testing.T, rate, burst int, span, deadline time.Duration) {
	redis := testenv.StartRedis(t)
	fleets := []*fleet{
		startFleet(t, 3, redis, "redis-strict", rate, burst, deadline),
		startFleet(t, 3, redis, "redis", rate, burst, 5*time.Second),
	}
	var all sync.WaitGroup
	for _, f := range fleets {
		for name, s := range map[string]shape{"even": even, "skewed": skewed, "shifting": shifting} {
			all.Go(func() { f.exact(name, span, s) })
		}
	}
	all.Wait()

	ended := map[*fleet]time.Time{} // the phase before
	stalls := load.Stalls(t)
	phase := func(name string, span time.Duration, least float64) {
		var mu sync.Mutex
		for _, f := range fleets {
			all.Go(func() {
				mu.Lock()
				before, known := ended[f]
				mu.Unlock()
				y := f.crowdOf("frozen", span, even)
				end := time.Now()
				stalled := stalls()
				there := f.burst
				if known {
					there = min(f.burst, f.rate*y.began.Sub(before).Seconds())
				}
				exact := there + f.rate*end.Sub(y.began).Seconds()
				got := float64(y.admitted.Load())
				slowest := time.Duration(y.slowest.Load())
				t.Logf("%s, %s: %.0f of %d admitted in %v, %+.1f %%; %d failed; slowest answer %v",
					f.store, name, got, y.asked.Load(), y.span.Round(time.Millisecond), 100*(got/exact-1), y.failed.Load(), slowest)
				bound := exact*1.1 + f.bound(0) - f.burst
				if f.store == "redis-strict" { // what comes while an answer is waited for
					bound += f.rate * deadline.Seconds()
				}
				if got > bound {
					t.Errorf("%s, %s: %.0f admitted, want at most %.1f", f.store, name, got, bound)
				}
				if floor := min(least*(there+f.rate*min(span, y.span).Seconds()), float64(y.asked.Load())/3); got < floor {
					t.Errorf("%s, %s: %.0f admitted, want about %.1f", f.store, name, got, exact)
				}
				patient := 10 * deadline // the machine has others to serve
				if f.store == "redis" {
					patient = 2500 * time.Millisecond // half of what waiting for Redis would take
				}
				if slowest > patient+2*stalled {
					t.Errorf("%s, %s: an answer took %v, and the machine stood still for %v at most", f.store, name, slowest, stalled)
				}
				mu.Lock()
				ended[f] = end
				mu.Unlock()
			})
		}
		all.Wait()
	}
	phase("Redis answers", time.Second, 0.5)
	redis.Freeze()
	phase("Redis is frozen", 5*time.Second, 0.5)
	redis.Thaw()
	phase("Redis is back", 2*time.Second, 0.4)
	for _, f := range fleets {
		c, err := f.call(1)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		f.gateways[1].until("decisions are shared again", func() bool {
			shared := func() float64 { return f.decisions(1, "fallback") }
			before := shared()
			if _, _, _, err := c.ask("another", 1); err != nil {
				t.Fatal(err)
			}
			return shared() == before
		})
	}
}

// decisions is how many a gateway has made at a store.
func (f *fleet) decisions(gateway int, store string) (sum float64) {
	_, metrics := f.gateways[gateway].ask("GET", "/metrics")
	for _, line := range strings.Split(metrics, "\n") {
		if strings.HasPrefix(line, "gateway_limit_decisions_total{") && strings.Contains(line, `store="`+store+`"`) {
			var n float64
			fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &n)
			sum += n
		}
	}
	return sum
}

// TestInventedKeysNeedNoMemory is a short TestProveTenMillionKeys.
func TestInventedKeysNeedNoMemory(t *testing.T) { invent(t, 60_000, 10_000) }

// invent sends so many requests with keys of their own to a gateway that
// remembers fewer, and looks at its memory and at clients that are limited.
func invent(t *testing.T, requests, maxKeys int) {
	c := runs(t, fmt.Sprintf(`
[client]
trusted_proxies = ["127.0.0.0/8"]

[limit.api]
rate     = "1/d"
burst    = 1
key      = ["header:X-Api-Key", "ip"]
max_keys = %d
body     = "text"
headers  = "none"

[[route]]
limit   = "api"
respond = { status = 204 }
`, maxKeys))
	const window = 64 // requests in one write
	conn, err := net.DialTimeout("tcp", c.address(), patience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	random := rand.NewChaCha8([32]byte{})
	refused := func(fields ...string) (n int) {
		t.Helper()
		conn.SetDeadline(time.Now().Add(patience))
		var text strings.Builder
		for _, field := range fields {
			text.WriteString("GET / HTTP/1.1\r\nHost: test\r\n" + field + "\r\n\r\n")
		}
		if _, err := io.WriteString(conn, text.String()); err != nil {
			t.Fatal(err)
		}
		for range fields {
			a, err := http.ReadResponse(in, nil)
			if err == nil {
				_, err = io.Copy(io.Discard, a.Body)
			}
			switch {
			case err != nil:
				t.Fatal(err)
			case a.StatusCode == 429:
				n++
			case a.StatusCode != 204:
				t.Fatalf("status %d", a.StatusCode)
			}
		}
		return n
	}
	stranger := func(i int) string {
		a, b := random.Uint64(), random.Uint64()
		if i%2 == 0 {
			return fmt.Sprintf("X-Api-Key: %x%x", a, b)
		}
		return fmt.Sprintf("X-Forwarded-For: 2001:%x:%x:%x::1", a&0xffff, a>>16&0xffff, a>>32&0xffff)
	}
	limited := []string{"X-Api-Key: limited", "X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 2001:db8::1"}
	refused(limited...)
	for range 2000 { // what connections and buffers need
		refused(stranger(0))
	}
	before := c.memory("VmRSS")
	fields := make([]string, window)
	admitted := 0
	for sent := 0; sent < requests; sent += window {
		for i := range fields {
			fields[i] = stranger(i)
		}
		admitted += window - refused(fields...)
		if n := refused(limited...); n != len(limited) {
			t.Fatalf("after %d requests %d clients are limited, want %d", sent, n, len(limited))
		}
	}
	grown := c.memory("VmRSS") - before
	t.Logf("%d keys, of which %d fit: %d admitted, %d bytes more", requests, maxKeys, admitted, grown)
	// 21 bytes a key, and garbage that waits for the collector.
	if most := int64(22*maxKeys + 24<<20); grown > most {
		t.Errorf("%d keys take %d bytes, want at most %d", requests, grown, most)
	}
	if slots := maxKeys + maxKeys/3 + 256 + 16; admitted > slots {
		t.Errorf("%d of %d strangers were admitted, want at most %d", admitted, requests, slots)
	}
}
