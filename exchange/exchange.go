// Package exchange is the state of one request on its way through the
// gateway: what was asked, who asked, which route it took, what is answered,
// and who ended it in which phase.
//
// An Exchange knows no server library. A front (package listener) fills one
// from its connection and hands it to the gateway; a background refresh or a
// test can do the same.
package exchange

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"gateway/internal/pipe"
	"gateway/middleware/cache"
	"gateway/middleware/ratelimit"
	"gateway/tracing"
	"gateway/upstream"
	"gateway/wire"
)

// Exchange is one request and its response. It is pooled: nothing may keep it,
// or a slice that it handed out, past Release.
type Exchange struct {
	// Set by the front before the gateway sees the exchange.

	Client  Client         // where the answer goes and the body comes from
	Request wire.Request   // the head, strictly parsed
	Fault   wire.Fault     // why the head was refused; Request is then incomplete
	Peer    netip.AddrPort // other end of the connection (after PROXY protocol); invalid on Unix sockets
	Local   netip.AddrPort // this end; invalid on Unix sockets
	Secure  bool           // came over TLS
	Start   int64          // clock.Mono when the head was complete, ns

	// Set by the stages.

	Route   *Route         // nil until the router has decided
	Addr    netip.Addr     // who is asking, forwarded addresses of trusted peers considered; unmapped
	Trusted bool           // the peer may speak for others
	Scheme  string         // "http" or "https", as the client sees it
	ID      []byte         // request id
	TraceID []byte         // 32 hexadecimal digits
	Trace   *tracing.Trace // of a request that is traced, else nil
	Path    []byte         // path to forward; Request.Path until rewritten
	Query   []byte         // query to forward without "?"; nil when there is no "?"

	Response Response
	Reason   Reason
	Claims   map[string]any   // of the token with which the client proved who it is; nil without
	Limit    ratelimit.Ticket // what the limits of the route have given
	Lookup   cache.Lookup     // what the cache was asked; holds a stored response until the exchange ends
	Stored   *cache.Entry     // of which Response has the whole body, or is going to; nil for others
	Cached   cache.Result     // what the cache did
	Sticky   []byte           // Set-Cookie for this client alone, added when the response has been stored; nil without

	// Times of the phases, clock.Mono in ns; 0 when the phase was not reached.

	Forwarded int64 // first attempt begun
	Attempted int64 // last attempt begun
	FirstByte int64 // head of the final response received
	Ended     int64 // answer complete

	BytesIn  int64            // of the request body, as read
	BytesOut int64            // of the response body, as written before transfer coding
	MaxBody  int64            // bytes that the request body may have, 0 for no limit
	Attempts int              // tries at origins
	Server   string           // address of the server that answered last
	Call     *upstream.Call   // of the current attempt; never nil, but another one after a hedge, and once a response is received for others too
	Head     []byte           // request head as origins get it; memory that the exchange keeps
	Origin   *upstream.Server // holds a place at this server until the exchange ends; nil without
	Tunnel   Tunnel           // takes over the connection after status 101; nil without

	head      wire.Header // fields of an answer of our own
	body      []byte      // body of an answer of our own
	request   []byte      // body of the request, buffered; apart from body, since it may be sent again
	storage   []byte      // memory behind ID, TraceID, Path, Query
	received  bool        // the whole body of the request has been read
	unread    atomic.Bool // AbortBody was called: the body can't be read any more
	abandoned atomic.Bool
	spare     *upstream.Call // the other one, nil until it was needed
	canceller sync.Mutex     // guards what follows; never held across I/O
	calling   *upstream.Call
	waiting   func()
	flight    *cache.Flight // others wait for the response as well
	left      bool          // the client has left
}

// Route is what counters and the log know of a route.
type Route struct {
	Name    string
	Index   int // in the snapshot that the exchange runs on
	Metrics *Metrics
}

// Response is what will be answered.
type Response struct {
	Status int
	// Header are the end-to-end fields; the front adds framing, Connection and
	// Date. It points to the fields of an answer of our own (Own) or to those
	// of the origin's answer.
	Header *wire.Header
	// Length is the number of bytes of the body; LengthUntilClose when
	// unknown. For HEAD and 304 it is what Content-Length will say, -1 for no
	// Content-Length.
	Length int64
	Body   []byte // the whole body when Stream is nil, else what comes before its first piece; borrowed
	Stream Stream // the body, or the rest of it, in pieces; nil when Body is whole
}

