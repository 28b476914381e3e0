package users

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"
)

const (
	readTimeout  = 30 * time.Second // for a whole request, body included
	writeTimeout = 30 * time.Second // for a whole answer, or an event of a stream
	idleTimeout  = 90 * time.Second
	maxClients   = 10_000
	maxHeader    = 16 << 10
)

// Service is one replica of the user service.
type Service struct {
	options      Options
	now          func() time.Time
	store        Store
	storeName    string
	hasher       *hasher
	health       health
	metrics      *requestMetrics
	cacheControl string

	listener net.Listener
	server   *fasthttp.Server
	draining atomic.Bool
	warned   atomic.Int64 // when warn logged last, in nanoseconds since 1970

	// stopping ends when the service is told to stop, running when its
	// requests must end.
	stopping, running context.Context
	stop, end         context.CancelFunc
}

// Run serves until ctx ends, then stops gracefully: New, Options.Ready, Serve.
func Run(ctx context.Context, o Options) error {
	s, err := New(ctx, o)
	if err != nil {
		return err
	}
	if o.Ready != nil {
		o.Ready(s.Addr())
	}
	return s.Serve(ctx)
}

// New opens the store, waiting for a database that does not answer yet, and
// binds the address. Whoever gets a Service calls Serve, which releases it.
func New(ctx context.Context, o Options) (*Service, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("check options: %w", err)
	}
	s := &Service{options: o, now: time.Now, metrics: newRequestMetrics()}
	if err := s.openStore(ctx); err != nil {
		return nil, err
	}
	if s.listener, err = net.Listen("tcp", o.Listen); err != nil {
		s.store.Close()
		return nil, fmt.Errorf("listen: %w", err)
	}
	if s.options.Name == "" {
		s.options.Name = defaultName(s.listener.Addr().(*net.TCPAddr).Port)
	}
	s.cacheControl = cacheControl(o.CacheTTL)
	s.hasher = newHasher(o.Workers, o.BcryptCost)
	s.stopping, s.stop = context.WithCancel(context.Background())
	s.running, s.end = context.WithCancel(context.Background())
	s.server = &fasthttp.Server{
		Handler:                      s.handle,
		ErrorHandler:                 s.handleBadRequest,
		Concurrency:                  maxClients,
		ReadBufferSize:               maxHeader,
		ReadTimeout:                  readTimeout,
		WriteTimeout:                 writeTimeout,
		IdleTimeout:                  idleTimeout,
		MaxRequestBodySize:           maxBatchBody,
		CloseOnShutdown:              true,
		DisablePreParseMultipartForm: true,
		NoDefaultServerHeader:        true,
		NoDefaultContentType:         true,
		SecureErrorLogMessage:        true,
		Logger:                       serverLog{o.Log},
	}
	return s, nil
}

// openStore chooses the store and puts the cache before it.
func (s *Service) openStore(ctx context.Context) error {
	o := &s.options
	cache := o.Cache
	if o.DatabaseURL == "" {
		s.store, s.storeName = NewMemory(o.Seed), "memory"
		// What this process caches is nobody else's truth.
		cache.Prefix = or(cache.Prefix, defaultPrefix) + rand.Text() + ":"
	} else {
		p, err := NewPostgres(ctx, PostgresOptions{
			URL: o.DatabaseURL, PoolSize: o.PoolSize, Seed: o.Seed, StartTimeout: o.StartTimeout, Tracer: o.Tracer, Log: o.Log,
		})
		if err != nil {
			return err
		}
		s.store, s.storeName = p, "postgres"
		s.metrics.addPool(p)
	}
	s.health.database = s.store.Ping
	if o.RedisURL != "" && o.CacheTTL > 0 {
		cache.URL, cache.TTL = o.RedisURL, o.CacheTTL
		c, err := NewCache(s.store, cache, s.metrics.set, o.Log)
		if err != nil {
			s.store.Close()
			return err
		}
		s.store, s.health.redis = c, c.PingRedis
	}
	return nil
}

// cacheControl is what reads say. A sixth of the TTL keeps what a client or
// the gateway adds to an entry's age small beside the entry's own.
func cacheControl(ttl time.Duration) string {
	if ttl < 0 {
		return "public, max-age=0"
	}
	age := min(max(int(ttl/(6*time.Second)), 1), 60)
	return "public, max-age=" + strconv.Itoa(age)
}

// Addr is the bound host:port.
func (s *Service) Addr() string { return s.listener.Addr().String() }

// Serve serves until ctx ends. Then it says so on each answer and in /health
// for Options.Drain, closes the listener, lets requests end for Options.Grace
// and releases everything. The error is nil when all requests have ended.
func (s *Service) Serve(ctx context.Context) error {
	defer func() {
		s.end()
		s.hasher.close()
		s.store.Close()
	}()
	s.options.Log.Info("listening", "address", s.Addr(), "store", s.storeName)
	failed := make(chan error, 1)
	go func() { failed <- s.server.Serve(patientListener{s.listener}) }()
	select {
	case err := <-failed:
		s.stop()
		s.listener.Close()
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}

	s.draining.Store(true)
	s.stop()
	select {
	case <-time.After(s.options.Drain):
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	}
	grace, cancel := context.WithTimeout(context.Background(), s.options.Grace)
	defer cancel()
	err := s.server.ShutdownWithContext(grace)
	s.listener.Close() // again, in case that the server had not begun to serve
	if err != nil {
		err = fmt.Errorf("stop: requests did not end within %v", s.options.Grace)
		s.end() // whoever waits for something stops waiting, and answers
		for deadline := time.Now().Add(time.Second); s.server.GetOpenConnectionsCount() > 0 && time.Now().Before(deadline); {
			time.Sleep(5 * time.Millisecond)
		}
	}
	<-failed
	return err
}

// handleBadRequest answers what the server could not read.
func (s *Service) handleBadRequest(ctx *fasthttp.RequestCtx, err error) {
	var netErr net.Error
	var small *fasthttp.ErrSmallBuffer
	switch {
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		s.sendTooLarge(ctx, maxBatchBody)
	case errors.As(err, &small):
		s.sendTrouble(ctx, trouble{status: fasthttp.StatusRequestHeaderFieldsTooLarge, detail: "the header is too large"})
	case errors.As(err, &netErr) && netErr.Timeout():
		s.sendTrouble(ctx, trouble{status: fasthttp.StatusRequestTimeout, detail: "the request took too long to arrive"})
	default:
		s.sendTrouble(ctx, trouble{status: fasthttp.StatusBadRequest, detail: "the request is malformed"})
	}
	s.sign(ctx)
	s.metrics.count(routeOther, nil, ctx.Response.StatusCode(), 0)
}

// patientListener outlasts a lack of file descriptors, which would end the
// server.
type patientListener struct{ net.Listener }

func (l patientListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err == nil || !errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.ENFILE) &&
			!errors.Is(err, syscall.ECONNABORTED) {
			return c, err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// serverLog passes on what the server has to say.
type serverLog struct{ log *slog.Logger }

func (l serverLog) Printf(format string, args ...any) {
	l.log.Debug(fmt.Sprintf(format, args...))
}
