package match

import (
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
)

// zeroAllocations runs f often and fails when it allocates more than once in a
// thousand runs. AllocsPerRun would round that down; the whole process is
// counted here too. Skipped under the race detector, which allocates itself.
func zeroAllocations(t *testing.T, f func()) {
	t.Helper()
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		t.Skip("the race detector allocates")
	}
	const runs = 20_000
	for range 100 {
		f() // buffers grow to their usual size
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		f()
	}
	runtime.ReadMemStats(&after)
	if n := after.Mallocs - before.Mallocs; n > runs/1000 {
		t.Errorf("%d allocations in %d runs", n, runs)
	}
}
