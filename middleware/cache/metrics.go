package cache

import "gateway/metrics"

// Register makes the registry show the cache's levels and evictions.
func (c *Cache) Register(r *metrics.Registry) {
	r.GaugeFunc("gateway_cache_bytes", "Memory that stored responses use, overhead included.",
		func() float64 { return float64(c.Stats().Bytes) })
	r.GaugeFunc("gateway_cache_capacity_bytes", "Memory that stored responses may use.",
		func() float64 { return float64(c.Stats().Capacity) })
	r.GaugeFunc("gateway_cache_entries", "Stored responses and their codings.",
		func() float64 { return float64(c.Stats().Entries) })
	r.GaugeFunc("gateway_cache_filling_bytes", "Memory of responses that are being received.",
		func() float64 { return float64(c.filling.Load()) })
	for result := range tierResults {
		r.CounterFunc("gateway_cache_tier_requests_total", "Questions to the Redis tier, by result.",
			func() float64 { return float64(c.counts.tier[result].Load()) }, "result", result.String())
	}
	for i, result := range [writeResults]string{"stored", "dropped", "failed"} {
		r.CounterFunc("gateway_cache_tier_writes_total", "Responses for the Redis tier, by what became of them.",
			func() float64 { return float64(c.counts.writes[i].Load()) }, "result", result)
	}
	for i, way := range [purgeWays]string{"sent", "received", "missed"} {
		r.CounterFunc("gateway_cache_shared_purges_total", "Purges that gateways share, by way; missed ones were learned of later.",
			func() float64 { return float64(c.counts.purges[i].Load()) }, "way", way)
	}
	r.CollectGauge("gateway_cache_tier_up", "1 if the Redis tier answers and purges arrive. Missing without a tier.", func(s *metrics.Samples) {
		if t := c.tier.Load(); t != nil {
			up := 0.0
			if t.Ready() {
				up = 1
			}
			s.Add(up)
		}
	})
	for cause := range EvictionCauses {
		r.CounterFunc("gateway_cache_evictions_total", "Responses that are stored no more, or were not, by cause.",
			func() float64 { return float64(c.Stats().Evictions[cause]) }, "cause", cause.String())
	}
}
