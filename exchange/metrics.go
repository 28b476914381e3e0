package exchange

import "gateway/metrics"

// Metrics are the counters of one route, resolved when the snapshot is built.
type Metrics struct {
	Requests *metrics.Requests // by method and status, and durations by method
	BytesIn  *metrics.Counter  // of request bodies
	BytesOut *metrics.Counter  // of response bodies
}
