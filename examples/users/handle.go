package users

import (
	"errors"
	"math"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
)

const (
	maxBody      = 64 << 10 // of one user
	maxBatchBody = 8 << 20  // of a batch
)

// handle answers a request. Whatever happens in it, the answer bears the
// replica's name, is counted, and does not end the process.
func (s *Service) handle(ctx *fasthttp.RequestCtx) {
	begin := time.Now()
	s.metrics.inFlight.Add(1)
	route := routeOther
	defer func() {
		if p := recover(); p != nil {
			s.options.Log.Error("request panicked", "panic", p, "stack", string(debug.Stack()))
			ctx.Response.Reset()
			s.sendTrouble(ctx, trouble{status: 500, detail: "unexpected error"})
		}
		s.sign(ctx)
		s.metrics.inFlight.Add(-1)
		s.metrics.count(route, ctx.Method(), ctx.Response.StatusCode(), time.Since(begin))
	}()
	s.route(ctx, &route)
}

// sign marks an answer with the replica's name, and as its connection's last
// while the service drains.
func (s *Service) sign(ctx *fasthttp.RequestCtx) {
	ctx.Response.Header.Set("X-Served-By", s.options.Name)
	if s.draining.Load() {
		ctx.Response.SetConnectionClose()
	}
}

// route sets the route's name, for the metrics, and calls its handler.
func (s *Service) route(ctx *fasthttp.RequestCtx, name *string) {
	path := ctx.Path()
	switch string(path) {
	case "/users":
		*name = "/users"
		switch {
		case isRead(ctx):
			s.list(ctx)
		case ctx.IsPost():
			s.create(ctx)
		default:
			s.refuseMethod(ctx, "GET, HEAD, POST")
		}
		return
	case "/users/batch":
		*name = "/users/batch"
		if ctx.IsPost() {
			s.createBatch(ctx)
		} else {
			s.refuseMethod(ctx, "POST")
		}
		return
	case "/health":
		*name = "/health"
		s.read(ctx, s.showHealth)
		return
	case "/metrics":
		*name = "/metrics"
		s.read(ctx, s.showMetrics)
		return
	case "/slow":
		*name = "/slow"
		s.read(ctx, s.slow)
		return
	case "/fail":
		*name = "/fail"
		s.read(ctx, s.fail)
		return
	case "/stream":
		*name = "/stream"
		s.read(ctx, s.stream)
		return
	}
	if id, ok := strings.CutPrefix(string(path), "/users/"); ok && id != "" && !strings.Contains(id, "/") {
		*name = "/users/{id}"
		s.user(ctx, id)
		return
	}
	s.sendTrouble(ctx, trouble{status: fasthttp.StatusNotFound, detail: "no such path"})
}

func isRead(ctx *fasthttp.RequestCtx) bool { return ctx.IsGet() || ctx.IsHead() }

func (s *Service) read(ctx *fasthttp.RequestCtx, handle func(*fasthttp.RequestCtx)) {
	if isRead(ctx) {
		handle(ctx)
	} else {
		s.refuseMethod(ctx, "GET, HEAD")
	}
}

func (s *Service) refuseMethod(ctx *fasthttp.RequestCtx, allow string) {
	ctx.Response.Header.Set("Allow", allow)
	s.sendTrouble(ctx, trouble{status: fasthttp.StatusMethodNotAllowed, detail: "want " + allow})
}

// list answers GET /users. On the in-memory store it allocates nothing.
func (s *Service) list(ctx *fasthttp.RequestCtx) {
	q, bad := parseQuery(ctx.QueryArgs())
	if bad.field != "" {
		s.sendTrouble(ctx, trouble{status: fasthttp.StatusBadRequest, detail: bad.detail, parameter: bad.field})
		return
	}
	r := acquireReply()
	defer r.release()
	if err := s.store.List(s.running, q, &r.page); err != nil {
		s.sendError(ctx, err)
		return
	}
	r.body = appendListJSON(r.body, &q, &r.page)
	r.modified = r.page.Changed
	r.addKey("users")
	r.addKey("users-list")
	if q.Kind == ByRole {
		r.addKey("role-")
		r.keys = append(r.keys, q.Role...)
	}
	for i := range r.page.Users {
		r.addUserKey(r.page.Users[i].ID)
	}
	s.sendRead(ctx, r)
}

// user answers /users/{id}.
func (s *Service) user(ctx *fasthttp.RequestCtx, text string) {
	id, ok := parseNumber([]byte(text), 1, math.MaxInt64)
	if !ok {
		s.sendTrouble(ctx, trouble{status: fasthttp.StatusBadRequest, detail: "want a whole number from 1", parameter: "id"})
		return
	}
	switch {
	case isRead(ctx):
		u, err := s.store.User(s.running, int64(id))
		if err != nil {
			s.sendError(ctx, err)
			return
		}
		r := acquireReply()
		defer r.release()
		r.body = appendUserJSON(r.body, &u)
		r.modified = u.UpdatedAt
		r.addKey("users")
		r.addUserKey(u.ID)
		s.sendRead(ctx, r)
	case ctx.IsPut():
		d, ok := s.readDraft(ctx, true)
		if !ok {
			return
		}
		u, err := s.store.Update(s.running, int64(id), d)
		if err != nil {
			s.sendError(ctx, err)
			return
		}
		s.sendWrite(ctx, fasthttp.StatusOK, appendUserJSON(nil, &u))
	case ctx.IsDelete():
		if err := s.store.Delete(s.running, int64(id)); err != nil {
			s.sendError(ctx, err)
			return
		}
		s.sendWrite(ctx, fasthttp.StatusNoContent, nil)
	default:
		s.refuseMethod(ctx, "GET, HEAD, PUT, DELETE")
	}
}

