package middleware

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"

	"gateway/exchange"
	"gateway/internal/ascii"
	"gateway/internal/unit"
	"gateway/tracing"
	"gateway/wire"
)

// Identity finds out who is asking, and under which id the request is known,
// and tells the origin both.
//
// What clients say about themselves is believed only when the peer, the other
// end of the connection, is a trusted proxy. The peer on a Unix socket always
// is: the socket's permissions let it in, no client reaches it past a proxy,
// and without its word there would be no address at all. Trusted proxies must
// themselves write, or remove, every field of X-Forwarded-* and Forwarded that
// a client could send through them.
type Identity struct {
	trusted addresses
	tracer  *tracing.Tracer
}

// NewIdentity builds the stage for these trusted proxies. tracer is nil when no
// request is traced.
func NewIdentity(trusted []unit.Prefix, tracer *tracing.Tracer) *Identity {
	return &Identity{trusted: newAddresses(trusted), tracer: tracer}
}

const (
	maxHops = 32  // entries of X-Forwarded-For that are looked at, from the right
	maxID   = 128 // bytes of a request id that is kept
)

// Before sets x.Addr, x.Trusted, x.Scheme, x.ID, x.TraceID and x.Trace. A head that was
// refused (x.Fault) is not looked into.
func (d *Identity) Before(x *exchange.Exchange) {
	if d == nil {
		return
	}
	x.Addr = plain(x.Peer.Addr())
	x.Trusted = !x.Addr.IsValid() || d.trusted.contains(x.Addr)
	x.Scheme = "http"
	if x.Secure {
		x.Scheme = "https"
	}
	readable := x.Fault == wire.NoFault
	h := &x.Request.Header
	if x.Trusted && readable {
		if h.Has(wire.XForwardedFor) {
			x.Addr = d.walk(h, x.Addr)
		}
		if scheme := forwardedScheme(h); scheme != "" {
			x.Scheme = scheme
		}
		x.ID = only(h, wire.XRequestID)
		if !validID(x.ID) {
			x.ID = nil
		}
	}
	named := x.ID != nil
	if !named {
		x.ID = newID(x)
	}
	if readable {
		if parent := only(h, wire.Traceparent); validParent(parent) {
			x.TraceID = parent[3:35]
			x.Trace = d.tracer.Begin(x.TraceID, parent[36:52], fromHex(parent[54])&sampled != 0, x.Trusted)
			return
		}
	}
	// A trace that begins with a request that nobody has named has its id, so
	// that one of them finds both.
	if x.TraceID = x.ID; named {
		x.TraceID = newID(x)
	}
	x.Trace = d.tracer.Begin(x.TraceID, nil, false, false)
}

// newID is a random id of 32 hexadecimal digits, as requests and traces have it.
func newID(x *exchange.Exchange) []byte {
	var id [32]byte
	appendHex(appendHex(id[:0], randomNonZero()), rand.Uint64())
	return x.Keep(id[:])
}

// walk follows X-Forwarded-For from the trusted peer towards the client, over
// all its lines from right to left, and returns the first address that is not
// a trusted proxy's. It ends early, at the last address that it could read,
// when an entry is no address or there are too many.
func (d *Identity) walk(h *wire.Header, addr netip.Addr) netip.Addr {
	hops := 0
	for i := h.Len() - 1; i >= 0; i-- {
		_, list, id, ok := h.Field(i)
		if !ok || id != wire.XForwardedFor {
			continue
		}
		for len(list) > 0 {
			var entry []byte
			list, entry = cutLast(list)
			if len(entry) == 0 {
				continue // RFC 9110 section 5.6.1.2
			}
			next, ok := parseNode(entry)
			if hops++; !ok || hops > maxHops {
				return addr
			}
			addr = next
			if !d.trusted.contains(addr) {
				return addr
			}
		}
	}
	return addr
}

