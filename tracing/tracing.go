// Package tracing tells a collector (OpenTelemetry, OTLP over HTTP) what became
// of requests: a span for each, with spans for the look into the cache and for
// the attempts at servers.
//
// Whether a request is traced is decided when its head is there. One that is
// not costs a comparison; one that is notes the times of its steps, and a
// goroutine makes spans of them when it is over.
package tracing

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"gateway/internal/clock"
)

// Tracer decides which requests are traced and sends their traces. Nil is one
// that is off. Safe for concurrent use.
type Tracer struct {
	below    uint64 // of 2^63: what trace ids are sampled
	parent   string
	provider *sdk.TracerProvider
	tracer   trace.Tracer
	queue    chan *Trace
	closing  chan struct{}
	once     sync.Once
	ended    chan struct{}
	counts   *Counts
	log      *slog.Logger
	lastLog  atomic.Int64 // clock.Mono of the last complaint
}

// Counts are of all tracers of a gateway.
type Counts struct {
	Sent    atomic.Uint64 // spans that the collector has taken
	Failed  atomic.Uint64 // spans that it has not
	Dropped atomic.Uint64 // traces that found the queue full
}

// New makes a tracer; nil when the options have no endpoint. Nothing is sent
// before there is something to send. Close ends it.
func New(o Options, version string, counts *Counts, log *slog.Logger) (*Tracer, error) {
	if o.Endpoint == "" {
		return nil, nil
	}
	endpoint, err := o.url()
	if err != nil {
		return nil, err
	}
	exporter, err := otlptracehttp.New(context.Background(),
		otlptracehttp.WithEndpointURL(endpoint), otlptracehttp.WithHeaders(o.Headers), otlptracehttp.WithTimeout(o.Timeout),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{
			Enabled: true, InitialInterval: o.Timeout / 10, MaxInterval: o.Timeout, MaxElapsedTime: 10 * o.Timeout,
		}))
	if err != nil {
		return nil, err
	}
	t := &Tracer{
		parent: o.Parent, counts: counts, log: log,
		below: uint64(float64(1<<63) * float64(o.Sample) / 100),
		queue: make(chan *Trace, o.Queue), closing: make(chan struct{}), ended: make(chan struct{}),
	}
	host, _ := os.Hostname()
	t.provider = sdk.NewTracerProvider(
		sdk.WithSampler(sdk.AlwaysSample()), // who gets here is sampled
		sdk.WithIDGenerator(generator{}),
		sdk.WithResource(resource.NewSchemaless(
			attribute.String("service.name", o.Service),
			attribute.String("service.version", version),
			attribute.String("service.instance.id", host+"/"+strconv.Itoa(os.Getpid())),
		)),
		sdk.WithBatcher(&watched{exporter, t}, sdk.WithMaxQueueSize(4*o.Queue), sdk.WithBatchTimeout(time.Second), sdk.WithExportTimeout(10*o.Timeout)),
	)
	t.tracer = t.provider.Tracer("gateway")
	go t.run()
	return t, nil
}

// Begin is the trace of a request, nil when it is not traced. id is the trace
// id, 32 hexadecimal digits; parent the span id of who sent the request, 16 of
// them, empty without one; decided what that one says about sampling, trusted
// whether it is a trusted proxy. It allocates for requests that are traced.
func (t *Tracer) Begin(id, parent []byte, decided, trusted bool) *Trace {
	if t == nil {
		return nil
	}
	var traceID trace.TraceID
	if _, err := hex.Decode(traceID[:], id); err != nil {
		return nil
	}
	follows := len(parent) > 0 && (t.parent == "all" || t.parent == "trusted" && trusted)
	if follows && !decided || !follows && !t.samples(traceID) {
		return nil
	}
	r := &Trace{tracer: t, id: traceID}
	if len(parent) > 0 {
		if _, err := hex.Decode(r.parent[:], parent); err != nil {
			return nil
		}
	}
	binary.BigEndian.PutUint64(r.span[:], rand.Uint64()|1)
	return r
}

// samples is the choice by the trace id, the one of OpenTelemetry's
// TraceIDRatioBased: so all that use it choose the same traces.
func (t *Tracer) samples(id trace.TraceID) bool {
	return binary.BigEndian.Uint64(id[8:])>>1 < t.below
}

// Close sends what waits, until ctx ends, and ends the tracer.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	t.once.Do(func() { close(t.closing) })
	select {
	case <-t.ended:
	case <-ctx.Done():
	}
	return t.provider.Shutdown(ctx)
}

// run makes spans of traces.
func (t *Tracer) run() {
	defer close(t.ended)
	for {
		select {
		case r := <-t.queue:
			r.send()
			continue
		default:
		}
		select {
		case r := <-t.queue:
			r.send()
		case <-t.closing:
			for {
				select {
				case r := <-t.queue:
					r.send()
				default:
					return
				}
			}
		}
	}
}

// Trace is what is noted of one request. One goroutine uses it; nil is that of a
// request that is not traced.
type Trace struct {
	tracer *Tracer
	id     trace.TraceID
	parent trace.SpanID // zero without one
	span   trace.SpanID
	steps  []step
	end    End
}

// step is a part of a request's time. Times are clock.Mono.
type step struct {
	name, server, result string
	begun, ended         int64
	status               int
	failed               bool
}

