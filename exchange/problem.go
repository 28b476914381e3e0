package exchange

import (
	"strconv"

	"gateway/wire"
)

// retryAfter is what clients are told to wait, in seconds, when the reason
// asks for it: about the time in which a probe notices a recovery.
const retryAfter = "2"

// Fail makes the answer to an exchange that ends for this reason: a problem
// document (RFC 9457), Proxy-Status with whose fault it was (RFC 9209), and
// Retry-After where waiting helps. It allocates nothing once the exchange's
// buffers have grown.
func (x *Exchange) Fail(r Reason) {
	o := &outcomes[r]
	status, detail := o.status, ""
	if r == BadRequest {
		status, detail = x.Fault.Status(), x.Fault.String()
	}
	x.FailWith(r, status, detail)
}

// FailWith is Fail with a status and a detail of the caller's choice. The
// detail must be plain text without quotes and backslashes.
func (x *Exchange) FailWith(r Reason, status int, detail string) {
	o := &outcomes[r]
	x.Reason = r
	h := x.Own(status)
	h.AddIDString(wire.ContentType, "application/problem+json")
	h.AddIDString(wire.CacheControl, "no-store")
	if o.retry {
		h.AddIDString(wire.RetryAfter, retryAfter)
	}
	if o.proxy != "" {
		at := len(x.storage)
		x.storage = append(x.storage, "gateway; error="...)
		x.storage = append(x.storage, o.proxy...)
		if detail != "" {
			x.storage = append(x.storage, `; details="`...)
			x.storage = append(x.storage, detail...)
			x.storage = append(x.storage, '"')
		}
		h.AddID(wire.ProxyStatus, x.storage[at:])
	}

	b := append(x.body[:0], `{"type":"about:blank","title":"`...)
	b = append(b, o.title...)
	b = append(b, `","status":`...)
	b = strconv.AppendInt(b, int64(status), 10)
	if detail != "" {
		b = append(b, `,"detail":"`...)
		b = append(b, detail...)
		b = append(b, '"')
	}
	b = append(b, `,"reason":"`...)
	b = append(b, o.name...)
	b = append(b, '"')
	if len(x.ID) > 0 { // validated characters only
		b = append(b, `,"request_id":"`...)
		b = append(b, x.ID...)
		b = append(b, '"')
	}
	b = append(b, "}\n"...)
	x.body = b
	x.Response.Body = b
	x.Response.Length = int64(len(b))
}

// Respond makes a fixed answer of the gateway's own; body is borrowed until
// the exchange ends. The caller adds fields to the header that it returns.
func (x *Exchange) Respond(status int, body []byte) *wire.Header {
	h := x.Own(status)
	x.Response.Body = body
	x.Response.Length = int64(len(body))
	return h
}
