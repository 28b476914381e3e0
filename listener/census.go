package listener

import (
	"net/netip"
	"sync"
	"sync/atomic"
)

// census knows all connections and enforces how many there may be. It is asked
// when a connection begins and ends, never by requests.
type census struct {
	mu      sync.Mutex
	total   int                // connections of both kinds
	conns   map[*Conn]struct{} // the ordinary ones; loops know the others
	clients map[clientKey]int  // connections by client; exempt clients are not in it

	refusedTotal, refusedClient atomic.Int64
}

// clientKey is what counts as one client: an IPv4 address, or an IPv6 /64,
// since a single IPv6 client commands at least that many addresses.
type clientKey struct{ netip.Addr }

// keyOf is the key of an unmapped address; the zero key is exempt.
func keyOf(a netip.Addr) clientKey {
	if !a.Is6() {
		return clientKey{a}
	}
	p, _ := a.WithZone("").Prefix(64) // 64 bits fit into any IPv6 address
	return clientKey{p.Addr()}
}

// enter counts a connection of this client in, under the key that leave gets.
// It reports false, and counts a refusal, when the front has too many
// connections or the client has.
func (s *census) enter(peer netip.AddrPort, o *settings) (key clientKey, ok bool) {
	if o.MaxConnectionsPerIP > 0 && peer.IsValid() && !trusted(o, peer.Addr()) {
		key = keyOf(peer.Addr())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if o.maxConnections > 0 && s.total >= o.maxConnections {
		s.refusedTotal.Add(1)
		return clientKey{}, false
	}
	if key.IsValid() {
		if s.clients[key] >= o.MaxConnectionsPerIP {
			s.refusedClient.Add(1)
			return clientKey{}, false
		}
		s.clients[key]++
	}
	s.total++
	return key, true
}

// leave counts a connection out.
func (s *census) leave(key clientKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	if !key.IsValid() {
		return
	}
	if n := s.clients[key]; n > 1 {
		s.clients[key] = n - 1
	} else {
		delete(s.clients, key)
	}
}

// adopt makes an ordinary connection known; it has been counted in.
func (s *census) adopt(c *Conn) {
	s.mu.Lock()
	s.conns[c] = struct{}{}
	s.mu.Unlock()
}

// drop forgets an ordinary connection.
func (s *census) drop(c *Conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}

// size is the number of connections.
func (s *census) size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}

// retireIdle ends connections that have been waiting for a request since
// before the given time.
func (s *census) retireIdle(before int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if since := c.waiting.Load(); since != 0 && since <= before {
			c.retire()
		}
	}
}

// cut closes the sockets of all connections and abandons their exchanges.
func (s *census) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		_ = c.raw.Close()
		c.abandon()
	}
}

// trusted reports whether the address is that of a trusted proxy.
func trusted(o *settings, a netip.Addr) bool {
	for i := range o.TrustedProxies {
		if o.TrustedProxies[i].Contains(a) {
			return true
		}
	}
	return false
}
