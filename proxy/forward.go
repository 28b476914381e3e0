package proxy

import (
	"context"
	"errors"
	"os"
	"strconv"
	"time"

	"gateway/exchange"
	"gateway/internal/clock"
	"gateway/listener"
	"gateway/metrics"
	"gateway/middleware"
	"gateway/upstream"
	"gateway/wire"
)

// target is a pool that a route sends requests to, and how. Everything is
// resolved when the snapshot is built.
type target struct {
	*route
	pool     *upstream.Pool
	cache    *middleware.Cache // nil when the route does not cache
	intents  intents
	repeats  upstream.Retries
	duration *metrics.Histogram // of the pool's responses, until their head
	host     string             // Host that origins get, "" for the client's
	attempts int
	hedging  upstream.HedgeDelay

	connectTimeout   time.Duration
	firstByteTimeout time.Duration
	betweenTimeout   time.Duration
}

// forward asks the target's pool: attempts go to one server after the other
// until one answers, or until trying again is useless, unsafe or too
// expensive. This is the only retry loop. Allocates nothing but for streamed
// uploads, waits and pauses.
func (t *target) forward(x *exchange.Exchange) {
	if x.Request.Upgrade != nil && !t.upgrades {
		x.Request.Upgrade = nil // a server may ignore an upgrade; so may we (RFC 9110 section 7.8)
	}
	c := x.Call
	if t.timeout > 0 {
		c.Deadline = clock.TimeAt(x.Start + int64(t.timeout))
	}
	body, ok := t.takeBody(x)
	if !ok {
		return
	}
	intent := t.intents.of(x) // before the origin's fields are chosen: it may not get those that this is made of
	framing := t.prepare(x)
	x.Head = appendHead(x.Head[:0], x, t.host, framing)
	c.Method = x.Request.Method
	c.Head = x.Head
	c.Body = body
	c.Length = x.Request.Length
	if body == nil && x.Request.Length != 0 {
		c.Upload = x
	} else {
		c.TryTimeout = t.pool.Options.Retry.TryTimeout
		t.mirror.copy(x, body, framing)
	}
	c.Upgrade = x.Request.Upgrade != nil
	c.Fresh = !x.Request.Method.Idempotent()
	c.Interim = x
	c.ConnectTimeout = t.connectTimeout
	c.FirstByteTimeout = t.firstByteTimeout
	c.BetweenTimeout = t.betweenTimeout
	t.pool.Budget.Request(clock.Coarse())

	var tried upstream.Tried
	attempts, repeated := t.attempts, upstream.OK
	var renew *upstream.Server // it ended a connection that was in use before, and may be asked over another one
	for {
		server, verdict := t.pool.PickFor(&tried, intent)
		if renew != nil && verdict == upstream.AllTried {
			renew.CloseIdle()
			renew, tried = nil, upstream.Tried{}
			server, verdict = t.pool.PickFor(&tried, intent)
		}
		if verdict.Waits() && t.pool.Options.Queue > 0 && x.Origin == nil {
			server, verdict = t.wait(x, &tried, intent)
		}
		if server == nil {
			switch {
			case x.Attempts == 0:
				x.Fail(reasonOfVerdict(x, verdict))
			case x.Origin != nil: // a response that somebody else was to better
				if reason := t.receive(x, x.Origin, intent.Token); reason != exchange.Done {
					t.fail(x, x.Origin, reason, outcomeOf(reason))
				}
			}
			return // nobody else can be asked: the last attempt's answer stands
		}
		if x.Attempts > 0 {
			t.pool.Retried(repeated)
			if x.Origin != nil {
				t.forget(x, x.Origin)
			}
		}
		x.Origin, x.Server = server, server.Name
		outcome, other := t.attempt(x, intent)
		if outcome == upstream.Stale && attempts == t.attempts && harmless(x) {
			// The origin closed a connection that had been idle for long. That
			// says nothing about the server: once, for free, on a new one.
			attempts++
			server.CloseIdle()
			t.pool.Retried(upstream.Stale)
			outcome, _ = t.attempt(x, intent)
		}
		if other != nil {
			server = x.Origin
			tried.Add(other)
		}
		reason := exchange.Done
		if outcome != upstream.OK {
			reason = reasonOf(outcome, x.Call)
		} else {
			x.FirstByte = x.Call.Answered
			if x.Attempts < attempts && t.unwanted(x) {
				tried.Add(server)
				repeated = upstream.OK
				continue
			}
			if reason = t.receive(x, server, intent.Token); reason == exchange.Done {
				return
			}
			outcome = outcomeOf(reason)
		}
		outcome = t.fail(x, server, reason, outcome)
		if x.Attempts >= attempts || !t.again(x, outcome) {
			return
		}
		tried.Add(server)
		if repeated = outcome; outcome == upstream.Reset && x.Call.Reused() && x.Attempts == 1 {
			renew = server
		}
	}
}

