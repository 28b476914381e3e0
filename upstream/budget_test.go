package upstream

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gateway/internal/mallocs"
)

// second is a time for the budget, s seconds after the start of the process.
func second(s float64) int64 { return int64(s * float64(time.Second)) }

// drain is the number of attempts that the budget allows at once.
func drain(b *Budget, now int64) (n int) {
	for b.Allow(now) {
		n++
	}
	return n
}

func TestBudgetAllowsAShareOfRecentRequests(t *testing.T) {
	b := NewBudget(0.29, 0)
	for i := range 100 {
		b.Request(second(float64(i) / 20)) // within 5 s
	}
	if n := drain(b, second(5)); n != 29 {
		t.Errorf("%d allowed of 100 requests, want 29", n)
	}
	if b.Allow(second(5)) {
		t.Error("allowed beyond the budget")
	}
}

func TestBudgetForgetsAfterTenSeconds(t *testing.T) {
	b := NewBudget(0.2, 0)
	for range 100 {
		b.Request(second(0.5))
	}
	if b.Allow(second(10.5)) {
		t.Error("requests of ten seconds ago still count")
	}
	if n := drain(b, second(9.5)); n != 20 {
		t.Errorf("%d allowed nine seconds later, want 20", n)
	}
	for range 50 {
		b.Request(second(19))
	}
	if n := drain(b, second(19.5)); n != 10 {
		t.Errorf("%d allowed once the retries are forgotten too, want 10", n)
	}
	// The ring's slots are used again by later seconds.
	for range 10 {
		b.Request(second(1000.5))
	}
	if n := drain(b, second(1000.9)); n != 2 {
		t.Errorf("%d allowed much later, want 2", n)
	}
	for range 10 {
		b.Request(second(1<<25 + 100)) // a year: slots hold fewer bits of the second
	}
	if n := drain(b, second(1<<25+100)); n != 2 {
		t.Errorf("%d allowed after a year, want 2", n)
	}
}

func TestBudgetHasAFloor(t *testing.T) {
	b := NewBudget(0.2, 10)
	if n := drain(b, second(3)); n != 100 {
		t.Errorf("%d allowed without requests, want the floor of ten seconds, 100", n)
	}
	if n := drain(NewBudget(0, 0), second(3)); n != 0 {
		t.Errorf("%d allowed by an empty budget", n)
	}
}

func TestBudgetIsNotExceededByARace(t *testing.T) {
	b := NewBudget(0.2, 1)
	const requests, workers = 10_000, 8
	var allowed atomic.Int64
	var wait sync.WaitGroup
	for w := range workers {
		wait.Go(func() {
			for i := range requests / workers {
				now := second(float64(i) / 1000)
				b.Request(now)
				for range 1 + w%2 {
					if b.Allow(now) {
						allowed.Add(1)
					}
				}
			}
		})
	}
	wait.Wait()
	if n := allowed.Load(); n > requests/5+10 || n < requests/20 {
		t.Errorf("%d attempts allowed for %d requests, want at most a fifth and 10", n, requests)
	}
}

func TestBudgetAllocatesNothing(t *testing.T) {
	b := NewBudget(0.2, 10)
	now := int64(0)
	mallocs.None(t, t.Name(), 20_000, func() {
		now += 1e6
		b.Request(now)
		b.Allow(now)
	})
}
