package proxy

import (
	"errors"
	"io"
	"os"
	"runtime/debug"
	"time"

	"gateway/accesslog"
	"gateway/exchange"
	"gateway/internal/clock"
	"gateway/middleware"
	"gateway/middleware/cache"
	"gateway/middleware/compress"
	"gateway/tracing"
	"gateway/upstream"
	"gateway/wire"
)

// Handle answers an exchange and releases it, exactly once, whatever happens.
// It implements exchange.Handler.
func (g *Gateway) Handle(x *exchange.Exchange) {
	g.counters.inFlight.Inc()
	defer g.end(x)
	s := g.snapshot.Load()
	serve(s, x)
	g.answer(s, x)
}

// end is the one way out of Handle: also for a panic, and not yet for a
// connection that goes on as a tunnel.
func (g *Gateway) end(x *exchange.Exchange) {
	if p := recover(); p != nil {
		g.contain(x, p)
	}
	if x.Tunnel == nil {
		g.finish(x)
	}
}

// contain turns a panic into an answer, or into a broken connection when part
// of an answer was written.
func (g *Gateway) contain(x *exchange.Exchange, p any) {
	g.counters.panics.Inc()
	g.log.Error("panic while a request was served; please report it",
		"panic", p, "request_id", string(x.ID), "stack", string(debug.Stack()))
	if t, ok := x.Tunnel.(*tunnel); ok {
		t.abandon()
		x.Tunnel = nil
	}
	x.Client.CloseAfter()
	if x.Client.Begun() {
		x.Reason = exchange.Panicked
		x.Client.Abort()
		return
	}
	x.Fail(exchange.Panicked)
	_ = x.Client.Begin(x, x.Response.Body, true)
}

// answer writes the response to the client, piece by piece when it is a
// stream. Whatever goes wrong from here on can only be told by ending the
// connection.
func (g *Gateway) answer(s *Snapshot, x *exchange.Exchange) {
	if x.Abandoned() || x.Reason == exchange.ClientLeft {
		x.Reason = exchange.ClientLeft
		x.Response.Status = 499
		x.Client.Abort()
		return
	}
	if x.Tunnel != nil {
		g.handOver(x)
		return
	}
	res := &x.Response
	if err := x.Client.Begin(x, res.Body, res.Stream == nil); err != nil {
		g.lost(x, err)
		return
	}
	if x.Request.Method != wire.MethodHead {
		x.BytesOut = int64(len(res.Body))
	}
	if res.Stream == nil {
		return
	}
	var limit *middleware.Limit // of bandwidth
	if x.Route != nil {
		limit = s.routes[x.Route.Index].limit
	}
	limit.Pace(x, &x.Limit, len(res.Body))
	var through passage
	if !limit.Paces(&x.Limit) { // else a large piece would go out at once
		through = passageOf(x)
		defer through.close()
	}
	for {
		switch n, err := through.move(); {
		case err != nil:
			g.lost(x, err)
			return
		case n > 0:
			g.counters.spliced.Add(uint64(n))
			x.BytesOut += int64(n)
			continue
		}
		piece, err := res.Stream.Next()
		if len(piece) > 0 {
			if err := x.Client.Write(piece); err != nil {
				g.lost(x, err)
				return
			}
			x.BytesOut += int64(len(piece))
			limit.Pace(x, &x.Limit, len(piece))
		}
		switch {
		case err == nil:
		case err == io.EOF:
			if err := x.Client.End(res.Stream.Trailer()); err != nil {
				g.lost(x, err)
			}
			return
		default:
			x.Reason = reasonOfStream(x, err)
			x.Client.Abort()
			return
		}
	}
}

// lost ends an exchange whose client cannot be written to.
func (g *Gateway) lost(x *exchange.Exchange, err error) {
	x.Reason = exchange.ClientLeft
	if errors.Is(err, os.ErrDeadlineExceeded) {
		x.Reason = exchange.ClientStalled
	}
	x.Client.Abort()
}

// reasonOfStream translates an error in the middle of the origin's body.
func reasonOfStream(x *exchange.Exchange, err error) exchange.Reason {
	switch {
	case x.Abandoned(), errors.Is(err, upstream.ErrCancelled):
		return exchange.ClientLeft
	case errors.Is(err, os.ErrDeadlineExceeded):
		if d := x.Call.Deadline; !d.IsZero() && !time.Now().Before(d) {
			return exchange.ExchangeTimeout
		}
		return exchange.OriginStalled
	}
	if errors.Is(err, cache.ErrSlowReader) {
		return exchange.ClientStalled
	}
	if errors.Is(err, compress.ErrCorrupt) || errors.Is(err, compress.ErrBomb) {
		return exchange.OriginInvalid
	}
	return exchange.OriginTruncated
}

