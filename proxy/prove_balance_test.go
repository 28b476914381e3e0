//go:build prove

package proxy

import (
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"gateway/internal/origin"
)

// slots is an origin that works on so many requests at the same time, each for
// so long; the others wait.
func slots(t *testing.T, n int, work time.Duration) *origin.Origin {
	free := make(chan struct{}, n)
	return origin.Start(t, func(c *origin.Conn) {
		for {
			q := c.Read()
			free <- struct{}{}
			time.Sleep(work)
			<-free
			c.Write(origin.OK(q.Target))
		}
	})
}

// TestProveAdaptive has 1,000 clients ask an origin that works on 100 requests
// at the same time, with and without adaptive concurrency. Each client asks
// again as soon as it is answered; refused, it waits for as long as the
// Retry-After of the answer says, as well-behaved clients do: so what is
// offered is bounded by the clients and not by how fast this machine, which
// is clients, gateway and origin at the same time, can refuse. An answer is good when it takes
// no more than four times as long as without load.
//
//	make prove-balance
func TestProveAdaptive(t *testing.T) {
	const places, work, offered, warm, length = 100, 100 * time.Millisecond, 1000, 6 * time.Second, 8 * time.Second
	best := float64(places) / work.Seconds()
	fmt.Printf("%-18s %10s %10s %12s %10s %10s\n", "", "median", "p99", "answered/s", "good/s", "503/s")
	run := func(name, options string) (median time.Duration, good float64) {
		o := slots(t, places, work)
		r := begin(t, app(o.Address)+"first_byte_timeout = \"30s\"\n"+options)
		var mu sync.Mutex
		var times []time.Duration
		refused := 0
		begun := time.Now()
		var all sync.WaitGroup
		for range offered {
			all.Go(func() {
				c := r.dial()
				for time.Since(begun) < warm+length {
					c.SetDeadline(time.Now().Add(time.Minute))
					at := time.Now()
					c.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
					a := c.receive("GET")
					took := time.Since(at)
					if since := time.Since(begun); since > warm && since <= warm+length {
						mu.Lock()
						if a.StatusCode == 200 {
							times = append(times, took)
						} else {
							refused++
						}
						mu.Unlock()
					}
					if a.StatusCode != 200 {
						pause, err := strconv.Atoi(a.Header.Get("Retry-After"))
						if err != nil || pause < 1 {
							t.Errorf("status %d, Retry-After %q", a.StatusCode, a.Header.Get("Retry-After"))
							return
						}
						time.Sleep(time.Duration(pause) * time.Second)
					}
				}
			})
		}
		all.Wait()
		slices.Sort(times)
		useful := 0
		for _, d := range times {
			if d <= 4*work {
				useful++
			}
		}
		median, good = times[len(times)/2], float64(useful)/length.Seconds()
		fmt.Printf("%-18s %10v %10v %12.0f %10.0f %10.0f\n", name, median.Round(time.Millisecond), times[len(times)*99/100].Round(time.Millisecond),
			float64(len(times))/length.Seconds(), good, float64(refused)/length.Seconds())
		return median, good
	}
	fmt.Printf("unloaded %v, best %.0f/s\n", work, best)
	run("without", "")
	median, good := run("adaptive = true", "adaptive = true\n")
	fmt.Printf("with the limit: latency %.2f times that without load, goodput %.0f %% of the best\n", float64(median)/float64(work), 100*good/best)
}