// Stream is a response body that arrives in pieces.
type Stream interface {
	// Next is the next piece, never empty without an error, valid until the
	// next call; io.EOF at the end of a complete body, another error when it
	// ended early.
	Next() ([]byte, error)
	// Trailer is the trailer section as lines with CRLF, nil without one;
	// valid after io.EOF.
	Trailer() []byte
}

// Client is the side of the client as a front implements it. Its methods are
// called from the exchange's goroutine only, except AbortBody, and ReadBody
// which an upload may call from a goroutine that has ended before the exchange
// does.
type Client interface {
	// ReadBody reads bytes of the request body, transfer coding removed. It
	// sends 100 Continue first if the client waits for it. io.EOF at the end;
	// os.ErrDeadlineExceeded when the client was too slow.
	ReadBody(p []byte) (int, error)
	// BodyTrailer is the request's trailer section, lines with CRLF, nil
	// without one; valid after ReadBody returned io.EOF.
	BodyTrailer() []byte
	// AbortBody makes a ReadBody that blocks return an error soon. The
	// connection is closed after the exchange. Safe from any goroutine.
	AbortBody()
	// Interim relays an interim response other than 100 and 101, if that is
	// possible now. Its header holds end-to-end fields only.
	Interim(status int, h *wire.Header)
	// Begin writes the head of x.Response and the first bytes of its body;
	// whole says that there are no more. Write and End must not follow then.
	Begin(x *Exchange, body []byte, whole bool) error
	// Write writes more of the body, at once.
	Write(p []byte) error
	// End completes the body; trailer may be nil.
	End(trailer []byte) error
	// Abort ends the connection so that the client sees that the answer is
	// not complete. Nothing may be written after it.
	Abort()
	// Begun reports whether a byte of the final answer may have been written.
	Begun() bool
	// CloseAfter ends the connection after this exchange; called before Begin
	// it is announced with Connection: close.
	CloseAfter()
	// Tunnel makes the front hand the connection to t once the gateway's
	// Handle has returned; Begin with status 101 was called before.
	Tunnel(t Tunnel)
}

// PipeWriter is a Client that can take a body from a pipe.
type PipeWriter interface {
	// TakesPipe reports whether it can in this exchange; valid after Begin.
	TakesPipe() bool
	// WritePipe is Write for all that the pipe holds.
	WritePipe(p *pipe.Pipe) error
}

// Tunnel uses a client's connection after an upgrade.
type Tunnel interface {
	// Run returns when the tunnel has ended; the front closes the connection
	// then. Bytes that the client sent early are read from it first.
	Run(client net.Conn)
}

// Handler is what a front hands exchanges to.
type Handler interface {
	// Handle answers the exchange and releases it; it must not be touched
	// afterwards. It never panics.
	Handle(x *Exchange)
}

var pool = sync.Pool{New: func() any { return &Exchange{Call: new(upstream.Call)} }}

// calls are those of exchanges that have handed theirs over.
var calls = sync.Pool{New: func() any { return new(upstream.Call) }}

// Acquire is an empty exchange from the pool.
func Acquire() *Exchange { return pool.Get().(*Exchange) }

// maxKept bounds the bytes of each buffer that a pooled exchange keeps.
const maxKept = 64 << 10

