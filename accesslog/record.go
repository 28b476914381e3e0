package accesslog

import (
	"net/netip"
	"time"
)

// Record is what is written about one exchange. Its slices are borrowed for the
// call of Log. Empty fields are left out, or written as "-" in the text format.
type Record struct {
	// Times of the phases, clock.Mono in ns; 0 when the phase was not reached.

	Start     int64 // the head was complete
	Forwarded int64 // the first attempt began
	FirstByte int64 // the head of the final response had come
	Ended     int64 // the answer was complete

	Route     string // name from the configuration
	Method    []byte
	Host      []byte
	Path      []byte
	Query     []byte // without "?"
	Protocol  string // "HTTP/1.1"
	UserAgent []byte
	Referer   []byte

	Status int    // that the client got, 0 for none
	Reason string // who ended the exchange and in which phase
	Failed bool   // the answer was not completed: written whatever the sample says

	Client netip.Addr     // who is asking, forwarded addresses of trusted peers considered
	Peer   netip.AddrPort // other end of the connection; invalid on Unix sockets
	Secure bool           // came over TLS

	Server   string // address of the server that answered last
	Attempts int    // tries at servers
	Cache    string // what the cache did, on routes that cache
	Limit    string // name of the policy that refused the request

	BytesIn  int64 // of the request body
	BytesOut int64 // of the response body

	ID      []byte // request id
	TraceID []byte
}

// Longest texts that a client can have written, in bytes; longer ones are cut
// and end in "...".
const (
	maxMethod  = 32
	maxHost    = 255
	maxPath    = 2048
	maxQuery   = 2048
	maxAgent   = 512
	maxReferer = 1024
	maxID      = 128
)

// maxName bounds what comes from the configuration or from the gateway itself.
const maxName = 256

// phases are how long the exchange and its parts took: the whole; until it was
// forwarded; until the head of the response had come; the rest. Parts that were
// not reached are -1; the parts that were add up to the whole.
func (r *Record) phases() (whole, before, origin, body time.Duration) {
	before, origin, body = -1, -1, -1
	end := max(r.Ended, r.Start)
	whole = time.Duration(end - r.Start)
	if r.Forwarded != 0 {
		before = time.Duration(max(r.Forwarded-r.Start, 0))
		if r.FirstByte != 0 {
			origin = time.Duration(max(r.FirstByte-r.Forwarded, 0))
			body = time.Duration(max(end-r.FirstByte, 0))
		} else {
			origin = time.Duration(max(end-r.Forwarded, 0))
		}
	}
	return whole, before, origin, body
}
