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
	if n, _ := Count(runs, work); n > uint64(runs)/1000 {
		t.Errorf("%s: %d allocations in %d runs", what, n, runs)
	}
}

// Count is how many objects the whole process allocates during so many runs of
// the work, and their bytes.
func Count(runs int, work func()) (objects, bytes uint64) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		work()
	}
	runtime.ReadMemStats(&after)
	return after.Mallocs - before.Mallocs, after.TotalAlloc - before.TotalAlloc
}