// End is what is known of a request when it is over. Start and Ended are
// clock.Mono.
type End struct {
	Start, Ended int64
	Method       string
	Scheme       string
	Host         string
	Path         string
	Route        string
	Server       string // that answered, "" for none
	Client       netip.Addr
	Status       int
	Reason       string // who ended it, in which phase
	Failed       bool
	BytesIn      int64
	BytesOut     int64
	ID           string // of the request
}

// AppendSpan appends the id of the request's span, 16 hexadecimal digits: the
// parent of what happens at origins.
func (r *Trace) AppendSpan(b []byte) []byte { return hex.AppendEncode(b, r.span[:]) }

// Begin notes that a step begins, at a server or at none. Steps of a request do
// not overlap.
func (r *Trace) Begin(name, server string) {
	if r != nil {
		r.steps = append(r.steps, step{name: name, server: server, begun: clock.Mono()})
	}
}

// Done notes how the last step has ended; status 0 is none.
func (r *Trace) Done(result string, status int, failed bool) {
	if r != nil {
		s := &r.steps[len(r.steps)-1]
		s.result, s.status, s.failed, s.ended = result, status, failed, clock.Mono()
	}
}

// Finish ends the trace, which is sent in the background. It never waits.
func (r *Trace) Finish(e End) {
	r.end = e
	select {
	case r.tracer.queue <- r:
	default:
		r.tracer.counts.Dropped.Add(1)
	}
}

// send makes spans, with the names of OpenTelemetry's semantic conventions for
// HTTP.
func (r *Trace) send() {
	e := &r.end
	ctx := context.WithValue(context.Background(), idsKey{}, &ids{r.id, r.span})
	if r.parent.IsValid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: r.id, SpanID: r.parent, TraceFlags: trace.FlagsSampled, Remote: true,
		}))
	}
	name := e.Method
	if e.Route != "" {
		name += " " + e.Route
	}
	attributes := []attribute.KeyValue{
		attribute.String("http.request.method", e.Method),
		attribute.String("url.scheme", e.Scheme),
		attribute.String("url.path", e.Path),
		attribute.String("server.address", e.Host),
		attribute.String("http.route", e.Route),
		attribute.Int("http.response.status_code", e.Status),
		attribute.Int64("http.request.body.size", e.BytesIn),
		attribute.Int64("http.response.body.size", e.BytesOut),
		attribute.String("gateway.reason", e.Reason),
		attribute.String("gateway.request_id", e.ID),
	}
	if e.Client.IsValid() {
		attributes = append(attributes, attribute.String("client.address", e.Client.String()))
	}
	if e.Server != "" {
		attributes = append(attributes, attribute.String("gateway.server", e.Server))
	}
	ctx, span := r.tracer.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindServer),
		trace.WithTimestamp(clock.WallAt(e.Start)), trace.WithAttributes(attributes...))
	ctx = context.WithValue(ctx, idsKey{}, (*ids)(nil))
	for i := range r.steps {
		s := &r.steps[i]
		kind := trace.SpanKindInternal
		attributes := []attribute.KeyValue{attribute.String("gateway.result", s.result)}
		if s.server != "" {
			kind = trace.SpanKindClient
			attributes = append(attributes, attribute.String("server.address", s.server))
		}
		if s.status > 0 {
			attributes = append(attributes, attribute.Int("http.response.status_code", s.status))
		}
		_, child := r.tracer.tracer.Start(ctx, s.name, trace.WithSpanKind(kind), trace.WithTimestamp(clock.WallAt(s.begun)), trace.WithAttributes(attributes...))
		if s.failed {
			child.SetStatus(codes.Error, s.result)
		}
		if s.ended == 0 { // a panic
			s.ended = e.Ended
		}
		child.End(trace.WithTimestamp(clock.WallAt(s.ended)))
	}
	if e.Failed || e.Status >= 500 {
		span.SetStatus(codes.Error, e.Reason)
	}
	span.End(trace.WithTimestamp(clock.WallAt(e.Ended)))
}

// generator gives the spans of requests the ids that they have had all along,
// and others random ones.
type generator struct{}

type idsKey struct{}

type ids struct {
	trace trace.TraceID
	span  trace.SpanID
}

// NewIDs implements sdk.IDGenerator.
func (generator) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	if i, _ := ctx.Value(idsKey{}).(*ids); i != nil {
		return i.trace, i.span
	}
	panic("BUG: a span without a trace")
}

// NewSpanID implements sdk.IDGenerator.
func (generator) NewSpanID(ctx context.Context, _ trace.TraceID) (id trace.SpanID) {
	if i, _ := ctx.Value(idsKey{}).(*ids); i != nil {
		return i.span
	}
	binary.BigEndian.PutUint64(id[:], rand.Uint64()|1)
	return id
}

// watched counts what the collector takes, and complains now and then.
type watched struct {
	sdk.SpanExporter
	tracer *Tracer
}

// ExportSpans implements sdk.SpanExporter.
func (w *watched) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := w.SpanExporter.ExportSpans(ctx, spans)
	t := w.tracer
	if err == nil {
		t.counts.Sent.Add(uint64(len(spans)))
		return nil
	}
	t.counts.Failed.Add(uint64(len(spans)))
	now := clock.Mono()
	if last := t.lastLog.Load(); (last == 0 || now-last > int64(time.Minute)) && t.lastLog.CompareAndSwap(last, now) {
		t.log.Warn("the collector does not take traces; requests go on", "error", err)
	}
	return nil // said
}