// cutLast splits the last element, without white space around it, from a list.
func cutLast(list []byte) (before, last []byte) {
	at := len(list)
	for at > 0 && list[at-1] != ',' {
		at--
	}
	return list[:max(at-1, 0)], ascii.TrimSpace(list[at:])
}

// forwardedScheme is what X-Forwarded-Proto says, "" when it says nothing that
// is known. Of a list the last counts: the peer wrote it.
func forwardedScheme(h *wire.Header) string {
	_, value := cutLast(last(h, wire.XForwardedProto))
	switch {
	case ascii.EqualFold(value, "https"):
		return "https"
	case ascii.EqualFold(value, "http"):
		return "http"
	}
	return ""
}

// last is the value of the last field with this id, nil without one.
func last(h *wire.Header, id wire.FieldID) (value []byte) {
	if !h.Has(id) {
		return nil
	}
	for i := h.Next(id, 0); i >= 0; i = h.Next(id, i+1) {
		_, value, _, _ = h.Field(i)
	}
	return value
}

// only is the value of the one field with this id, nil when there is none or
// more than one.
func only(h *wire.Header, id wire.FieldID) []byte {
	if !h.Has(id) {
		return nil
	}
	i := h.Next(id, 0)
	if i < 0 || h.Next(id, i+1) >= 0 {
		return nil
	}
	_, value, _, _ := h.Field(i)
	return value
}

// validID reports whether a request id can be kept: 1 to 128 letters, digits
// and . _ ~ + / = -
func validID(id []byte) bool {
	if len(id) == 0 || len(id) > maxID {
		return false
	}
	for _, c := range id {
		switch {
		case c|0x20 >= 'a' && c|0x20 <= 'z', c >= '0' && c <= '9':
		case c == '.', c == '_', c == '~', c == '+', c == '/', c == '=', c == '-':
		default:
			return false
		}
	}
	return true
}

// validParent reports whether value is a traceparent: of version 00, or of a
// later one that begins like it (W3C Trace Context section 4).
func validParent(value []byte) bool {
	if len(value) < 55 || !lowerHex(value[:2]) || value[0] == 'f' && value[1] == 'f' ||
		value[2] != '-' || value[35] != '-' || value[52] != '-' || !lowerHex(value[53:55]) {
		return false
	}
	if len(value) > 55 && (value[0] == '0' && value[1] == '0' || value[55] != '-') {
		return false
	}
	trace, parent := value[3:35], value[36:52]
	return lowerHex(trace) && lowerHex(parent) && !zeros(trace) && !zeros(parent)
}

func lowerHex(b []byte) bool {
	for _, c := range b {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func zeros(b []byte) bool {
	for _, c := range b {
		if c != '0' {
			return false
		}
	}
	return true
}

// randomNonZero is a random number for ids that may not be all zeros. The
// runtime's generator is ChaCha8, seeded by the system, one for each thread:
// no lock, no system call, and ids cannot be guessed from others.
func randomNonZero() uint64 {
	for {
		if n := rand.Uint64(); n != 0 {
			return n
		}
	}
}

// appendHex appends 16 hexadecimal digits.
func appendHex(dst []byte, n uint64) []byte {
	dst = binary.BigEndian.AppendUint64(dst, hexDigits(uint32(n>>32)))
	return binary.BigEndian.AppendUint64(dst, hexDigits(uint32(n)))
}

// hexDigits are the eight hexadecimal digits of n, one in each byte, worked out
// side by side: identifiers are written for each request.
func hexDigits(n uint32) uint64 {
	x := uint64(n)
	x = x&0xffff0000<<16 | x&0xffff
	x = x&0x0000ff000000ff00<<8 | x&0x000000ff000000ff
	x = x&0x00f000f000f000f0<<4 | x&0x000f000f000f000f // a digit's value in each byte
	letters := (x + 0x0606060606060606) >> 4 & 0x0101010101010101
	return x + 0x3030303030303030 + letters*('a'-'0'-10)
}
