package upstream

import (
	"context"
	"crypto/tls"
	"net"
	"sync/atomic"
	"time"
)

// EndpointOptions say how an origin address is reached.
type EndpointOptions struct {
	Network string // "tcp" or "unix"
	Address string // "host:port" with a name or an IP address, or the path of a socket
	// TLS turns TLS on. It is cloned. What it leaves open is filled in: the
	// server name from Address, http/1.1 as protocol, a session cache.
	TLS         *tls.Config
	MaxIdle     int           // idle connections kept; 0 keeps none
	IdleTimeout time.Duration // an idle connection is closed after this time; 0: never
	MaxHeader   int           // bytes of a response head, at most 128 KiB; 0: 64 KiB
	MaxFields   int           // field lines of a response head; 0: 256
	Dial        Dial          // opens the connections below TLS; nil: the network
}

// Dial opens a connection as net.Dialer.DialContext does.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Endpoint is one origin address as the transport reaches it: how to connect,
// and the idle connections. Safe for concurrent use.
type Endpoint struct {
	network   string
	address   string
	tls       *tls.Config
	dial      Dial
	maxHeader int
	maxFields int
	open      atomic.Int64 // connections that the transport owns, in use or idle
	room      atomic.Int32 // memory that the next response most likely fits into, head included

	idle idle
}

// Defaults of EndpointOptions.
const (
	defaultMaxHeader = 64 << 10
	maxHead          = 128 << 10
	defaultMaxFields = 256
)

// freshFor is how long a connection may have been idle to be trusted: with a
// request that can't be repeated, and not to be closed because it was idle.
const freshFor = time.Second

// recent is how long a connection may have been idle to need no further look for
// a request that can't be repeated: no origin gives it up so soon.
const recent = 10 * time.Millisecond

// NewEndpoint is an endpoint without connections. Nothing is resolved or
// dialled before the first call.
func NewEndpoint(o EndpointOptions) *Endpoint {
	e := &Endpoint{
		network: o.Network, address: o.Address,
		maxHeader: o.MaxHeader, maxFields: o.MaxFields,
		dial: o.Dial,
	}
	e.idle.init(o.MaxIdle, o.IdleTimeout)
	if e.dial == nil {
		e.dial = (&net.Dialer{KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 6,
		}}).DialContext
	}
	e.room.Store(minBuffer)
	if e.maxHeader <= 0 {
		e.maxHeader = defaultMaxHeader
	}
	e.maxHeader = min(e.maxHeader, maxHead)
	if e.maxFields <= 0 {
		e.maxFields = defaultMaxFields
	}
	if o.TLS != nil {
		e.tls = clientTLS(o.TLS, o.Network, o.Address)
	}
	return e
}

// learn prepares for more responses of so many bytes, head included: one that
// fits into its memory takes a single read.
func (e *Endpoint) learn(size int) {
	room := int32(minBuffer)
	if size > minBuffer && size <= maxExpected {
		room = maxExpected
	}
	if e.room.Load() != room { // most often it is: then nobody else's cache is disturbed
		e.room.Store(room)
	}
}

// Stats counts the connections that the transport owns, and those of them
// that are idle. Connections taken over by Hijack are not counted.
func (e *Endpoint) Stats() (open, idle int) { return int(e.open.Load()), e.idle.count() }

// CloseIdle closes the idle connections.
func (e *Endpoint) CloseIdle() { e.idle.clear() }

// Retire closes the idle connections, and those that come back later instead
// of keeping them. Calls may go on and new ones are still possible.
func (e *Endpoint) Retire() {
	e.idle.keep(false)
	e.idle.clear()
}

// Keep says whether connections that come back are kept, as they are at first,
// or closed. Those that are idle stay.
func (e *Endpoint) Keep(on bool) { e.idle.keep(on) }

// take is an idle connection that was used lately and has nothing to read, nil
// when there is none. With fresh, only one that has been idle for less than
// freshFor, and that is looked at in this moment if it was idle for more than a
// moment.
//
// What an origin sends unasked, after the end of a response, lies in the socket
// and would be read as the answer to the next request, which may be another
// client's. So no connection is used again without a look at it after its last
// response. It also finds connections that the origin has closed.
func (e *Endpoint) take(fresh bool) *conn {
	for {
		c := e.idle.pop(fresh)
		if c == nil || c.quiet(fresh && c.idled >= recent) {
			return c
		}
		c.close()
	}
}

// put keeps a connection whose response ended at its boundary, or closes it.
// since is clock.Mono after its last read.
func (e *Endpoint) put(c *conn, since int64) {
	if !c.drained() || !e.idle.push(c, since) {
		c.close()
	}
}
