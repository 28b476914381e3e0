package proxy

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"gateway/exchange"
	"gateway/wire"
)

// tunnel carries bytes between a client and an origin after both agreed on an
// upgrade (RFC 9110 section 7.8), until one of them closes or nothing has
// passed for the route's idle time.
type tunnel struct {
	gateway *Gateway
	x       *exchange.Exchange
	origin  net.Conn
	early   []byte // what the origin sent right behind its head
	idle    time.Duration
	last    atomic.Int64 // when a byte passed, Unix ns; both directions keep it alive
	over    atomic.Bool  // set before the deadlines that interrupt both directions
}

// upgrade answers 101 to a client whose origin has agreed.
func (r *route) upgrade(x *exchange.Exchange) exchange.Reason {
	res := &x.Call.Response
	protocol := res.Get(wire.Upgrade)
	if protocol == nil || !sameProtocol(x.Request.Upgrade, protocol) {
		return exchange.UpgradeFailed
	}
	protocol = x.Keep(protocol)
	conn, early := x.Call.Hijack()
	x.Calling(nil)
	res.DelHopByHop()
	res.AddID(wire.Connection, []byte("Upgrade"))
	res.AddID(wire.Upgrade, protocol)
	x.Response = exchange.Response{Status: 101, Header: &res.Header, Length: 0}
	x.Tunnel = &tunnel{gateway: r.gateway, x: x, origin: conn, early: early, idle: r.tunnelIdle}
	return exchange.Done
}

// sameProtocol reports whether the origin chose one of the protocols that the
// client offered; parameters and case do not matter.
func sameProtocol(offered, chosen []byte) bool {
	return wire.HasToken(offered, string(lower(chosen)))
}

func lower(b []byte) []byte {
	l := make([]byte, len(b))
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		l[i] = c
	}
	return l
}

// Run copies in both directions. It owns the exchange and ends it.
func (t *tunnel) Run(client net.Conn) {
	defer t.gateway.finish(t.x)
	defer t.origin.Close()

	t.last.Store(time.Now().UnixNano())
	var in, out int64
	var both sync.WaitGroup
	both.Go(func() { in = t.carry(t.origin, client, nil) })
	out = t.carry(client, t.origin, t.early)
	both.Wait()
	t.x.BytesIn, t.x.BytesOut = in, out
}

// abandon closes the origin when the front could not give us the client.
func (t *tunnel) abandon() { t.origin.Close() }

// carry copies from src to dst until src ends, then lets dst know; an error
// or idleness ends both directions.
func (t *tunnel) carry(dst, src net.Conn, early []byte) (n int64) {
	if len(early) > 0 {
		dst.SetWriteDeadline(time.Now().Add(t.idle))
		if _, err := dst.Write(early); err != nil {
			t.interrupt(dst, src)
			return 0
		}
		n = int64(len(early))
	}
	buf := tunnelBuffers.Get().(*[16 << 10]byte)
	defer tunnelBuffers.Put(buf)
	for {
		src.SetReadDeadline(time.Now().Add(t.idle))
		if t.over.Load() {
			return n // interrupt may have come before the deadline was set anew
		}
		m, err := src.Read(buf[:])
		now := time.Now()
		if m > 0 {
			t.last.Store(now.UnixNano())
			dst.SetWriteDeadline(now.Add(t.idle))
			if t.over.Load() {
				return n
			}
			if _, err := dst.Write(buf[:m]); err != nil {
				t.interrupt(dst, src)
				return n
			}
			n += int64(m)
		}
		switch {
		case err == nil:
		case err == io.EOF:
			if half, ok := dst.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
				return n // the other direction may go on
			}
			t.interrupt(dst, src)
			return n
		case isTimeout(err) && now.UnixNano()-t.last.Load() < int64(t.idle):
			// the other direction was busy meanwhile
		default:
			t.interrupt(dst, src)
			return n
		}
	}
}

var tunnelBuffers = sync.Pool{New: func() any { return new([16 << 10]byte) }}

// interrupt ends both directions.
func (t *tunnel) interrupt(a, b net.Conn) {
	t.over.Store(true)
	past := time.Unix(1, 0)
	a.SetDeadline(past)
	b.SetDeadline(past)
}

func isTimeout(err error) bool {
	t, ok := err.(net.Error)
	return ok && t.Timeout()
}
