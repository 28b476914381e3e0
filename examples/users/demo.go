package users

import (
	"bufio"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"
)

// The handlers in this file behave badly on purpose, for demos and for tests
// of whatever stands in front.

const (
	maxSlow        = 30_000 // milliseconds
	defaultSlow    = 1_000
	maxEvents      = 1_000
	defaultEvents  = 10
	streamInterval = 200 * time.Millisecond
)

// slow answers GET /slow?ms= after so many milliseconds.
func (s *Service) slow(ctx *fasthttp.RequestCtx) {
	ms, ok := s.parameter(ctx, "ms", 0, maxSlow, defaultSlow)
	if !ok {
		return
	}
	timer := time.NewTimer(time.Duration(ms) * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.running.Done():
		s.sendTrouble(ctx, trouble{status: fasthttp.StatusServiceUnavailable, detail: "the service is stopping"})
		return
	}
	s.sendWrite(ctx, fasthttp.StatusOK, append(strconv.AppendInt([]byte(`{"slept_ms":`), int64(ms), 10), '}'))
}

// fail answers GET /fail with 500.
func (s *Service) fail(ctx *fasthttp.RequestCtx) {
	s.sendTrouble(ctx, trouble{status: fasthttp.StatusInternalServerError, detail: "as asked for"})
}

// stream answers GET /stream?n= with so many server-sent events. The stream of
// a stopping service ends early.
func (s *Service) stream(ctx *fasthttp.RequestCtx) {
	n, ok := s.parameter(ctx, "n", 1, maxEvents, defaultEvents)
	if !ok {
		return
	}
	ctx.SetContentType("text/event-stream")
	ctx.Response.Header.Set("Cache-Control", "no-store")
	if ctx.IsHead() {
		return
	}
	conn := ctx.Conn()
	ctx.SetBodyStreamWriter(func(w *bufio.Writer) {
		ticker := time.NewTicker(streamInterval)
		defer ticker.Stop()
		var event []byte
		for i := 1; ; i++ {
			event = append(event[:0], "id: "...)
			event = strconv.AppendInt(event, int64(i), 10)
			event = append(event, "\ndata: {\"n\":"...)
			event = strconv.AppendInt(event, int64(i), 10)
			event = append(event, ",\"served_by\":"...)
			event = appendQuoted(event, s.options.Name)
			event = append(event, "}\n\n"...)
			// The server's deadline is for a whole answer; here each event has
			// one.
			_ = conn.SetWriteDeadline(time.Now().Add(writeTimeout))
			if _, err := w.Write(event); err != nil {
				return
			}
			if w.Flush() != nil || i == n {
				return
			}
			select {
			case <-ticker.C:
			case <-s.stopping.Done():
				return
			}
		}
	})
}

// parameter reads a number from the query; when it is bad it has answered.
func (s *Service) parameter(ctx *fasthttp.RequestCtx, name string, least, most, fallback int) (int, bool) {
	value := ctx.QueryArgs().Peek(name)
	if value == nil {
		return fallback, true
	}
	n, ok := parseNumber(value, least, most)
	if !ok {
		s.sendTrouble(ctx, trouble{status: fasthttp.StatusBadRequest, parameter: name,
			detail: "want a whole number from " + strconv.Itoa(least) + " to " + strconv.Itoa(most)})
	}
	return n, ok
}
