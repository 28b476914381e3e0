package loadgen

import (
	"runtime"
	"testing"

	"gateway/internal/origin"
)

// TestAllocationsDoNotGrowWithTheRequests: what a run allocates it allocates
// for its connections, and for the values that its report has.
func TestAllocationsDoNotGrowWithTheRequests(t *testing.T) {
	o := origin.StartFast(t, origin.OK("hello"))
	mallocs := func(rate float64, requests int64) int64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r := run(t, Plan{Targets: []Target{{URL: "http://" + o.Address + "/{n}/{key}"}}, Requests: requests, Connections: 4, Rate: rate, Zipf: 1})
		runtime.ReadMemStats(&after)
		if r.Answered != requests {
			t.Fatalf("%d answered, failed: %v", r.Answered, r.Failures)
		}
		return int64(after.Mallocs - before.Mallocs)
	}
	for _, rate := range []float64{0, 100_000} {
		few := mallocs(rate, 100)
		const n = 20_000
		if many := mallocs(rate, n); many-few > n/2 {
			t.Errorf("rate %v: %d allocations for %d requests, %d for 100", rate, many, n, few)
		}
	}
}
