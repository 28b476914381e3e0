package metrics

import (
	"fmt"
	"io"
	"testing"
	"time"
)

func BenchmarkCounter(b *testing.B) {
	c := New().Counter("a_total", "A.")
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c.Inc()
		}
	})
}

func BenchmarkHistogram(b *testing.B) {
	h := New().Histogram("a_seconds", "A.")
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			h.Observe(3 * time.Millisecond)
		}
	})
}

func BenchmarkRequests(b *testing.B) {
	q := New().Requests("users", testMethods)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			q.Inc(1, 200)
		}
	})
}

// BenchmarkScrape writes 100 routes, each with three methods and four statuses.
func BenchmarkScrape(b *testing.B) {
	r := New()
	for route := range 100 {
		q := r.Requests(fmt.Sprint("route", route), testMethods)
		for method := range uint8(3) {
			q.Observe(method, time.Millisecond)
			for _, status := range []int{200, 304, 404, 502} {
				q.Inc(method, status)
			}
		}
	}
	b.SetBytes(int64(len(r.String())))
	b.ReportAllocs()
	for b.Loop() {
		if err := r.WritePrometheus(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadRuntime(b *testing.B) {
	for b.Loop() {
		reading.families = nil
		runtimeFamilies()
	}
}
