package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"gateway/internal/poller"
)

// clientTLS completes a TLS configuration for an origin.
func clientTLS(config *tls.Config, network, address string) *tls.Config {
	config = config.Clone()
	if config.ServerName == "" && network != "unix" {
		if host, _, err := net.SplitHostPort(address); err == nil {
			config.ServerName = host
		}
	}
	if config.NextProtos == nil {
		config.NextProtos = []string{"http/1.1"}
	}
	if config.ClientSessionCache == nil {
		config.ClientSessionCache = tls.NewLRUClientSessionCache(0)
	}
	return config
}

// dial opens a connection for the call, TLS handshake included, within the
// connect timeout.
func (c *Call) dial(e *Endpoint, start time.Time) (*conn, Outcome) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if limit := c.within(c.limit(start, c.ConnectTimeout)); !limit.IsZero() {
		var release context.CancelFunc
		ctx, release = context.WithDeadline(ctx, limit)
		defer release()
	}
	c.mu.Lock()
	if c.cancelled {
		c.mu.Unlock()
		return nil, Cancelled
	}
	c.abortDial = cancel
	c.mu.Unlock()

	cn, err := e.connect(ctx)

	c.mu.Lock()
	c.abortDial = nil
	cancelled := c.cancelled
	c.mu.Unlock()
	if err == nil {
		return cn, OK
	}
	c.cause = err
	switch {
	case cancelled:
		return nil, Cancelled
	case ctx.Err() != nil || connectTimedOut(err):
		if c.deadlinePassed() {
			return nil, DeadlinePassed
		}
		return nil, ConnectTimedOut
	}
	return nil, dialOutcome(err, e.network)
}

// connect opens a connection.
func (e *Endpoint) connect(ctx context.Context) (*conn, error) {
	socket, err := e.dial(ctx, e.network, e.address)
	if err != nil {
		return nil, err
	}
	if socket, err = poller.Adopt(socket); err != nil {
		return nil, err
	}
	cn := newConn(e, socket)
	if e.tls != nil {
		if err := cn.secure(e.tls).HandshakeContext(ctx); err != nil {
			cn.abort()
			return nil, &handshakeError{err}
		}
	}
	return cn, nil
}

// handshakeError tells failures of TLS from those of the connection below it.
type handshakeError struct{ err error }

func (h *handshakeError) Error() string { return "TLS handshake: " + h.err.Error() }
func (h *handshakeError) Unwrap() error { return h.err }

// dialOutcome classifies what is neither a timeout nor a cancellation.
func dialOutcome(err error, network string) Outcome {
	if noResources(err) {
		return NoResources
	}
	if _, ok := err.(*handshakeError); ok {
		return TLSFailed
	}
	// A full backlog of a Unix socket is EAGAIN; on TCP it means that no
	// local port or route is to be had.
	if network != "unix" && errors.Is(err, syscall.EAGAIN) {
		return NoResources
	}
	return ConnectRefused
}

// noResources reports whether this machine lacks something.
func noResources(err error) bool {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.ENOBUFS, syscall.ENOMEM:
		return true
	}
	return false
}

// connectTimedOut reports whether time ran out: ours, or the kernel's for an
// answer from the other side. (The Timeout method of errors would not do, it
// holds for EAGAIN too.)
func connectTimedOut(err error) bool {
	var lookup *net.DNSError
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.Is(err, syscall.ETIMEDOUT) || errors.As(err, &lookup) && lookup.IsTimeout
}
