package upstream

import (
	"container/heap"
	"slices"
	"testing"
	"time"
)

// visits are when clients come with their next requests, soonest first.
type visits []int64

func (v visits) Len() int           { return len(v) }
func (v visits) Less(i, j int) bool { return v[i] < v[j] }
func (v visits) Swap(i, j int)      { v[i], v[j] = v[j], v[i] }
func (v *visits) Push(x any)        { *v = append(*v, x.(int64)) }
func (v *visits) Pop() any {
	old := *v
	x := old[len(old)-1]
	*v = old[:len(old)-1]
	return x
}

// closedLoop has 1,000 clients ask an origin that works on 100 requests at the
// same time, each for 100 ms, and queues the others. A client asks again as
// soon as it is answered; refused, it waits for as long as Retry-After says.
// It returns the latencies of what was asked after the warm-up, and how many
// answers a second came within twice the latency without load.
func closedLoop(t *testing.T, on bool, warm, length time.Duration) (latencies []time.Duration, goodput float64, limit int64) {
	const slots, clients, service, retryAfter = 100, 1000, 100 * time.Millisecond, time.Second
	o := weighted("round_robin", 1)
	if on {
		o.Adaptive = DefaultAdaptive()
	}
	m := simulate(t, o)
	free := make([]int64, slots) // when each of the origin's workers is done
	begin := m.now
	var next visits
	for range clients {
		heap.Push(&next, begin+int64(m.random.Float64()*float64(service)))
	}
	good := 0
	for {
		at := heap.Pop(&next).(int64)
		if at-begin > int64(warm+length) {
			break
		}
		m.until(at)
		s, verdict := m.Pick(new(Tried))
		if s == nil {
			if verdict != Overloaded {
				t.Fatalf("verdict %v", verdict)
			}
			heap.Push(&next, at+int64(retryAfter))
			continue
		}
		worker := 0
		for i, at := range free {
			if at < free[worker] {
				worker = i
			}
		}
		free[worker] = max(free[worker], m.now) + int64(m.around(service))
		d := free[worker] - m.now
		if ends := free[worker] - begin; ends > int64(warm) && ends <= int64(warm+length) {
			latencies = append(latencies, time.Duration(d))
			if d <= int64(2*service) {
				good++
			}
		}
		m.fly(s, d)
		heap.Push(&next, free[worker])
	}
	slices.Sort(latencies)
	limit, _ = m.Limit()
	return latencies, float64(good) / length.Seconds(), limit
}

// 1,000 clients in a closed loop on an origin that does 100 at a time: the
// limit finds the origin's capacity, from the first seconds and over the
// probes that come every half minute.
func TestAdaptiveLimitServesClosedLoop(t *testing.T) {
	const service, best = 100 * time.Millisecond, 1000.0
	for _, warm := range []time.Duration{6 * time.Second, 25 * time.Second, 60 * time.Second} {
		latencies, goodput, limit := closedLoop(t, true, warm, 8*time.Second)
		median, high := latencies[len(latencies)/2], latencies[len(latencies)*99/100]
		t.Logf("with, after %v: median %v, p99 %v, goodput %.0f/s, limit %d", warm, median, high, goodput, limit)
		if median > 2*service || goodput < 0.9*best {
			t.Errorf("after %v: median %v, want at most %v; goodput %.0f/s, want at least %.0f/s", warm, median, 2*service, goodput, 0.9*best)
		}
	}
	latencies, goodput, _ := closedLoop(t, false, 6*time.Second, 8*time.Second)
	t.Logf("without: median %v, goodput %.0f/s", latencies[len(latencies)/2], goodput)
	if latencies[len(latencies)/2] < 5*service || goodput > 0.1*best {
		t.Error("no collapse without the limit")
	}
}
