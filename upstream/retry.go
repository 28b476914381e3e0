package upstream

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"gateway/internal/unit"
)

// RetryOptions bound repeated attempts.
type RetryOptions struct {
	// Attempts for a request at most, the first one included. 1 never repeats.
	Attempts int `toml:"attempts" default:"2" min:"1" max:"8"`

	// After what a request is tried again: "connect" is no connection, "reset"
	// a connection that ended before the head of the response was complete,
	// "timeout" no response in time, and "400" to "599" a response with that
	// status. If there is nobody else to ask, the client gets that response. It
	// also gets it when its Retry-After asks for more than a second; up to a
	// second is waited for.
	On []RetryCause `toml:"on" default:"connect,reset,timeout"`

	// Longest time for each attempt, from its beginning until the head of the
	// response is complete; it counts as a timeout. Requests whose body is
	// streamed are exempt: they can't be repeated. 0s leaves it to
	// connect_timeout and first_byte_timeout.
	TryTimeout time.Duration `toml:"try_timeout" default:"0s" min:"0s" max:"24h"`

	// From the third attempt on, a pause is made before each: a random one
	// between nothing and this time, twice this time for the fourth attempt and
	// so on, ten times this time at most. The second attempt is made at once,
	// since it goes to another server.
	Backoff time.Duration `toml:"backoff" default:"25ms" min:"0s" max:"10s"`

	// Repeated attempts may be this share of the pool's requests of the last
	// 10 seconds, so that a failing pool is not given the rest by a storm of
	// repetitions.
	Budget unit.Percent `toml:"budget" default:"20%"`

	// So many repeated attempts a second are allowed beyond the budget.
	MinPerSecond int `toml:"min_per_second" default:"10" min:"0" max:"10000"`
}

// RetryCause is something after which a request is tried again: one of the
// constants, or a status from 400 to 599. Its text is "connect", "reset",
// "timeout" or the status.
type RetryCause uint16

const (
	RetryConnect RetryCause = 1 + iota
	RetryReset
	RetryTimeout
)

var retryCauses = [...]string{RetryConnect: "connect", RetryReset: "reset", RetryTimeout: "timeout"}

// UnmarshalText reads a cause.
func (c *RetryCause) UnmarshalText(text []byte) error {
	for i, name := range retryCauses {
		if name != "" && name == string(text) {
			*c = RetryCause(i)
			return nil
		}
	}
	status, err := strconv.ParseUint(string(text), 10, 16)
	if err != nil || status < 400 || status > 599 {
		return fmt.Errorf(`unknown value %q; want "connect", "reset", "timeout" or a status from "400" to "599"`, text)
	}
	*c = RetryCause(status)
	return nil
}

// MarshalText is String.
func (c RetryCause) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// String is the cause's text.
func (c RetryCause) String() string {
	if int(c) < len(retryCauses) {
		return retryCauses[c]
	}
	return strconv.Itoa(int(c))
}

// Retries says after what a request is tried again. The zero value is after
// nothing.
type Retries struct {
	outcomes [OutcomeCount]bool
	statuses Statuses
}

// Causes is On in a form that takes no time to ask.
func (o *RetryOptions) Causes() (r Retries) {
	for _, c := range o.On {
		switch c {
		case RetryConnect:
			r.outcomes[ConnectRefused], r.outcomes[ConnectTimedOut], r.outcomes[TLSFailed] = true, true, true
		case RetryReset:
			r.outcomes[Reset], r.outcomes[Stale] = true, true
		case RetryTimeout:
			r.outcomes[TimedOut] = true
		default:
			r.statuses.add(int(c))
		}
	}
	return r
}

// Outcome reports whether an attempt is repeated that ended so.
func (r *Retries) Outcome(o Outcome) bool { return r.outcomes[o] }

// Status reports whether an attempt is repeated that got a response with this
// status.
func (r *Retries) Status(status int) bool { return r.statuses.Has(status) }

// Pause is how long to wait before another attempt when so many were made.
func (o *RetryOptions) Pause(made int) time.Duration {
	if made < 2 || o.Backoff <= 0 {
		return 0
	}
	return rand.N(min(o.Backoff<<(made-2), 10*o.Backoff) + 1)
}
