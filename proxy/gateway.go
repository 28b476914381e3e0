// Package proxy is the data plane and its life: the spine that a request walks
// (serve.go), the attempts at origins (forward.go), the running parts of a
// configuration (snapshot.go), and how they start, change and stop.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gateway/accesslog"
	"gateway/config"
	"gateway/exchange"
	"gateway/internal/handover"
	"gateway/internal/unit"
	"gateway/listener"
	"gateway/metrics"
	"gateway/middleware/cache"
	"gateway/middleware/compress"
	"gateway/middleware/ratelimit"
	"gateway/tracing"
	"gateway/upstream"
	"gateway/upstream/dependency"
)

// Gateway owns what outlives a configuration: sockets and connections, servers
// with their health and load, counters, the access log.
type Gateway struct {
	options      Options
	log          *slog.Logger
	version      string
	started      time.Time
	state        atomic.Uint32 // a state
	snapshot     atomic.Pointer[Snapshot]
	servers      *upstream.Registry
	dependencies *dependency.Registry
	limits       *ratelimit.Registry
	compress     *compress.Engine
	cache        *cache.Cache // nil until a route caches
	cacheMemory  unit.Size    // that it was made with
	tier         tierKey
	workers      workers
	fills        fills
	front        *listener.Front
	metrics      *metrics.Registry
	counters     *counters
	unrouted     exchange.Route
	access       atomic.Pointer[accesslog.Logger]
	history      history
	events       *events
	traces       tracing.Counts

	keys          atomic.Pointer[listener.Keys]
	reloadProblem atomic.Pointer[string] // of the last reload, nil when it was applied

	reloading sync.Mutex                    // one reload at a time
	succeeded bool                          // a successor serves the sockets too; guarded by reloading
	retiring  map[*listener.Socket]struct{} // removed, perhaps not closed yet; guarded by reloading

	explaining sync.RWMutex // read while a request is explained, which looks into the cache

	running    chan struct{} // closed when Run has begun to serve
	closing    sync.Once
	closed     chan struct{}  // closed when no request is left
	background sync.WaitGroup // ends soon after that
}

// Options are what a gateway is made of besides its configuration.
type Options struct {
	// Load reads the configuration; called once by New and once per reload.
	Load func() (*config.Config, error)
	// Version is shown in status and metrics.
	Version string
	// Log is the gateway's own log.
	Log *slog.Logger
	// Sockets are those that this process was handed over, nil for none. What
	// no listener takes is closed by New.
	Sockets *handover.Sockets
	// Dial opens the connections for requests to servers; nil: the network.
	Dial upstream.Dial
	// Parts are prepared and committed together with every configuration:
	// what the binary runs beside the data plane.
	Parts []Part
}

// Part takes part in reloads.
type Part interface {
	// Prepare makes ready what c asks for, and changes nothing yet. Either
	// commit or discard is called afterwards. An error rejects the
	// configuration.
	Prepare(c *config.Config) (commit, discard func(), err error)
}

// state is where a gateway is in its life.
type state uint32

const (
	starting state = iota
	serving
	draining
)

func (s state) String() string {
	return [...]string{"starting", "serving", "draining"}[s]
}

// New loads the configuration, makes its parts and binds its sockets; nothing
// is served before Run. Close ends what New began if Run is never called.
func New(o Options) (*Gateway, error) {
	kept := new(events)
	o.Log = slog.New(&keeper{next: o.Log.Handler(), events: kept})
	g := &Gateway{
		options: o,
		events:  kept,
		log:     o.Log,
		version: o.Version,
		started: time.Now(),
		metrics: metrics.New(),
		running: make(chan struct{}),
		closed:  make(chan struct{}),
	}
	g.counters = newCounters(g.metrics)
	g.unrouted = exchange.Route{Name: unrouted, Metrics: g.routeMetrics(unrouted)}
	g.servers = upstream.NewRegistry(upstream.RegistryOptions{Log: o.Log, Observer: g, Dial: o.Dial})
	g.dependencies = dependency.NewRegistry(dependency.RegistryOptions{Log: o.Log, Metrics: g.metrics})
	g.limits = ratelimit.NewRegistry(g.metrics, o.Log)
	g.compress = compress.NewEngine(g.metrics)
	g.front = listener.New(g, o.Log)
	g.front.Inherit(o.Sockets)
	g.metrics.Build(o.Version)
	g.collectPools()
	g.collectConnections()
	g.history.state = g.count(g.started)
	g.collectTraces()

	c, err := o.Load()
	if err == nil {
		_, err = g.apply(context.Background(), c)
	}
	if err != nil {
		g.Close()
		return nil, err
	}
	for _, address := range o.Sockets.Close() {
		g.log.Warn("nothing listens on a socket that was handed over; it is closed", "address", address)
	}
	return g, nil
}