// attempt sends the request to the server that the exchange holds a place at,
// and waits for the head of its response, or until the client has left. When a
// hedge has made another attempt, the place is afterwards one at the server
// whose outcome it is, and other is the one that is not used; else nil.
func (t *target) attempt(x *exchange.Exchange, intent upstream.Intent) (o upstream.Outcome, other *upstream.Server) {
	x.Attempts++
	x.Call.Ready() // before anybody is told: the client may leave before it has begun
	x.Attempted = x.Call.Began
	x.FirstByte = 0
	if x.Attempts == 1 {
		x.Forwarded = x.Attempted
	}
	if !x.Calling(x.Call) {
		return upstream.Cancelled, nil
	}
	x.Trace.Begin("attempt", x.Server)
	if h := t.hedge(x, intent); h != nil {
		o, other = h.race(x)
	} else {
		o = x.Call.Do(x.Origin.Endpoint)
	}
	x.Trace.Done(o.String(), x.Call.Response.Status, o != upstream.OK)
	return o, other
}

// fail ends an attempt without a response that could be given to the client,
// and makes the answer that it gets if nobody else is asked. It returns the
// outcome as the server has to answer for it.
func (t *target) fail(x *exchange.Exchange, server *upstream.Server, reason exchange.Reason, o upstream.Outcome) upstream.Outcome {
	latency := clock.Mono() - x.Attempted
	if x.FirstByte != 0 {
		latency = x.FirstByte - x.Attempted
	}
	x.Calling(nil)
	x.Call.End()
	if o == upstream.DeadlinePassed && !x.BodyReceived() {
		o = upstream.Cancelled // not the server's fault: the client was slow
	}
	x.Origin = nil
	server.Done(upstream.Result{Outcome: o, Latency: latency})
	if o == upstream.UploadFailed {
		x.Client.CloseAfter() // where the next request would begin is not known
	}
	x.Fail(reason)
	return o
}

// forget ends an attempt whose response is not given to the client.
func (t *target) forget(x *exchange.Exchange, server *upstream.Server) {
	status := x.Call.Response.Status
	x.Calling(nil)
	x.Call.End()
	x.Origin = nil
	server.Done(upstream.Result{Status: status, Latency: x.FirstByte - x.Attempted})
}

// again decides about another attempt after one that failed, and makes the
// pause before it. Nothing has been written to the client yet.
func (t *target) again(x *exchange.Exchange, o upstream.Outcome) bool {
	// Other outcomes are our own trouble, or the client's, or what another
	// server would repeat.
	return t.repeats.Outcome(o) && harmless(x) && t.allowed() && pause(x, t.pool.Options.Retry.Pause(x.Attempts))
}

// unwanted is again for a response whose status is a reason to try another
// server. The response is kept until there is one.
func (t *target) unwanted(x *exchange.Exchange) bool {
	res := &x.Call.Response
	if !t.repeats.Status(res.Status) || !harmless(x) {
		return false
	}
	wait := t.pool.Options.Retry.Pause(x.Attempts)
	switch after := res.Get(wire.RetryAfter); string(after) {
	case "", "0":
	case "1":
		wait = time.Second
	default:
		return false // whoever asked shall know
	}
	return t.allowed() && pause(x, wait)
}

// allowed asks the pool's budget for another attempt.
func (t *target) allowed() bool {
	if t.pool.Budget.Allow(clock.Mono()) {
		return true
	}
	t.pool.BudgetExhausted()
	return false
}

