package middleware

import (
	"net/netip"

	"gateway/exchange"
	"gateway/internal/ascii"
	"gateway/wire"
)

// Forward edits the request's fields for the origin: X-Forwarded-For, -Proto,
// -Host and -Port, Forwarded, Via, X-Request-Id, traceparent and tracestate.
// What an untrusted peer sent in their place is removed. Call it once, after
// Before and after the hop-by-hop fields were removed.
//
// x.Head is memory for the lists; they allocate nothing once it has grown.
func (d *Identity) Forward(x *exchange.Exchange) {
	if d == nil {
		return
	}
	h := &x.Request.Header
	peer := plain(x.Peer.Addr())
	var scratch [64]byte
	text := peer.AppendTo(scratch[:0])
	// Forwarded reads the fields that the others rewrite.
	forwarded(x, h, peer, text)
	forwardedFor(x, h, peer, text)
	forwardedOrigin(x, h)

	// RFC 9110 section 7.6.3: the version is the one that was received.
	if x.Request.Minor == 0 {
		h.AddIDString(wire.Via, "1.0 gateway")
	} else {
		h.AddIDString(wire.Via, "1.1 gateway")
	}

	if received := only(h, wire.XRequestID); string(received) != string(x.ID) {
		h.Del(wire.XRequestID)
		h.AddID(wire.XRequestID, x.ID)
	}
	d.trace(x, h)
}

// forwardedFor appends the peer to what it forwards, in one line, because many
// origins look at one line only; an untrusted peer's list is dropped.
func forwardedFor(x *exchange.Exchange, h *wire.Header, peer netip.Addr, text []byte) {
	if !peer.IsValid() && h.Has(wire.XForwardedFor) {
		return // a Unix socket has no address to append
	}
	list := x.Head[:0]
	if x.Trusted {
		list = appendLines(list, h, wire.XForwardedFor)
	}
	h.Del(wire.XForwardedFor)
	if peer.IsValid() {
		if len(list) > 0 {
			list = append(list, ", "...)
		}
		list = append(list, text...)
	}
	if len(list) > 0 {
		h.AddID(wire.XForwardedFor, list)
	}
	x.Head = list[:0]
}

// appendLines appends the values of all fields with this id, as one list.
func appendLines(dst []byte, h *wire.Header, id wire.FieldID) []byte {
	if !h.Has(id) {
		return dst
	}
	for i := h.Next(id, 0); i >= 0; i = h.Next(id, i+1) {
		_, value, _, _ := h.Field(i)
		if len(value) == 0 {
			continue
		}
		if len(dst) > 0 {
			dst = append(dst, ", "...)
		}
		dst = append(dst, value...)
	}
	return dst
}

// forwardedOrigin tells scheme, host and port as the client used them.
func forwardedOrigin(x *exchange.Exchange, h *wire.Header) {
	h.Del(wire.XForwardedProto)
	h.AddIDString(wire.XForwardedProto, x.Scheme)

	host := x.Request.Host
	if received := only(h, wire.XForwardedHost); x.Trusted && len(received) > 0 {
		host = received
	} else {
		h.Del(wire.XForwardedHost)
		if len(host) > 0 {
			h.AddID(wire.XForwardedHost, host)
		}
	}

	if received := only(h, wire.XForwardedPort); x.Trusted && len(received) > 0 {
		return
	}
	h.Del(wire.XForwardedPort)
	if port := portOf(host); len(port) > 0 {
		h.AddID(wire.XForwardedPort, port)
	} else if x.Scheme == "https" {
		h.AddIDString(wire.XForwardedPort, "443")
	} else {
		h.AddIDString(wire.XForwardedPort, "80")
	}
}

// portOf is the port of an authority, empty without one.
func portOf(host []byte) []byte {
	i := len(host)
	for i > 0 && host[i-1] >= '0' && host[i-1] <= '9' {
		i--
	}
	if i == 0 || host[i-1] != ':' {
		return nil
	}
	return host[i:]
}

// forwarded appends this hop to Forwarded (RFC 7239). When a trusted peer
// named the client in X-Forwarded-For alone, an element for the client comes
// before it, so that both fields tell the same client.
func forwarded(x *exchange.Exchange, h *wire.Header, peer netip.Addr, text []byte) {
	list := x.Head[:0]
	if x.Trusted {
		list = appendLines(list, h, wire.Forwarded)
	}
	if len(list) == 0 && x.Addr != peer {
		var scratch [64]byte
		list = appendNode(list, x.Addr, x.Addr.AppendTo(scratch[:0]))
		list = append(list, ";proto="...)
		list = append(list, x.Scheme...)
	}
	if len(list) > 0 {
		list = append(list, ", "...)
	}
	list = appendNode(list, peer, text)
	if len(x.Request.Host) > 0 {
		list = append(list, ";host="...)
		list = appendQuoted(list, x.Request.Host)
	}
	if x.Secure {
		list = append(list, ";proto=https"...)
	} else {
		list = append(list, ";proto=http"...)
	}
	h.Del(wire.Forwarded)
	h.AddID(wire.Forwarded, list)
	x.Head = list[:0]
}

// appendNode appends for=, with IPv6 in brackets and quotes (RFC 7239 section
// 6) and "unknown" for no address. text is the address as text.
func appendNode(dst []byte, a netip.Addr, text []byte) []byte {
	dst = append(dst, "for="...)
	switch {
	case !a.IsValid():
		return append(dst, "unknown"...)
	case a.Is4():
		return append(dst, text...)
	}
	dst = append(dst, `"[`...)
	dst = append(dst, text...)
	return append(dst, `]"`...)
}

// appendQuoted appends a token as it is and everything else, "" included, as a quoted
// string (RFC 9110 section 5.6.4).
func appendQuoted(dst, value []byte) []byte {
	if ascii.IsToken(value) {
		return append(dst, value...)
	}
	dst = append(dst, '"')
	for _, c := range value {
		if c == '"' || c == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, c)
	}
	return append(dst, '"')
}

// trace continues the client's trace with a span id of this hop, or begins a
// trace (W3C Trace Context).
func (d *Identity) trace(x *exchange.Exchange, h *wire.Header) {
	// A trace that begins here says "sampled": most tracers sample by the
	// parent's flag, and an origin that recorded its requests before the
	// gateway stood in front of it must not cease to.
	flags := byte(sampled)
	if received := only(h, wire.Traceparent); validParent(received) {
		flags = (fromHex(received[53])<<4 | fromHex(received[54])) & (sampled | random)
	} else {
		h.Del(wire.Tracestate)
	}
	if d.tracer != nil { // then it is decided here
		flags &^= sampled
		if x.Trace != nil {
			flags |= sampled
		}
	}
	parent := append(x.Head[:0], "00-"...)
	parent = append(parent, x.TraceID...)
	parent = append(parent, '-')
	if x.Trace != nil {
		parent = x.Trace.AppendSpan(parent)
	} else {
		parent = appendHex(parent, randomNonZero())
	}
	parent = append(parent, "-0"...)
	parent = append(parent, '0'+flags)
	h.Del(wire.Traceparent)
	h.AddID(wire.Traceparent, parent)
	x.Head = parent[:0]
}

// The flags of a traceparent that are defined; others are not passed on.
const (
	sampled = 1 << 0
	random  = 1 << 1
)
