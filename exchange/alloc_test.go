//go:build !race

package exchange

import "testing"

func TestFailuresAllocateNothing(t *testing.T) {
	if n := testing.AllocsPerRun(1000, func() {
		x := Acquire()
		x.Fail(NoServer)
		Release(x)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
