package load

import (
	"sync"
	"testing"
	"time"
)

// Stalls watches, until the test ends, for how long the machine keeps this
// process from running. The function that it returns tells the longest time so
// far: what took so long proves nothing.
func Stalls(tb testing.TB) func() time.Duration {
	var mu sync.Mutex
	var longest time.Duration
	last := time.Now()
	stop := make(chan struct{})
	look := func() {
		now := time.Now()
		longest = max(longest, now.Sub(last))
		last = now
	}
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			mu.Lock()
			look()
			mu.Unlock()
		}
	})
	tb.Cleanup(func() {
		close(stop)
		done.Wait()
	})
	return func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		look()
		return longest
	}
}
