// Package admin is what operators and orchestrators talk to: metrics, health,
// status, the running configuration, reload, drain and profiles, on addresses
// of their own.
//
// Two servers exist: the admin server has everything and listens on loopback
// or a Unix socket; the probes server has only what Prometheus and the kubelet
// ask for, and may listen anywhere. Both are served by net/http: nothing here
// is on the path of a request.
package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gateway/internal/handover"
	"gateway/listener"
	"gateway/proxy"
	"gateway/upstream"
)

// Control is what the admin server needs of a gateway; proxy.Gateway
// satisfies it.
type Control interface {
	Ready() bool
	Health() proxy.Health
	Status() proxy.Status
	// History and Events are what is kept and newer than a sequence.
	History(since uint64) proxy.History
	Events(since uint64) proxy.Events
	Config() []byte
	WriteMetrics(w io.Writer) error
	// Explain tells what would become of a request. The error says what is
	// wrong with the question.
	Explain(q proxy.Question) (*proxy.Explanation, error)
	// Reload reads the configuration anew and says in words what changed.
	Reload(ctx context.Context) (changes []string, err error)
	// SetOrder drains, disables or enables a server. The error names what is
	// unknown.
	SetOrder(pool, server string, o upstream.Order) error
	// SetWeight gives a server another weight, 0 the configured one again. The
	// error names what is unknown.
	SetWeight(pool, server string, weight int) error
	// Purge removes stored responses. The error says what is wrong with the
	// question.
	Purge(p proxy.Purge) error
}

// Server is an admin or probes server. Nil is one that is off.
type Server struct {
	http     http.Server
	listener net.Listener
	log      *slog.Logger
	refusals refusals

	mu      sync.Mutex // guards access and control
	access  Access
	control Control // nil before Serve
	offer   atomic.Pointer[offer]
}

// offer is what new requests and connections meet.
type offer struct {
	handler http.Handler // nil before Serve
	keys    *listener.Keys
}

// Listen binds an address, "host:port" or "unix:/path", or takes the socket
// that was handed over for it; Serve answers there. A Unix socket is for the
// gateway's own user alone.
func Listen(address string, a Access, inherited *handover.Sockets, log *slog.Logger) (*Server, error) {
	network, target := "tcp", address
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, target = "unix", path
	}
	l := inherited.Take(network, target)
	if l == nil {
		var err error
		if l, err = bind(address, network, target); err != nil {
			return nil, err
		}
	} else if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(!inherited.Systemd())
	}
	s := &Server{listener: l, log: log, refusals: refusals{log: log.Warn}}
	s.Offer(a)
	return s, nil
}

func bind(address, network, target string) (net.Listener, error) {
	if network == "unix" {
		if err := listener.RemoveStale(target); err != nil {
			return nil, fmt.Errorf("listen on %s: %w", address, err)
		}
	}
	l, err := net.Listen(network, target)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	if network == "unix" {
		if err := os.Chmod(target, 0o600); err != nil {
			l.Close()
			return nil, fmt.Errorf("restrict %s: %w", address, err)
		}
	}
	return l, nil
}

// File is a descriptor of the listening socket for another process. The caller
// closes it.
func (s *Server) File() (*os.File, error) {
	return s.listener.(interface{ File() (*os.File, error) }).File()
}

// Share says that another process listens on the socket too: a Unix socket's
// file is left to it.
func (s *Server) Share() {
	if u, ok := s.listener.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
}

// Offer gives access anew, for what is asked from now on and for TLS of
// connections from now on: an admin server may become the probes server, and
// tokens may change.
func (s *Server) Offer(a Access) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.access = a
	next := &offer{keys: a.Keys}
	if s.control != nil {
		next.handler = Handler(s.control, a, s.refusals.refused)
	}
	s.offer.Store(next)
}

// Serve begins to answer and returns at once.
func (s *Server) Serve(c Control) {
	if s == nil {
		return
	}
	s.mu.Lock()
	s.control = c
	a := s.access
	s.mu.Unlock()
	s.Offer(a)
	s.http = http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.offer.Load().handler.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      2 * time.Minute, // a profile takes its time
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	go func() {
		if err := s.http.Serve(secured{s.listener, s}); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			s.log.Error("admin server ended", "address", s.Address(), "error", err)
		}
	}()
}

// secured makes connections speak TLS where keys are offered.
type secured struct {
	net.Listener
	server *Server
}

func (l secured) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if keys := l.server.offer.Load().keys; keys != nil {
		return keys.Server(conn), nil
	}
	return conn, nil
}

// Address is where the server listens, with the port that the system chose.
func (s *Server) Address() string { return s.listener.Addr().String() }

// closeTime bounds the wait for requests under way when a server is closed.
const closeTime = 2 * time.Second

// Retire gives the address up, at once; what is under way goes on until Close.
func (s *Server) Retire() {
	if s != nil {
		s.listener.Close()
	}
}

// Close stops the server; requests under way have closeTime to end.
func (s *Server) Close() {
	if s == nil {
		return
	}
	s.Retire() // also when it was never served
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		s.http.Close()
	}
}