// harmless reports whether the request can be sent once more: its body is
// still there, and nothing was sent or sending it twice does no harm (RFC 9110
// section 9.2.2).
func harmless(x *exchange.Exchange) bool {
	c := x.Call
	return (c.Upload == nil || x.BodyUntouched()) && (!c.Fresh || !c.Sent())
}

// wait is a pick that waits in the pool's queue, until the time for the whole
// exchange is over or the client has left. Cold path.
func (t *target) wait(x *exchange.Exchange, tried *upstream.Tried, intent upstream.Intent) (*upstream.Server, upstream.Verdict) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if d := x.Call.Deadline; !d.IsZero() {
		var stop context.CancelFunc
		ctx, stop = context.WithDeadline(ctx, d)
		defer stop()
	}
	defer x.Waiting(nil)
	if !x.Waiting(cancel) {
		return nil, upstream.WaitCancelled
	}
	return t.pool.Wait(ctx, tried, intent)
}

// pause waits for so long and reports whether to go on: not if the client has
// left, and at once not if the time for the whole exchange does not allow it.
func pause(x *exchange.Exchange, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	if end := x.Call.Deadline; !end.IsZero() && time.Until(end) <= d {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	defer x.Waiting(nil)
	if !x.Waiting(cancel) {
		return false
	}
	<-ctx.Done()
	return !x.Abandoned()
}

// receive makes the origin's response the exchange's. A reason other than Done
// says why it can't be. token is that of the client's sticky session.
func (t *target) receive(x *exchange.Exchange, server *upstream.Server, token []byte) exchange.Reason {
	c := x.Call
	t.duration.Observe(time.Duration(x.FirstByte - x.Forwarded))
	res := &c.Response
	status := res.Status
	if status == 101 {
		if reason := t.upgrade(x); reason != exchange.Done {
			return reason
		}
		t.stick(x, server, token)
		return exchange.Done
	}
	res.DelHopByHop()
	t.stick(x, server, token)
	x.Reason = exchange.Done
	x.Response = exchange.Response{Status: status, Header: &res.Header, Length: res.Length}
	if x.Request.Method == wire.MethodHead || status == 304 {
		x.Response.Length = res.Declared
	}
	if body, ok := c.Whole(); ok && c.Trailer() == nil {
		// The connection serves others while our client is written to.
		x.Response.Body = body
		if res.Length < 0 {
			x.Response.Length = int64(len(body))
		}
		x.Calling(nil)
		x.Origin = nil
		server.Done(upstream.Result{Status: status, Latency: x.FirstByte - x.Attempted})
		return exchange.Done
	}
	if res.Length > 0 {
		// A body of known length is no stream of events: its head can wait for
		// the first piece, and goes out with it. If there is none, then the
		// client gets an error instead of a broken answer.
		first, err := c.Next()
		if err != nil {
			return reasonOfStream(x, err)
		}
		x.Response.Body = first
	}
	x.Response.Stream = c
	return exchange.Done
}

// stick marks the client with the server that answered it, unless it has that
// mark.
func (t *target) stick(x *exchange.Exchange, server *upstream.Server, token []byte) {
	if own := server.Token(); own != "" && own != string(token) {
		var buffer [256]byte
		cookie := t.pool.AppendCookie(buffer[:0], server, x.Scheme == "https")
		if x.Shared() { // it is nobody else's
			x.Sticky = append([]byte(nil), cookie...)
			return
		}
		x.Call.Response.AddID(wire.SetCookie, cookie)
	}
}

// takeBody reads a request body that is small enough to be replayed. Larger
// ones and those of unknown length are streamed: nil, true. After false the
// answer is made.
func (r *route) takeBody(x *exchange.Exchange) (body []byte, ok bool) {
	n := x.Request.Length
	if n <= 0 || n > r.bufferBody {
		return nil, true
	}
	d := x.Call.Deadline
	body, err := x.BufferBody(d)
	if err != nil {
		reason := reasonOfUpload(err)
		if !d.IsZero() && !time.Now().Before(d) {
			reason = exchange.ExchangeTimeout
		}
		x.Client.CloseAfter()
		x.Fail(reason)
		return nil, false
	}
	return body, true
}

// framing is what the fields that end at a hop have said.
type framing struct {
	trailers bool // the client takes them
	declared bool // a Content-Length, of 0 perhaps
}

// prepare makes the request's fields those that origins get.
func (r *route) prepare(x *exchange.Exchange) (f framing) {
	h := &x.Request.Header
	f.trailers = wire.HasToken(h.Get(wire.TE), "trailers")
	f.declared = h.Has(wire.ContentLength)
	h.DelHopByHop()
	h.Del(wire.Expect) // answered here
	h.Del(wire.Host)   // written first
	r.identity.Forward(x)
	r.headers.Request(x)
	return f
}

// appendHead writes the request's head as an origin gets it. The request line
// and the framing are written anew; what the client sent there does not
// travel on. Fields are copied in ranges of the original bytes.
func appendHead(b []byte, x *exchange.Exchange, host string, f framing) []byte {
	q := &x.Request
	b = append(b, q.MethodText...)
	b = append(b, ' ')
	b = append(b, x.Path...)
	if x.Query != nil {
		b = append(b, '?')
		b = append(b, x.Query...)
	}
	b = append(b, " HTTP/1.1\r\nHost: "...)
	if host != "" {
		b = append(b, host...)
	} else {
		b = append(b, q.Host...)
	}
	b = append(b, "\r\n"...)
	b = q.Header.AppendTo(b)
	switch {
	case q.Length == wire.LengthChunked:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case q.Length > 0 || f.declared || q.Method == wire.MethodPost || q.Method == wire.MethodPut || q.Method == wire.MethodPatch:
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, q.Length, 10)
		b = append(b, "\r\n"...)
	}
	switch {
	case q.Upgrade != nil:
		b = append(b, "Connection: upgrade\r\nUpgrade: "...)
		b = append(b, q.Upgrade...)
		b = append(b, "\r\n"...)
	case f.trailers:
		b = append(b, "Connection: TE\r\nTE: trailers\r\n"...)
	}
	return append(b, "\r\n"...)
}

