package exchange

import (
	"io"

	"gateway/internal/clock"
	"gateway/upstream"
	"gateway/wire"
)

// Detach is an exchange with the same request and no client, for work that
// goes on when x is over: it borrows nothing, and what is answered to it is
// forgotten. It may be used until x is released, and is itself released by
// whoever asked for it. The request's body, if it has one, must have been
// buffered. It allocates.
func (x *Exchange) Detach() *Exchange {
	y := Acquire()
	y.Client = nobody{}
	y.Request.CopyFrom(&x.Request)
	y.Peer, y.Local, y.Secure, y.Start = x.Peer, x.Local, x.Secure, clock.Mono()
	y.Route, y.Addr, y.Trusted, y.Scheme = x.Route, x.Addr, x.Trusted, x.Scheme
	y.ID, y.TraceID, y.Path = y.Keep(x.ID), y.Keep(x.TraceID), y.Keep(x.Path)
	if x.Query != nil {
		y.Query = y.Keep(x.Query)
	}
	y.MaxBody = x.MaxBody
	y.request = append(y.request[:0], x.request...)
	y.received = x.received
	return y
}

// Detached reports whether the exchange has no client.
func (x *Exchange) Detached() bool {
	_, ok := x.Client.(nobody)
	return ok
}

// HandOver parts the exchange from its call and from its place at the origin,
// for whoever receives the rest of the response: it releases the call with End
// and RecycleCall. The response's fields are copied. A client that leaves
// cancels the call no more.
func (x *Exchange) HandOver() (*upstream.Call, *upstream.Server) {
	x.Calling(nil)
	if x.Response.Header != &x.head {
		x.head.CopyFrom(x.Response.Header)
		x.Response.Header = &x.head
	}
	call, server := x.Call, x.Origin
	call.Head, call.Body, call.Upload, call.Interim = nil, nil, nil, nil // they were the exchange's
	x.Call, x.Origin = calls.Get().(*upstream.Call), nil
	x.Call.Deadline = call.Deadline
	return call, server
}

// RecycleCall takes back a call that HandOver has given, after its End.
func RecycleCall(c *upstream.Call) {
	c.Reset()
	calls.Put(c)
}

// nobody is the client of detached exchanges.
type nobody struct{}

func (nobody) ReadBody([]byte) (int, error)        { return 0, io.EOF }
func (nobody) BodyTrailer() []byte                 { return nil }
func (nobody) AbortBody()                          {}
func (nobody) Interim(int, *wire.Header)           {}
func (nobody) Begin(*Exchange, []byte, bool) error { return nil }
func (nobody) Write([]byte) error                  { return nil }
func (nobody) End([]byte) error                    { return nil }
func (nobody) Abort()                              {}
func (nobody) Begun() bool                         { return false }
func (nobody) CloseAfter()                         {}
func (nobody) Tunnel(Tunnel)                       {}
