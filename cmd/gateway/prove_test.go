//go:build prove

package main

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"
)

// TestProveBackends is TestBackendsFailUnderLoad with the default intervals and
// twenty rounds, for its figures:
//
//	make prove-backends
func TestProveBackends(t *testing.T) {
	failBackends(t, 2*time.Second, 2*time.Second, 20)
}

// TestProveLimits counts what one gateway admits at rates from 10/s to 5,000/s,
// of callers who wait for answers and of those who do not, and is then
// TestThreeGatewaysShareALimit with more requests, for longer, and the default
// deadline for Redis.
//
//	make prove-limit
func TestProveLimits(t *testing.T) {
	for _, rate := range []int{10, 100, 1000, 5000} {
		f := startFleet(t, 1, nil, "local", rate, max(1, rate/2), time.Second)
		all := func(int, time.Duration) float64 { return 1 }
		f.callers = 4
		f.exact(fmt.Sprintf("%d a second, open loop, ", rate), 5*time.Second, all)
		f.callers, f.closed = 8, true
		f.exact(fmt.Sprintf("%d a second, closed loop, ", rate), 5*time.Second, all)
	}
	shareLimits(t, 500, 500, 10*time.Second, 50*time.Millisecond)
}

// TestProveRandomQueries is TestRandomQueriesAllocNoMoreThanTheLimit with ten
// million queries, or as many as SOAK says. It says every quarter of a minute how
// far it is.
//
//	make soak
func TestProveRandomQueries(t *testing.T) {
	n := 10_000_000
	if text := os.Getenv("SOAK"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	flood(t, n, 40*time.Minute)
}

// TestProveTenMillionKeys sends ten million requests, each of another client,
// to a gateway that remembers a million: spoofed addresses that a trusted
// proxy vouches for, and random API keys. Its memory must stay within its
// bound, and who is limited must stay limited.
//
//	make prove-limit
func TestProveTenMillionKeys(t *testing.T) { invent(t, 10_000_000, 1_000_000) }
