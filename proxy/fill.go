package proxy

import (
	"errors"
	"io"
	"runtime/debug"
	"slices"
	"time"

	"gateway/exchange"
	"gateway/internal/clock"
	"gateway/middleware/cache"
	"gateway/upstream"
	"gateway/wire"
)

// ask sends the request of a flight to the origin, and tells the flight what it
// says. The flight is nil when nothing is to be stored. A client that leaves
// ends nothing that others wait for.
func (t *target) ask(x *exchange.Exchange, role cache.Role, f *cache.Flight) (result cache.Result, report cache.Report) {
	result, report.Forward = cache.ResultMiss, x.Lookup.Forward
	if f == nil {
		t.forward(x)
		report.Status = originStatus(x)
		return result, report
	}
	x.Flying(f)
	handedOn := false
	defer func() {
		x.Flying(nil) // a client that has left ends what is still its own alone
		if !handedOn {
			f.Fail(errPanicked) // else it has ended
		}
	}()
	l, s := &x.Lookup, t.cache
	head := x.Request.Method == wire.MethodHead
	validating := !head && l.Entry.Valid()
	// Others may get the answer, so it must be a whole one: what this client has
	// is compared here. Who goes alone because the last answer could not be
	// shared asks as he likes.
	own := !head && (validating || role == cache.Lead || !s.Collapses())
	completing := own && l.Part.Valid()
	for {
		if own {
			t.condition(x, validating)
		}
		if completing {
			l.Part.AskRest(&x.Request.Header)
		}
		t.forward(x)
		report.Status = originStatus(x)
		if completing && (report.Status == 206 && !t.complete(x) || report.Status == 416) {
			t.drop(x) // it is no rest of what is stored
			completing = false
			x.Request.Header.CopyFrom(f.Request())
			x.Attempts = 0
			continue
		}
		if !validating || report.Status != 304 {
			break
		}
		o := originOf(x)
		if e, reason, ok := f.NotModified(&l.Entry, &o); ok {
			l.Entry.Release()
			l.Entry, l.Terms = e, e.Terms()
			l.Evaluate(&l.Entry, f.Request())
			s.Serve(x)
			report.Stored, report.Detail = reason == cache.Storable, reason
			report.TTL, report.HasTTL = l.Terms.Left(clock.Nanos()), true
			return cache.ResultRevalidated, report
		}
		// It is about another response than the one that is stored.
		validating = false
		x.Request.Header.CopyFrom(f.Request())
		x.Attempts = 0
	}

	status := report.Status
	switch {
	case x.Reason == exchange.ClientLeft, status == 0 && x.Request.Length != 0 && !x.BodyReceived():
		f.Pass()
	case status == 0 || cache.IsError(status):
		if t.mayServeStale(x, status == 0) {
			f.Fail(errorOfFlight(x.Reason))
			t.drop(x)
			l.Evaluate(&l.Entry, f.Request())
			s.Serve(x)
			report.TTL, report.HasTTL = l.Terms.Left(clock.Nanos()), true
			return cache.ResultError, report
		}
		if status == 0 {
			f.Fail(errorOfFlight(x.Reason))
			break
		}
		handedOn = t.store(x, f, own, &report)
	case head:
		o := originOf(x)
		f.Head(&l.Entry, &o, x.Response.Length)
	case status == 304:
		f.Pass() // the client's own conditions
	default:
		handedOn = t.store(x, f, own, &report)
	}
	return result, report
}

// condition makes the conditions of a request ours: none, or those under which
// what is stored is still right. f.Request keeps the client's.
func (t *target) condition(x *exchange.Exchange, validating bool) {
	h := &x.Request.Header
	h.Del(wire.IfNoneMatch)
	h.Del(wire.IfModifiedSince)
	if !validating {
		return
	}
	h.Del(wire.Range)
	h.Del(wire.IfRange)
	e := &x.Lookup.Entry
	if tag := e.ETag(); tag != nil {
		h.AddID(wire.IfNoneMatch, tag)
	}
	if modified, ok := e.LastModified(); ok {
		var scratch [32]byte
		h.AddID(wire.IfModifiedSince, cache.AppendDate(scratch[:0], modified))
	}
}

// complete makes the rest of a response, of which the beginning is stored, the
// whole one. False when the origin's response is something else.
func (t *target) complete(x *exchange.Exchange) bool {
	var h wire.Header
	o, part, rest := originOf(x), &x.Lookup.Part, x.Response
	if !part.Complete(&h, &o, rest.Length) {
		return false
	}
	x.Response.Stream = nil // Own would release it
	x.Own(200).CopyFrom(&h)
	res := &x.Response
	res.Length = part.BodyLen() + rest.Length
	res.Body, res.Stream = slices.Concat(part.Body(), rest.Body), rest.Stream
	return true
}

