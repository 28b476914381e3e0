package exchange

// Reason says who ended an exchange and in which phase. It is the metric
// label, the log field and the key of the status table at once.
type Reason uint8

const (
	Done            Reason = iota // the origin's answer, or one that the configuration asked for, was given
	BadRequest                    // the head was refused; Exchange.Fault says why
	BadBody                       // the request body was malformed or cut short
	BodyTooLarge                  // the request body exceeds max_body
	ClientSlow                    // the request did not arrive in time
	ClientLeft                    // the client closed before the answer was complete
	ClientStalled                 // the client stopped reading the answer
	NoRoute                       // no route matches
	Denied                        // refused by allow or deny
	Unauthenticated               // no valid token
	RateLimited                   // refused by a limit
	NoServer                      // no server of the pool may be used
	NotCached                     // the client wants a stored response alone, and there is none
	DependencyDown                // a backend that the servers need is down
	ServersFull                   // each server has reached its connection limit
	Overloaded                    // the pool has reached the limit that follows its latency
	QueueFull                     // too many wait for a server already
	QueueTimedOut                 // no server became free in time
	ConnectFailed                 // no connection to the origin
	ConnectTimeout                // no connection to the origin in time
	OriginTimeout                 // no first byte of the answer in time
	OriginStalled                 // the answer stopped arriving
	ExchangeTimeout               // the route's time for the whole exchange is over
	OriginReset                   // the origin closed before the head of its answer was complete
	OriginInvalid                 // the origin's answer breaks HTTP
	OriginTruncated               // the origin's body ended early
	UpgradeFailed                 // origin and client did not agree on the upgrade
	NoResources                   // descriptors or ports of this machine are used up
	Panicked                      // a bug in the gateway
	ReasonCount                   // number of values above
)

// outcome is a row of the status table.
type outcome struct {
	name   string // metric label and log field
	status int    // of the answer, 0 when the status is decided elsewhere
	title  string // of the problem document
	proxy  string // error type of Proxy-Status (RFC 9209 section 2.3), "" when the origin is not involved
	retry  bool   // Retry-After is sent
}

var outcomes = [ReasonCount]outcome{
	Done:            {name: "done"},
	BadRequest:      {"bad_request", 400, "Bad request", "http_request_error", false},
	BadBody:         {"bad_body", 400, "Malformed request body", "http_request_error", false},
	BodyTooLarge:    {"body_too_large", 413, "Request body too large", "http_request_error", false},
	ClientSlow:      {"client_slow", 408, "Request not received in time", "http_request_error", false},
	ClientLeft:      {"client_left", 499, "Client closed request", "", false},
	ClientStalled:   {"client_stalled", 499, "Client stopped reading", "", false},
	NoRoute:         {"no_route", 404, "No route matches this request", "", false},
	Denied:          {"denied", 403, "Access denied", "http_request_denied", false},
	Unauthenticated: {"unauthenticated", 401, "Authentication required", "http_request_denied", false},
	RateLimited:     {"rate_limited", 429, "Too many requests", "", false},
	NoServer:        {"no_server", 503, "No server available", "destination_unavailable", true},
	NotCached:       {"not_cached", 504, "Not in the cache", "", false},
	DependencyDown:  {"dependency_down", 503, "A backend of this service is down", "destination_unavailable", true},
	ServersFull:     {"servers_full", 503, "All servers are at their limit", "connection_limit_reached", true},
	Overloaded:      {"overloaded", 503, "Servers are overloaded", "connection_limit_reached", true},
	QueueFull:       {"queue_full", 503, "Too many requests wait for a server", "connection_limit_reached", true},
	QueueTimedOut:   {"queue_timed_out", 503, "No server became free in time", "connection_limit_reached", true},
	ConnectFailed:   {"connect_failed", 502, "Server refused the connection", "connection_refused", false},
	ConnectTimeout:  {"connect_timeout", 504, "Server did not accept the connection in time", "connection_timeout", false},
	OriginTimeout:   {"origin_timeout", 504, "Server did not answer in time", "http_response_timeout", false},
	OriginStalled:   {"origin_stalled", 504, "Server stopped answering", "connection_read_timeout", false},
	ExchangeTimeout: {"exchange_timeout", 504, "Request took too long", "http_response_timeout", false},
	OriginReset:     {"origin_reset", 502, "Server closed the connection", "connection_terminated", false},
	OriginInvalid:   {"origin_invalid", 502, "Server sent an invalid response", "http_protocol_error", false},
	OriginTruncated: {"origin_truncated", 502, "Server sent an incomplete response", "http_response_incomplete", false},
	UpgradeFailed:   {"upgrade_failed", 502, "Upgrade failed", "http_upgrade_failed", false},
	NoResources:     {"no_resources", 503, "Gateway is out of resources", "proxy_internal_error", true},
	Panicked:        {"panicked", 500, "Internal error", "proxy_internal_error", false},
}

// String is the reason's name in metrics and logs.
func (r Reason) String() string {
	if r < ReasonCount {
		return outcomes[r].name
	}
	return "unknown"
}

// CutShort reports whether the client did not get a complete answer.
func (r Reason) CutShort() bool {
	switch r {
	case ClientLeft, ClientStalled, OriginStalled, OriginTruncated, ExchangeTimeout:
		return true
	}
	return false
}
