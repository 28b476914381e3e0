package cache

import (
	"strconv"

	"gateway/wire"
)

// ForwardReason is why a request went to the origin (RFC 9211 section 2.2).
type ForwardReason uint8

const (
	NotForwarded ForwardReason = iota
	ForwardBypass
	ForwardMethod
	ForwardURIMiss
	ForwardVaryMiss
	ForwardMiss
	ForwardRequest
	ForwardStale
	ForwardPartial
	forwardReasons
)

// String is the reason's token.
func (r ForwardReason) String() string {
	if r < forwardReasons {
		return forwardNames[r]
	}
	return "unknown"
}

var forwardNames = [forwardReasons]string{
	"", "bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale", "partial",
}

// Report is what the cache did for a request.
type Report struct {
	Forward   ForwardReason // NotForwarded for a hit
	Status    int           // of the origin's answer, 0 when it is what the client gets
	Stored    bool
	Collapsed bool
	TTL       int64 // freshness left in ns, negative when stale
	HasTTL    bool
	Detail    NoStoreReason
}

// AppendStatus appends the member for Cache-Status (RFC 9211). It allocates
// nothing but room in dst.
func (r *Report) AppendStatus(dst []byte, identifier string) []byte {
	dst = append(dst, identifier...)
	if r.Forward == NotForwarded {
		dst = append(dst, "; hit"...)
	} else {
		dst = append(dst, "; fwd="...)
		dst = append(dst, forwardNames[r.Forward]...)
		if r.Status != 0 {
			dst = append(dst, "; fwd-status="...)
			dst = strconv.AppendInt(dst, int64(r.Status), 10)
		}
		if r.Stored {
			dst = append(dst, "; stored"...)
		}
		if r.Collapsed {
			dst = append(dst, "; collapsed"...)
		}
	}
	if r.HasTTL {
		dst = append(dst, "; ttl="...)
		ttl := r.TTL / second
		if r.TTL < 0 && r.TTL%second != 0 {
			ttl--
		}
		dst = strconv.AppendInt(dst, ttl, 10)
	}
	if r.Detail != Storable {
		dst = append(dst, "; detail="...)
		dst = append(dst, noStoreNames[r.Detail]...)
	}
	return dst
}

// AddStatus adds the member to a response, behind those of caches before.
func (r *Report) AddStatus(h *wire.Header, identifier string) {
	var scratch [256]byte
	h.AddID(wire.CacheStatus, r.AppendStatus(scratch[:0], identifier))
}
