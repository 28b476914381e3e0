package processor

import (
	"runtime"
	"sync"
	"testing"
)

func TestCurrentIsBelowCount(t *testing.T) {
	if Count < 1 || Count > 64 || Count&(Count-1) != 0 {
		t.Fatalf("%d cells", Count)
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4 * Count)) // more than there are cells
	var wg sync.WaitGroup
	for range 8 * Count {
		wg.Go(func() {
			for range 1000 {
				if n := Current(); n < 0 || n >= Count {
					t.Errorf("on processor %d of %d", n, Count)
					return
				}
				runtime.Gosched()
			}
		})
	}
	wg.Wait()
}

func TestCounterLosesNothing(t *testing.T) {
	c := NewCounter()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10_000 {
				c.Add(3)
				c.Add(^uint64(0)) // one less
			}
		})
	}
	wg.Wait()
	if n := c.Value(); n != 160_000 {
		t.Errorf("the counter says %d", n)
	}
}

func BenchmarkCounter(b *testing.B) {
	c := NewCounter()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			c.Add(1)
		}
	})
}