// Release returns x to the pool. The caller may not use it, or any slice of
// it, afterwards.
func Release(x *Exchange) {
	x.ReleaseBody()
	x.Limit.Reset() // places under concurrency limits are given back
	x.Lookup.Release()
	x.Request.Reset()
	x.Call.Reset()
	if x.spare != nil {
		x.spare.Reset()
	}
	x.head.Reset()
	body, request, storage, head := x.body, x.request, x.storage, x.Head
	if cap(body) > maxKept {
		body = nil
	}
	if cap(request) > maxKept+maxKept/4 {
		request = nil
	}
	if cap(head) > maxKept {
		head = nil
	}
	if cap(storage) > maxKept {
		storage = nil
	}
	x.Client, x.Fault = nil, 0
	x.Peer, x.Local = netip.AddrPort{}, netip.AddrPort{}
	x.Secure, x.Start = false, 0
	x.Route, x.Addr, x.Trusted, x.Scheme = nil, netip.Addr{}, false, ""
	x.ID, x.TraceID, x.Path, x.Query = nil, nil, nil, nil
	x.Trace = nil
	x.Response, x.Reason, x.Claims = Response{}, 0, nil
	x.Forwarded, x.Attempted, x.FirstByte, x.Ended = 0, 0, 0, 0
	x.BytesIn, x.BytesOut, x.MaxBody, x.Attempts, x.Server = 0, 0, 0, 0, ""
	x.body, x.request, x.storage, x.Head = body[:0], request[:0], storage[:0], head[:0]
	x.Origin, x.Tunnel = nil, nil
	x.Cached, x.Sticky = cache.ResultNone, nil
	x.received = false
	x.left = false
	x.unread.Store(false)
	x.abandoned.Store(false)
	pool.Put(x)
}

// Own empties and installs the header for an answer of our own. The response
// that an origin may have given is no longer referred to.
func (x *Exchange) Own(status int) *wire.Header {
	x.ReleaseBody()
	x.head.Reset()
	x.Response, x.Stored = Response{Status: status, Header: &x.head}, nil
	return &x.head
}

// ReleaseBody gives back the memory and the places that the body of the
// response has borrowed, such as those of an encoder. The response then has no
// stream any more.
func (x *Exchange) ReleaseBody() {
	if r, ok := x.Response.Stream.(interface{ Release() }); ok {
		r.Release()
	}
	x.Response.Stream = nil
}

// Keep copies b into memory that lives as long as the exchange.
func (x *Exchange) Keep(b []byte) []byte {
	at := len(x.storage)
	x.storage = append(x.storage, b...)
	return x.storage[at:len(x.storage):len(x.storage)]
}

// Spare is a call for a second attempt at the same time, without a request.
func (x *Exchange) Spare() *upstream.Call {
	if x.spare == nil {
		x.spare = new(upstream.Call)
	}
	return x.spare
}

// SwapCall makes the spare call the exchange's own, and the other way round.
func (x *Exchange) SwapCall() { x.Call, x.spare = x.spare, x.Call }

// Calling tells who is to be cancelled when the client leaves: the call, which
// has to be ready, or nil once it ended. It reports false when the client has
// left already.
func (x *Exchange) Calling(c *upstream.Call) bool {
	x.canceller.Lock()
	x.calling = c
	x.canceller.Unlock()
	return !x.abandoned.Load()
}

// Waiting tells how a wait for a free server is ended when the client leaves,
// or nil once it is over. It reports false when the client has left already.
// cancel must not block.
func (x *Exchange) Waiting(cancel func()) bool {
	x.canceller.Lock()
	x.waiting = cancel
	x.canceller.Unlock()
	return !x.abandoned.Load()
}

// Flying tells which flight the exchange's request is for, or nil once it has
// landed: while others wait for the response, a client that leaves cancels
// nothing.
func (x *Exchange) Flying(f *cache.Flight) {
	x.canceller.Lock()
	x.flight = f
	left := f == nil && x.left
	x.canceller.Unlock()
	if left {
		x.abandon()
	}
}

// Shared reports whether the exchange's request is for others as well. Of the
// exchange's own goroutine.
func (x *Exchange) Shared() bool { return x.flight != nil }

// Abandon is called by the front when the client has left: whoever waits for
// an origin on this exchange's behalf alone is interrupted. Safe from any
// goroutine between the start of the exchange and its Release.
func (x *Exchange) Abandon() {
	x.canceller.Lock()
	x.left = true
	f := x.flight
	x.canceller.Unlock()
	if f == nil || !f.Orphan(x.abandon) {
		x.abandon()
	}
}

func (x *Exchange) abandon() {
	x.abandoned.Store(true)
	x.canceller.Lock()
	if x.calling != nil {
		x.calling.Cancel()
	}
	if x.waiting != nil {
		x.waiting()
	}
	x.canceller.Unlock()
}

// Abandoned reports whether the client has left, and nobody else waits.
func (x *Exchange) Abandoned() bool { return x.abandoned.Load() }
