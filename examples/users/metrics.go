package users

import (
	"maps"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/valyala/fasthttp"
)

const routeOther = "other"

// buckets of durations in seconds: 0.25 ms to 10 s, as the gateway has them.
var buckets = []float64{.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// requestMetrics counts requests. Labels are routes, methods and statuses of a
// fixed set: no client can create a series.
type requestMetrics struct {
	set      *metrics.Set
	inFlight atomic.Int64

	// series is replaced by a larger copy when a new combination appears, so
	// that counting takes no lock.
	series atomic.Pointer[map[seriesKey]*series]
	grow   sync.Mutex
}

type seriesKey struct {
	route, method string
	status        int
}

type series struct {
	total    *metrics.Counter
	duration *metrics.PrometheusHistogram // shared by the statuses of a route
}

func newRequestMetrics() *requestMetrics {
	// This is global, and nobody wants it off: Prometheus expects types.
	metrics.ExposeMetadata(true)
	m := &requestMetrics{set: metrics.NewSet()}
	m.series.Store(&map[seriesKey]*series{})
	m.set.NewGauge("users_http_in_flight", func() float64 { return float64(m.inFlight.Load()) })
	return m
}

// count allocates nothing once its combination has appeared.
func (m *requestMetrics) count(route string, method []byte, status int, d time.Duration) {
	key := seriesKey{route, methodLabel(method), status}
	s := (*m.series.Load())[key]
	if s == nil {
		s = m.add(key)
	}
	s.total.Inc()
	s.duration.Update(d.Seconds())
}

func (m *requestMetrics) add(key seriesKey) *series {
	m.grow.Lock()
	defer m.grow.Unlock()
	labels := `{route="` + key.route + `",method="` + key.method
	s := &series{
		total: m.set.GetOrCreateCounter("users_http_requests_total" + labels + `",status="` + strconv.Itoa(key.status) + `"}`),
		duration: m.set.GetOrCreatePrometheusHistogramExt("users_http_request_duration_seconds"+labels+`"}`,
			buckets),
	}
	grown := maps.Clone(*m.series.Load())
	grown[key] = s
	m.series.Store(&grown)
	return s
}

func methodLabel(method []byte) string {
	switch string(method) {
	case "GET":
		return "GET"
	case "HEAD":
		return "HEAD"
	case "POST":
		return "POST"
	case "PUT":
		return "PUT"
	case "DELETE":
		return "DELETE"
	}
	return "OTHER"
}

// addPool shows a database pool.
func (m *requestMetrics) addPool(p *Postgres) {
	m.set.NewGauge("users_db_connections_max", func() float64 { return float64(p.pool.Stat().MaxConns()) })
	m.set.NewGauge(`users_db_connections{state="busy"}`, func() float64 { return float64(p.pool.Stat().AcquiredConns()) })
	m.set.NewGauge(`users_db_connections{state="idle"}`, func() float64 { return float64(p.pool.Stat().IdleConns()) })
	m.set.NewGauge(`users_db_acquire_waits`, func() float64 { return float64(p.pool.Stat().EmptyAcquireCount()) })
}

// showMetrics answers GET /metrics.
func (s *Service) showMetrics(ctx *fasthttp.RequestCtx) {
	ctx.SetContentType("text/plain; version=0.0.4; charset=utf-8")
	ctx.Response.Header.Set("Cache-Control", "no-store")
	s.metrics.set.WritePrometheus(ctx)
	metrics.WriteProcessMetrics(ctx)
	metrics.WriteFDMetrics(ctx)
}
