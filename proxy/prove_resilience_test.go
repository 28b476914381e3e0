//go:build prove

package proxy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gateway/internal/load"
	"gateway/internal/origin"
)

// The figures of this file are those that tests bound, and some that no test
// may depend on. TestProveBalance prints them all.
//
//	make prove-balance
func TestProveBalance(t *testing.T) {
	t.Run("slow server", proveSlowServer)
	t.Run("attempts", proveAttempts)
	t.Run("recovery", proveRecovery)
	t.Run("slow start", proveSlowStart)
}

// proveSlowServer has clients ask four servers, and the same four with one that
// is twenty times slower.
func proveSlowServer(t *testing.T) {
	const work, clients, warm, length = 20 * time.Millisecond, 10, 2 * time.Second, 8 * time.Second
	// run gives the share of the slow server and p99 of the others.
	run := func(slow bool) (share float64, p99 time.Duration) {
		var addresses []string
		for i := range 5 {
			mean, name := work, "fast"
			if i == 4 {
				mean, name = 20*work, "slow"
				if !slow {
					break
				}
			}
			addresses = append(addresses, origin.Start(t, func(c *origin.Conn) {
				for {
					c.Read()
					time.Sleep(time.Duration(float64(mean) * (0.5 + rand.Float64())))
					c.Write(origin.OK(name))
				}
			}).Address)
		}
		r := begin(t, app(addresses...)+"balance = \"peak_ewma\"\n")
		var mu sync.Mutex
		var times []time.Duration
		all := 0
		begun := time.Now()
		var wait sync.WaitGroup
		for range clients {
			wait.Go(func() {
				c := r.dial()
				for time.Since(begun) < warm+length {
					c.SetDeadline(time.Now().Add(patience))
					at := time.Now()
					c.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
					a := c.receive("GET")
					took := time.Since(at)
					if time.Since(begun) < warm {
						continue
					}
					mu.Lock()
					all++
					if a.body == "fast" {
						times = append(times, took)
					}
					mu.Unlock()
				}
			})
		}
		wait.Wait()
		slices.Sort(times)
		return 1 - float64(len(times))/float64(all), times[len(times)*99/100]
	}
	// At the same time, so that what else the machine does hits both.
	var without, with time.Duration
	var share float64
	var both sync.WaitGroup
	both.Go(func() { _, without = run(false) })
	both.Go(func() { share, with = run(true) })
	both.Wait()
	fmt.Printf("\npeak_ewma, one of five servers 20 times slower (%v)\n", 20*work)
	fmt.Printf("  its share of the requests  %6.2f %%   (want < 3 %%)\n", 100*share)
	fmt.Printf("  p99 of the others          %8v   without it %v: %+.0f %% (want within 20 %%)\n",
		with.Round(100*time.Microsecond), without.Round(100*time.Microsecond), 100*(float64(with)/float64(without)-1))
}

// proveAttempts prints what servers that die, freeze and fail cost in attempts.
func proveAttempts(t *testing.T) {
	fmt.Printf("\n%-34s %9s %9s %7s %7s\n", "attempts for a request", "requests", "attempts", "ratio", "failed")
	line := func(name string, requests, attempts, failed int) {
		fmt.Printf("  %-32s %9d %9d %7.3f %7d\n", name, requests, attempts, float64(attempts)/float64(requests), failed)
	}
	for _, c := range struckBy {
		requests, attempts, failed := strike(t, c.signal)
		line("one of three servers "+c.name, requests, attempts, failed)
	}
	requests, attempts, failed, floor := storm(t)
	line(fmt.Sprintf("all fail half (floor of %d)", floor), requests, attempts, failed)
}

// proveRecovery prints how long it takes until clients are answered again after
// all servers were down.
func proveRecovery(t *testing.T) {
	const rounds, interval = 5, time.Second
	o := repeating(t, nil)
	r := begin(t, app(o.Address)+"health = { interval = \""+interval.String()+"\" }\n")
	var times []time.Duration
	for range rounds {
		r.until("the server is up", func() bool { return r.get("/").StatusCode == 200 })
		o.Close()
		r.until("the server is down", func() bool { return r.metric("gateway_upstream_up") == 0 })
		time.Sleep(time.Duration(rand.Int64N(int64(interval)))) // anywhere between two checks
		o = origin.StartAt(t, "tcp", o.Address, func(c *origin.Conn) {
			for {
				q := c.Read()
				c.Write(origin.OK(q.Target))
			}
		})
		at := time.Now()
		r.until("a client is answered", func() bool { return r.get("/").StatusCode == 200 })
		times = append(times, time.Since(at))
	}
	slices.Sort(times)
	fmt.Printf("\nall servers were down, one is back: clients are answered after (probe interval %v)\n  median %v, longest of %d %v\n", interval,
		times[rounds/2].Round(time.Millisecond), rounds, times[rounds-1].Round(time.Millisecond))
}

// proveSlowStart prints the share that a server gets second by second after
// its ejection.
func proveSlowStart(t *testing.T) {
	const window = 10
	var sick atomic.Bool
	var count atomic.Int64
	bad := repeating(t, func(c *origin.Conn, _ *origin.Request) {
		if n := count.Add(1); sick.Load() && n%2 == 0 {
			c.Reset()
		}
	})
	r := begin(t, app(bad.Address, repeating(t, nil).Address, repeating(t, nil).Address),
		fmt.Sprintf("eject = { time = \"1s\" }\nslow_start = \"%ds\"\n", window))
	l := load.Start(t)
	l.Add(load.Clients{Number: 4, Address: r.address})
	answered(r, l, 300)
	from := bad.Requests()
	sick.Store(true)
	r.until("the server is ejected", func() bool { return r.metric("gateway_upstream_ejections_total", bad.Address) > 0 })
	until := bad.Requests() - from
	sick.Store(false)
	r.until("the server is back", func() bool { return r.metric("gateway_upstream_up", bad.Address) == 1 })
	begun, before, all := time.Now(), bad.Requests(), l.Answered()
	fmt.Printf("\na server that resets half of its answers is ejected after %d requests; back in use, with slow_start = %ds, its share is\n", until, window)
	fmt.Printf("  %-8s %8s %8s %10s\n", "second", "share", "ideal", "requests")
	for second := 1; second <= window+2; second++ {
		time.Sleep(time.Until(begun.Add(time.Duration(second) * time.Second)))
		n, m := bad.Requests(), l.Answered()
		weight := min(max(0.1, (float64(second)-0.5)/window), 1)
		fmt.Printf("  %-8d %6.1f %% %6.1f %% %10d\n", second, 100*float64(n-before)/float64(m-all), 100*weight/(2+weight), m-all)
		before, all = n, m
	}
	fmt.Printf("  requests that failed: %d\n", l.Failed())
	spared(t, l)
}