// Run serves until ctx ends, then stops gracefully: not ready at once; the
// drain delay, in which everything is served and answers announce the close
// of their connection, unless a successor serves already; no new connections;
// what is in flight, up to the grace period. What had to be cut off then is
// logged: it is no failure, the configuration says so.
func (g *Gateway) Run(ctx context.Context) {
	g.reloading.Lock()
	for _, s := range g.front.Sockets() {
		s.Serve()
	}
	g.state.Store(uint32(serving))
	close(g.running)
	g.reloading.Unlock()
	g.background.Go(g.keepHistory)
	<-ctx.Done()

	g.state.Store(uint32(draining))
	g.front.Announce()
	g.reloading.Lock() // the last reload has ended, and none begins from here on
	defer g.reloading.Unlock()
	c := g.snapshot.Load().config
	g.log.Info("stopping", "drain_delay", c.Shutdown.DrainDelay, "grace", c.Shutdown.Grace, "in_flight", g.counters.inFlight.Value())
	if !g.succeeded {
		time.Sleep(c.Shutdown.DrainDelay)
	}
	g.front.Retire()
	grace, cancel := context.WithTimeout(context.Background(), c.Shutdown.Grace)
	defer cancel()
	err := g.front.Drain(grace, quiet)
	left := g.counters.inFlight.Value()
	g.Close()
	if err != nil && left > 0 {
		g.log.Warn("stopped, requests or tunnels were cut off after the grace period", "grace", c.Shutdown.Grace, "cut_off", left)
		return
	}
	g.log.Info("stopped")
}

// quiet is how long a connection must have been silent before a stop closes it
// without having announced that: the risk of losing a request is one round
// trip in so long.
const quiet = time.Second

// accessFlush bounds the wait for an access log that is closed.
const accessFlush = 2 * time.Second

// Close ends everything at once. Run does it at its end; a second time does
// nothing.
func (g *Gateway) Close() {
	g.closing.Do(func() {
		g.front.Close()
		close(g.closed)
		g.keys.Load().Close()
		if s := g.snapshot.Load(); s != nil {
			s.discard()
			g.retireTracer(s.tracer)
		}
		g.servers.Close()
		g.dependencies.Close()
		if err := g.access.Load().Close(accessFlush); err != nil {
			g.log.Warn("access log is not complete", "error", err)
		}
		g.background.Wait()
		g.explaining.Lock() // those who ask later find the gateway closed
		defer g.explaining.Unlock()
		g.closeCache()
	})
}

// ReopenLogs opens the access log's file anew, after it was renamed.
func (g *Gateway) ReopenLogs() error {
	if err := g.access.Load().Reopen(); err != nil {
		return fmt.Errorf("reopen access log: %w", err)
	}
	return nil
}

// SetOrder drains, disables or enables a server of a pool, until the gateway is
// restarted. The error says which names are known.
func (g *Gateway) SetOrder(pool, server string, o upstream.Order) error {
	if s := g.snapshot.Load(); s.pools[pool] == nil {
		return fmt.Errorf("unknown upstream %q; want one of %s", pool, strings.Join(s.poolNames, ", "))
	}
	return g.servers.SetOrder(pool, server, o)
}

// SetWeight gives a server of a pool another weight, 1 to 1000, until the
// gateway is restarted; 0 gives it the configured one again. The error says
// which names are known.
func (g *Gateway) SetWeight(pool, server string, weight int) error {
	if s := g.snapshot.Load(); s.pools[pool] == nil {
		return fmt.Errorf("unknown upstream %q; want one of %s", pool, strings.Join(s.poolNames, ", "))
	}
	return g.servers.SetWeight(pool, server, weight)
}

var errStopping = errors.New("the gateway is stopping")
