//go:build !race

package clock

import (
	"runtime"
	"testing"
)

func TestReadersAllocateNothing(t *testing.T) {
	Coarse()
	within(t, "the clock woke", func() bool { return coarse.Load() != 0 })
	const runs = 20000
	b := make([]byte, 0, 64)
	var sum int64
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		sum += Mono() + Coarse() + Unix() + int64(len(HTTPDate())) + Wall().Unix()
		b = AppendRFC3339(b[:0], sum)
	}
	runtime.ReadMemStats(&after)
	if n := after.Mallocs - before.Mallocs; n > runs/1000 {
		t.Errorf("%d allocations in %d runs", n, runs)
	}
}
