package users

import (
	"context"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
)

const (
	pingTimeout = time.Second
	healthAge   = 200 * time.Millisecond
)

// health knows whether the backends answer. Checks come from many probers, so
// one result serves all who ask within healthAge, and those who ask meanwhile
// wait for it.
type health struct {
	database func(context.Context) error
	redis    func(context.Context) error // nil without Redis

	mu      sync.Mutex
	checked time.Time
	last    condition
}

type condition struct{ database, redis bool }

func (h *health) check(ctx context.Context) condition {
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.checked) < healthAge {
		return h.last
	}
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	redis := make(chan bool, 1)
	go func() { redis <- h.redis != nil && h.redis(ctx) == nil }()
	h.last.database = h.database(ctx) == nil
	h.last.redis = <-redis
	h.checked = time.Now()
	return h.last
}

// showHealth answers GET /health. The service lives without Redis, but not
// without its database.
func (s *Service) showHealth(ctx *fasthttp.RequestCtx) {
	c := s.health.check(s.running)
	status, code := "ok", fasthttp.StatusOK
	switch {
	case s.draining.Load():
		status, code = "stopping", fasthttp.StatusServiceUnavailable
	case !c.database:
		status, code = "down", fasthttp.StatusServiceUnavailable
	case !c.redis && s.health.redis != nil:
		status = "degraded"
	}
	b := append([]byte(nil), `{"status":`...)
	b = appendQuoted(b, status)
	b = append(b, `,"timestamp":"`...)
	b = time.Now().UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","version":`...)
	b = appendQuoted(b, s.options.Version)
	b = append(b, `,"database":`...)
	b = appendQuoted(b, connected(c.database))
	b = append(b, `,"redis":`...)
	b = appendQuoted(b, connected(c.redis))
	b = append(b, `,"store":`...)
	b = appendQuoted(b, s.storeName)
	b = append(b, '}')
	s.sendWrite(ctx, code, b)
}

func connected(ok bool) string {
	if ok {
		return "connected"
	}
	return "disconnected"
}
