package proxy

import (
	"context"
	"reflect"
	"time"

	"gateway/metrics"
	"gateway/tracing"
)

// traceFlush bounds the wait for a collector that gets the last traces.
const traceFlush = 2 * time.Second

// tracerOf is the tracer for the options: the one that runs, if they are its
// own, or a new one.
func (g *Gateway) tracerOf(o tracing.Options) (*tracing.Tracer, error) {
	if s := g.snapshot.Load(); s != nil && reflect.DeepEqual(s.config.Tracing, o) {
		return s.tracer, nil
	}
	return tracing.New(o, g.version, &g.traces, g.log)
}

// retireTracer ends a tracer that was replaced, or was never used. Requests
// under way may still end on it; what they say then is lost.
func (g *Gateway) retireTracer(t *tracing.Tracer) {
	ctx, cancel := context.WithTimeout(context.Background(), traceFlush)
	defer cancel()
	if err := t.Close(ctx); err != nil {
		g.log.Warn("the last traces were not sent", "error", err)
	}
}

// collectTraces registers the metrics of tracing.
func (g *Gateway) collectTraces() {
	g.metrics.CollectCounter("gateway_trace_spans_total", "Spans for the collector, by what became of them.", func(m *metrics.Samples) {
		m.Add(float64(g.traces.Sent.Load()), "result", "sent")
		m.Add(float64(g.traces.Failed.Load()), "result", "failed")
	})
	g.metrics.CollectCounter("gateway_trace_dropped_total", "Traces that were dropped because too many waited for the collector.", func(m *metrics.Samples) {
		m.Add(float64(g.traces.Dropped.Load()))
	})
}
