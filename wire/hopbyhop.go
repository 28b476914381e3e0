package wire

import "gateway/internal/ascii"

// hopByHop are the fields that concern one connection only: RFC 9110 section
// 7.6.1, proxy authentication, and the framing of the body.
var hopByHop = setOf(Connection, KeepAlive, ProxyConnection, TE, Trailer, TransferEncoding, Upgrade,
	ProxyAuthenticate, ProxyAuthorization, ProxyAuthenticationInfo, ContentLength)

// disposable are the end-to-end fields that a Connection field may remove like
// any unknown one. All others change what a message means, or what the next
// server believes about its sender, when they get lost (RFC 9110 section
// 7.6.1 forbids senders to name such fields).
var disposable = setOf(Accept, AcceptEncoding, CacheStatus, Expect, HTTP2Settings, Pragma, ProxyStatus, Referer,
	RetryAfter, Server, SurrogateKey, Traceparent, Tracestate, UserAgent)

// DelHopByHop deletes the hop-by-hop fields of RFC 9110 section 7.6.1
// (Connection, Keep-Alive, Proxy-Connection, TE, Trailer, Transfer-Encoding,
// Upgrade, also Proxy-Authenticate/-Authorization/-Authentication-Info), every
// received field that Connection names, and Content-Length (framing is written
// anew). Names in Connection that are end-to-end by definition and whose loss
// would change meaning (Host, Content-Type, Content-Encoding, Authorization,
// Cache-Control, Cookie, Set-Cookie, X-Forwarded-*, Forwarded, Via …) are not
// honoured, and what was added here is not a client's to name.
func (h *Header) DelHopByHop() {
	for i := h.Next(Connection, 0); i >= 0; i = h.Next(Connection, i+1) {
		list := h.value(&h.fields[i])
		for {
			var name []byte
			if name, list = cutElement(list); len(name) == 0 {
				break
			}
			id := LookupField(name)
			if id == Unknown || disposable.has(id) {
				h.delReceived(id, name)
			}
		}
	}
	h.delSet(hopByHop)
}

func (h *Header) delReceived(id FieldID, name []byte) {
	for i := h.Next(id, 0); i >= 0; i = h.Next(id, i+1) {
		f := &h.fields[i]
		if f.flags&fieldAdded == 0 && (id != Unknown || ascii.EqualFold(h.name(f), name)) {
			f.flags |= fieldDeleted
		}
	}
}
