// Package middleware holds the stages that the gateway's spine calls around
// the forwarding of a request: who asks, whether they may, what the origin
// sees, what the client sees.
//
// A stage is built once, from the options of a route, when a configuration is
// put into effect, and is safe for concurrent use. A nil stage is one that is
// off: its methods do nothing. Per request no stage allocates, takes a lock or
// waits, unless its documentation says so.
package middleware