// reasonOf translates a failed attempt into the reason that the client gets.
func reasonOf(o upstream.Outcome, c *upstream.Call) exchange.Reason {
	switch o {
	case upstream.ConnectRefused, upstream.TLSFailed:
		return exchange.ConnectFailed
	case upstream.ConnectTimedOut:
		return exchange.ConnectTimeout
	case upstream.NoResources:
		return exchange.NoResources
	case upstream.Stale, upstream.Reset:
		return exchange.OriginReset
	case upstream.TimedOut:
		return exchange.OriginTimeout
	case upstream.DeadlinePassed:
		return exchange.ExchangeTimeout
	case upstream.Invalid:
		return exchange.OriginInvalid
	case upstream.UploadFailed:
		return reasonOfUpload(c.UploadError())
	case upstream.Cancelled:
		return exchange.ClientLeft
	}
	panic("BUG: no reason for outcome " + o.String())
}

// reasonOfUpload translates an error of reading the request body.
func reasonOfUpload(err error) exchange.Reason {
	var fault *listener.FaultError
	switch {
	case errors.Is(err, exchange.ErrBodyTooLarge):
		return exchange.BodyTooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		return exchange.ClientSlow
	case errors.As(err, &fault):
		return exchange.BadBody
	}
	return exchange.ClientLeft // the connection ended or broke, in one way or another
}

// reasonOfVerdict translates that no server was found for the first attempt.
func reasonOfVerdict(x *exchange.Exchange, v upstream.Verdict) exchange.Reason {
	switch v {
	case upstream.AllFull:
		return exchange.ServersFull
	case upstream.Overloaded:
		return exchange.Overloaded
	case upstream.QueueFull:
		return exchange.QueueFull
	case upstream.QueueTimedOut:
		return exchange.QueueTimedOut
	case upstream.WaitCancelled:
		if x.Abandoned() {
			return exchange.ClientLeft
		}
		return exchange.ExchangeTimeout
	}
	return exchange.NoServer
}
