package dependency

import (
	"context"
	"crypto/tls"
	"net"
)

// sockets are the connections of a session with Redis. go-redis looks at the
// deadline of a context, but not at its end, and dials in the background: with
// the sockets everything ends that uses one.
type sockets struct {
	ctx  context.Context
	shut context.CancelFunc // closes all sockets and ends all dials, for good
}

func newSockets() *sockets {
	ctx, cancel := context.WithCancel(context.Background())
	return &sockets{ctx, cancel}
}

// until shuts the sockets when ctx ends, unless stop is called first.
func (s *sockets) until(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, s.shut)
}

// dialer is a dialer for go-redis; config is nil without TLS.
func (s *sockets) dialer(config *tls.Config) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(s.ctx, cancel)()
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		tcp, ok := conn.(*net.TCPConn)
		if !ok {
			panic("BUG: an address of Redis leads to no TCP connection")
		}
		plain := &socket{TCPConn: tcp}
		plain.stop = context.AfterFunc(s.ctx, func() { tcp.Close() })
		if config == nil {
			return plain, nil
		}
		secure := tls.Client(plain, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			plain.Close()
			return nil, err
		}
		return secure, nil
	}
}

// socket is a connection that its session knows of while it is open.
type socket struct {
	*net.TCPConn
	stop func() bool
}

// Close closes the connection and has the session forget it.
func (s *socket) Close() error {
	s.stop()
	return s.TCPConn.Close()
}
