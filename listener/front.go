// Package listener turns connections into exchanges: sockets, TLS, connection
// limits and deadlines, the reading of requests, and the writing of answers.
//
// A Front owns the connections of all sockets of a process and outlives every
// configuration: Bind opens a socket, Apply installs options and certificates,
// Serve begins to accept.
//
// A connection that waits for a request is a sleeper, which a loop watches and a
// worker serves for as long as its requests are plain: whole when they are read.
// Any other connection, or one that has to be waited for, is an ordinary one,
// with a goroutine. In both cases a Conn is what exchanges see of it. An ordinary
// Conn that meets something else than a plain request is driven by fasthttp's
// server, which finds the heads; everything else is done here. Its feed
// gives fasthttp exactly one head at a time and keeps what follows, so that
// request bodies, early bytes of tunnels and pipelined requests are read by
// this package alone, strictly; and it discards what fasthttp would answer,
// because answers are written by the exchange itself, straight to the socket,
// in order.
package listener

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"gateway/exchange"
	"gateway/internal/clock"
	"gateway/internal/handover"
	"gateway/internal/poller"
	"gateway/wire"
)

// Front serves the connections of its sockets. Its methods are safe for
// concurrent use, except that Apply and Bind belong to one goroutine at a time.
type Front struct {
	handler   exchange.Handler
	log       *slog.Logger
	settings  atomic.Pointer[settings]
	announced atomic.Bool // answers say Connection: close
	census    census
	flights   flights
	loops     []*loop       // empty when the kernel has refused one
	nextLoop  atomic.Uint32 // counts connections, to spread them over the loops

	inherited *handover.Sockets // nil: none

	mu      sync.Mutex
	sockets []*Socket
	closed  chan struct{}
	once    sync.Once
}

// settings are what the configuration says, as one value: a connection loads
// them once per request.
type settings struct {
	Options
	maxConnections int
	keys           *Keys
	limits         wire.Limits
	server         *fasthttp.Server
}

// New makes a front that hands exchanges to h. Close ends it.
func New(h exchange.Handler, log *slog.Logger) *Front {
	f := &Front{handler: h, log: log, closed: make(chan struct{})}
	f.census.conns = make(map[*Conn]struct{})
	f.census.clients = make(map[clientKey]int)
	sets, err := poller.Sets()
	if err != nil {
		log.Warn("connections cannot sleep without a goroutine each", "error", err)
	}
	for _, set := range sets {
		f.loops = append(f.loops, &loop{front: f, set: set, workers: workers{front: f}})
	}
	go f.sweep()
	return f
}

// Apply installs what the configuration says; it must be called before the
// first Serve. maxConnections bounds the connections of all sockets together, 0
// for no limit. keys may be nil while no socket is secure; the front only
// borrows it: the caller closes keys that were replaced. Connections that exist
// keep their TLS session and the size of their buffer, and follow the rest from
// their next request on.
func (f *Front) Apply(o Options, maxConnections int, keys *Keys) {
	s := &settings{Options: o, maxConnections: maxConnections, keys: keys, limits: o.Limits()}
	if old := f.settings.Load(); old != nil && old.MaxHeader == o.MaxHeader {
		s.server = old.server
	} else {
		s.server = newServer(int(o.MaxHeader), f.log)
	}
	f.settings.Store(s)
}

// Sockets are the sockets that are open.
func (f *Front) Sockets() []*Socket {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*Socket(nil), f.sockets...)
}

// Stats are the totals of a front.
type Stats struct {
	Active        int   // connections, tunnels included
	RefusedTotal  int64 // connections beyond the limit of all
	RefusedClient int64 // connections beyond the limit of one client address
}

// Stats reads the totals.
func (f *Front) Stats() Stats {
	return Stats{
		Active:        f.census.size(),
		RefusedTotal:  f.census.refusedTotal.Load(),
		RefusedClient: f.census.refusedClient.Load(),
	}
}

// Announce makes every answer from now on say Connection: close. Nothing else
// changes: connections are accepted and served.
func (f *Front) Announce() { f.announced.Store(true) }

// Retire stops accepting on all sockets, as Socket.Retire does.
func (f *Front) Retire() {
	var wait sync.WaitGroup
	for _, s := range f.Sockets() {
		wait.Go(s.Retire)
	}
	wait.Wait()
}

// Drain waits until no connection is left, after Announce and Retire; ctx ends
// the wait with its error, and Close then cuts what is left, tunnels included.
//
// A connection between two requests is a promise: its client may be writing the
// next one, and closing then would lose it. So such connections stay, and their
// next answer says Connection: close, unless no byte of a request has come for
// quiet: the risk of a loss is then one round trip in so long. quiet 0 closes
// none of them; the wait then lasts until the clients have gone or ctx ends.
func (f *Front) Drain(ctx context.Context, quiet time.Duration) error {
	begun := clock.Mono()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for f.census.size() > 0 {
		if now := clock.Mono(); quiet > 0 && now-begun >= int64(quiet) {
			f.retireIdle(now - int64(quiet))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Close closes all sockets and cuts all connections, without regard for
// requests that are in flight, and waits (a second at most) for their end.
func (f *Front) Close() {
	f.once.Do(func() { close(f.closed) })
	f.announced.Store(true)
	for _, s := range f.Sockets() {
		s.close()
	}
	f.cut()
	for end := time.Now().Add(time.Second); f.census.size() > 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
		f.cut() // one may have been accepted meanwhile
	}
	for _, l := range f.loops {
		l.close()
	}
	f.cut() // what has entered since the last time
	f.trim(1<<63 - 1)
}

// trim ends the workers that had nothing to do since before the given time.
func (f *Front) trim(before int64) {
	for _, l := range f.loops {
		l.workers.trim(before)
	}
}

// retireIdle ends connections that have been waiting for a request since before
// the given time.
func (f *Front) retireIdle(before int64) {
	f.census.retireIdle(before)
	for _, l := range f.loops {
		l.retire(before, before)
	}
}

// cut ends all connections and abandons their exchanges.
func (f *Front) cut() {
	f.census.cut()
	for _, l := range f.loops {
		l.cut()
	}
	f.flights.abandon()
}
