// Package mallocs is for tests that prove that work allocates nothing.
package mallocs

import (
	"runtime"
	"runtime/debug"
	"testing"
)

// None fails the test when so many runs of the work make more than one
// allocation in a thousand of them. It counts those of the whole process, where
// testing.AllocsPerRun would round them down. The work has run a few times
// before, so that its buffers have their usual size. The race detector
// allocates: with it the test is skipped.
func None(t testing.TB, what string, runs int, work func()) {
	t.Helper()
	if Race {
		t.Skip("the race detector allocates")
	}
	for range 100 {
		work()
	}
	// The collector would empty the pools.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		work()
	}
	runtime.ReadMemStats(&after)
	if n := after.Mallocs - before.Mallocs; n > uint64(runs)/1000 {
		t.Errorf("%s: %d allocations in %d runs", what, n, runs)
	}
}