// create answers POST /users.
func (s *Service) create(ctx *fasthttp.RequestCtx) {
	d, ok := s.readDraft(ctx, false)
	if !ok {
		return
	}
	created, err := s.store.Create(s.running, []Draft{d})
	if err != nil {
		s.sendError(ctx, err)
		return
	}
	ctx.Response.Header.Set("Location", "/users/"+strconv.FormatInt(created[0].ID, 10))
	s.sendWrite(ctx, fasthttp.StatusCreated, appendUserJSON(nil, &created[0]))
}

// createBatch answers POST /users/batch.
func (s *Service) createBatch(ctx *fasthttp.RequestCtx) {
	body, ok := s.readBody(ctx, maxBatchBody)
	if !ok {
		return
	}
	drafts, err := decodeBatch(body)
	if err == nil {
		err = s.hasher.hash(s.running, drafts)
	}
	var created []User
	if err == nil {
		created, err = s.store.Create(s.running, drafts)
	}
	if err != nil {
		s.sendError(ctx, err)
		return
	}
	b := make([]byte, 0, 32+12*len(created))
	b = append(b, `{"created":`...)
	b = strconv.AppendInt(b, int64(len(created)), 10)
	b = append(b, `,"ids":[`...)
	for i := range created {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, created[i].ID, 10)
	}
	s.sendWrite(ctx, fasthttp.StatusCreated, append(b, "]}"...))
}

// readDraft reads one user from the body and hashes its password; when that
// fails it has answered.
func (s *Service) readDraft(ctx *fasthttp.RequestCtx, update bool) (Draft, bool) {
	body, ok := s.readBody(ctx, maxBody)
	if !ok {
		return Draft{}, false
	}
	d, err := decodeDraft(body, update)
	drafts := [1]Draft{d}
	if err == nil {
		err = s.hasher.hash(s.running, drafts[:])
	}
	if err != nil {
		s.sendError(ctx, err)
		return Draft{}, false
	}
	return drafts[0], true
}

func (s *Service) readBody(ctx *fasthttp.RequestCtx, most int) ([]byte, bool) {
	if coding := ctx.Request.Header.ContentEncoding(); len(coding) > 0 && string(coding) != "identity" {
		s.sendTrouble(ctx, trouble{status: fasthttp.StatusUnsupportedMediaType, detail: "want a body without Content-Encoding"})
		return nil, false
	}
	body := ctx.Request.Body()
	if len(body) > most {
		s.sendTooLarge(ctx, most)
		return nil, false
	}
	return body, true
}

func (s *Service) sendTooLarge(ctx *fasthttp.RequestCtx, most int) {
	s.sendTrouble(ctx, trouble{status: fasthttp.StatusRequestEntityTooLarge,
		detail: "want a body of at most " + strconv.Itoa(most) + " bytes"})
}

// sendError answers with what became of a request: the one place where errors
// become statuses.
func (s *Service) sendError(ctx *fasthttp.RequestCtx, err error) {
	var input *inputError
	var conflict *ConflictError
	switch {
	case errors.As(err, &input):
		s.sendTrouble(ctx, trouble{status: fasthttp.StatusBadRequest, detail: input.Detail, row: input.Row, field: input.Field})
	case errors.As(err, &conflict):
		s.sendTrouble(ctx, trouble{status: fasthttp.StatusConflict,
			detail: "the address belongs to another user", row: conflict.Row, field: "email"})
	case errors.Is(err, ErrNotFound):
		s.sendTrouble(ctx, trouble{status: fasthttp.StatusNotFound, detail: "no such user"})
	case errors.Is(err, ErrUnavailable):
		s.warn(ctx, err)
		s.sendTrouble(ctx, trouble{status: fasthttp.StatusServiceUnavailable, detail: "try again later"})
	default:
		s.options.Log.Error("request failed", "path", string(ctx.Path()), "error", err)
		s.sendTrouble(ctx, trouble{status: fasthttp.StatusInternalServerError, detail: "unexpected error"})
	}
}

// warn logs what keeps a request from being answered, once a second: while a
// database is away, each request has the same to say.
func (s *Service) warn(ctx *fasthttp.RequestCtx, err error) {
	now := time.Now().UnixNano()
	last := s.warned.Load()
	if now-last >= int64(time.Second) && s.warned.CompareAndSwap(last, now) {
		s.options.Log.Warn("cannot answer", "path", string(ctx.Path()), "error", err)
	}
}