// handOver tells the client that the upgrade succeeded and leaves the
// connection to the tunnel, which finishes the exchange.
func (g *Gateway) handOver(x *exchange.Exchange) {
	if err := x.Client.Begin(x, nil, true); err != nil {
		x.Tunnel.(*tunnel).abandon()
		x.Tunnel = nil
		g.lost(x, err)
		return
	}
	x.Client.Tunnel(x.Tunnel)
}

// finish gives back what the exchange holds, counts it, logs it and releases
// it. It runs exactly once for each exchange.
func (g *Gateway) finish(x *exchange.Exchange) {
	g.part(x)
	x.Ended = clock.Mono()
	took := time.Duration(x.Ended - x.Start)

	route := x.Route
	if route == nil {
		route = &g.unrouted
	}
	method := uint8(x.Request.Method)
	route.Metrics.Requests.Inc(method, x.Response.Status)
	route.Metrics.Requests.Observe(method, took)
	if x.BytesIn > 0 {
		route.Metrics.BytesIn.Add(uint64(x.BytesIn))
	}
	if x.BytesOut > 0 {
		route.Metrics.BytesOut.Add(uint64(x.BytesOut))
	}
	g.counters.ended[x.Reason].Inc()
	g.counters.inFlight.Dec()
	if access := g.access.Load(); access != nil {
		g.write(access, x, route)
	}
	if x.Trace != nil {
		endTrace(x, route)
	}
	exchange.Release(x)
}

// part gives back what the exchange holds of others: the body's memory, and its
// place at the origin.
func (g *Gateway) part(x *exchange.Exchange) {
	x.ReleaseBody() // it may be made of what the call still receives
	if x.Origin != nil {
		x.Calling(nil)
		x.Call.End()
		x.Origin.Done(upstream.Result{
			Outcome: outcomeOf(x.Reason), Status: x.Response.Status, Latency: x.FirstByte - x.Attempted,
		})
		x.Origin = nil
	}
}

// outcomeOf says how a response ended from the server's point of view.
func outcomeOf(r exchange.Reason) upstream.Outcome {
	switch r {
	case exchange.OriginTruncated:
		return upstream.Reset
	case exchange.OriginStalled:
		return upstream.TimedOut
	case exchange.UpgradeFailed:
		return upstream.Invalid
	// The time for the whole may have passed because the client reads slowly:
	// that is not held against the server. A server that stalls has its own.
	case exchange.ExchangeTimeout, exchange.ClientLeft, exchange.ClientStalled, exchange.Panicked:
		return upstream.Cancelled
	}
	return upstream.OK
}

// write hands the exchange to the access log.
func (g *Gateway) write(access *accesslog.Logger, x *exchange.Exchange, route *exchange.Route) {
	h := &x.Request.Header
	access.Log(&accesslog.Record{
		Start: x.Start, Forwarded: x.Forwarded, FirstByte: x.FirstByte, Ended: x.Ended,
		Route: route.Name, Method: x.Request.MethodText, Host: x.Request.Host,
		Path: x.Request.Path, Query: x.Request.Query, Protocol: protocols[x.Request.Minor&1],
		UserAgent: h.Get(wire.UserAgent), Referer: h.Get(wire.Referer),
		Status: x.Response.Status, Reason: x.Reason.String(), Failed: x.Reason.CutShort(),
		Client: x.Addr, Peer: x.Peer, Secure: x.Secure,
		Server: x.Server, Attempts: x.Attempts, Limit: x.Limit.Refused, Cache: x.Cached.String(),
		BytesIn: x.BytesIn, BytesOut: x.BytesOut,
		ID: x.ID, TraceID: x.TraceID,
	})
}

// endTrace ends the trace of a request that is traced.
func endTrace(x *exchange.Exchange, route *exchange.Route) {
	x.Trace.Finish(tracing.End{
		Start: x.Start, Ended: x.Ended, Method: x.Request.Method.String(), Scheme: x.Scheme,
		Host: string(x.Request.Host), Path: string(x.Request.Path), Route: route.Name, Server: x.Server, Client: x.Addr,
		Status: x.Response.Status, Reason: x.Reason.String(), Failed: x.Reason.CutShort(),
		BytesIn: x.BytesIn, BytesOut: x.BytesOut, ID: string(x.ID),
	})
}

var protocols = [2]string{"HTTP/1.0", "HTTP/1.1"}
