package proxy

import (
	"gateway/exchange"
	"gateway/wire"
)

// serve is the life of a request, top to bottom. The order of the stages is
// knowledge: each line says why it stands where it does. A stage that is off
// is nil, and a nil stage does nothing. No body is read before a request is
// forwarded: a client that waits for 100 Continue is refused before it sends.
func serve(s *Snapshot, x *exchange.Exchange) {
	s.identity.Before(x) // who is asking: before anything that limits or logs by address
	if x.Fault != wire.NoFault {
		x.Client.CloseAfter() // where the next request would begin is anybody's guess
		if x.Reason == exchange.Done {
			x.Reason = exchange.BadRequest
		}
		x.Fail(x.Reason) // or it came too slowly, or the client left in the middle
		return
	}
	x.Path, x.Query = x.Request.Path, x.Request.Query
	note := s.note(x) // if somebody asks who may; before any stage takes or changes something
	r := s.match(x)
	if r == nil {
		x.Fail(exchange.NoRoute)
		note.attach(x)
		return
	}
	x.Route = &r.info // from here on, counters and the log know whose request this is
	x.MaxBody = r.maxBody
	asked := r.compress.Before(x) // the origin sees a request for plain bodies, without tags of coded ones
	switch {
	case !r.limit.ByAddress(x, &x.Limit): // floods and guessing end before credentials are looked at
		x.Reason = exchange.RateLimited
	case !r.access.Before(x):
		x.Fail(exchange.Denied)
	case r.cors.Preflight(x): // asks about a request and is none for the origin; browsers send it without a token
	case !r.token.Before(x):
	case !r.limit.ByIdentity(x, &x.Limit): // again: a key can be a user
		x.Reason = exchange.RateLimited
	case x.MaxBody > 0 && x.Request.Length > x.MaxBody:
		x.Fail(exchange.BodyTooLarge)
	case r.respond != nil:
		r.respond.answer(x) // redirects and fixed answers end here
	default:
		r.rewrite.Before(x) // origins see it; what is keyed is what the client asks for, and the route
		switch t := r.choose(x); {
		case t.cache != nil:
			t.throughCache(x, s) // a hit ends here, a miss asks once for all who wait
			asked.Stored = t.cache.Stored(x)
		case t.mayAsk(x):
			t.forward(x)
			s.invalidate(x, nil) // before the client knows that it has changed something
		}
	}
	r.compress.After(x, asked)
	r.cors.After(x)            // also on errors: a page may read why it was refused
	r.limit.After(x, &x.Limit) // how much is left
	r.headers.Response(x)      // last: the origin's response has replaced whatever was there
	note.attach(x)
}
