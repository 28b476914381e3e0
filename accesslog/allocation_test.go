//go:build !race

package accesslog

import (
	"runtime"
	"testing"
)

func TestLogAllocatesNothing(t *testing.T) {
	for _, format := range []string{"json", "text"} {
		l := start(t, Options{Output: "/dev/null", Format: format, Query: true}, nil)
		r := example()
		const runs = 50000
		log := func() {
			for range runs {
				l.Log(r)
			}
		}
		log() // buffers grow to their size
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		log()
		runtime.ReadMemStats(&after)
		if n := after.Mallocs - before.Mallocs; n > runs/1000 {
			t.Errorf("%s: %d allocations in %d runs", format, n, runs)
		}
	}
}