// originOf is the response as the cache wants to know it.
func originOf(x *exchange.Exchange) cache.Origin {
	return cache.Origin{
		Status: x.Response.Status, Header: x.Response.Header,
		Requested: clock.NanosAt(x.Attempted), Received: clock.NanosAt(x.FirstByte),
	}
}

// drop gives up a response that the client will not get.
func (t *target) drop(x *exchange.Exchange) {
	if x.Origin != nil {
		t.forget(x, x.Origin)
	}
	x.Response.Stream = nil
}

// store gives a response to the flight. A body that is not there yet is
// received by a goroutine of its own, so that neither a client that leaves nor
// one that reads slowly keeps others from it. True when the flight goes on.
func (t *target) store(x *exchange.Exchange, f *cache.Flight, own bool, report *cache.Report) bool {
	o := originOf(x)
	res := &x.Response
	if res.Stream == nil {
		report.Detail = f.Whole(&o, res.Body)
		noteStored(f, report)
		if !own || !t.cache.Present(x, f.Received(), res.Body, f.Request()) {
			x.Stored = f.Received()
		}
		return false
	}
	if x.Request.Length != 0 && x.Request.Length > maxDetached {
		f.Fail(nil) // the origin may still be reading from memory of the exchange
		return false
	}
	length := max(res.Length, -1)
	if report.Detail = f.Response(&o, length); report.Detail != cache.Storable {
		f.Fail(nil) // the others know
		return false
	}
	noteStored(f, report)
	t.handOn(x, f, own)
	return true
}

// noteStored says in a report what was stored.
func noteStored(f *cache.Flight, report *cache.Report) {
	if report.Stored = report.Detail == cache.Storable; report.Stored {
		terms := f.Received().Terms()
		report.TTL, report.HasTTL = terms.Left(clock.Nanos()), true
	}
}

// maxDetached is the largest request body that is surely sent when the head of
// the response is there.
const maxDetached = 64 << 10

// handOn leaves the rest of a response to a goroutine of its own; the client
// then reads like the others. Without a client the caller's goroutine does it.
func (t *target) handOn(x *exchange.Exchange, f *cache.Flight, own bool) {
	e := f.Received()
	p := &fill{
		gateway: t.gateway, flight: f, route: t.info.Name, first: x.Response.Body,
		status: x.Response.Status, latency: x.FirstByte - x.Attempted,
	}
	p.call, p.server = x.HandOver()
	x.Response.Body, x.Response.Stream = nil, nil
	if x.Detached() {
		p.run(func() {})
		return
	}
	if own {
		x.Lookup.Evaluate(e, f.Request())
	}
	if own && x.Lookup.Answer == cache.AnswerNotModified {
		t.cache.Present(x, e, nil, f.Request())
	} else {
		x.Response.Stream = f.Reader()
		x.Stored = e
	}
	t.gateway.fills.start(p)
}

// fill receives the rest of a response for a flight.
type fill struct {
	gateway *Gateway
	flight  *cache.Flight
	call    *upstream.Call
	server  *upstream.Server
	route   string
	first   []byte // of the body, borrowed from the call
	status  int
	latency int64
}

// lonely is how long a response is received that no client waits for any more,
// and which may be stored.
const lonely = 30 * time.Second

// run receives until the end, and says so before the call is used again. A panic
// ends the fill alone.
func (p *fill) run(ended func()) {
	err := errPanicked
	defer func() {
		if r := recover(); r != nil {
			p.gateway.counters.panics.Inc()
			p.gateway.log.Error("panic while a response was received for the cache; please report it",
				"panic", r, "route", p.route, "stack", string(debug.Stack()))
		}
		if err != io.EOF {
			p.flight.Fail(err)
		}
		p.call.End()
		ended()
		p.server.Done(upstream.Result{Outcome: outcomeOfBody(err), Status: p.status, Latency: p.latency})
		exchange.RecycleCall(p.call)
	}()
	err = p.receive()
}

func (p *fill) receive() (err error) {
	if len(p.first) > 0 {
		err = p.flight.Write(p.first)
	}
	alone := int64(0) // since when
	for err == nil {
		var piece []byte
		if piece, err = p.call.Next(); len(piece) > 0 {
			if failed := p.flight.Write(piece); failed != nil {
				return failed
			}
		}
		if p.flight.Waiting() > 0 {
			alone = 0
		} else if now := clock.Coarse(); alone == 0 {
			alone = now
		} else if now-alone > int64(lonely) {
			return cache.ErrUnwanted
		}
	}
	if err == io.EOF {
		p.flight.Finish(p.call.Trailer())
	}
	return err
}

var errPanicked = errors.New("panic")
