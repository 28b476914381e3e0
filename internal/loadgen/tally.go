package loadgen

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Failure is a way in which a request got no answer.
type Failure uint8

const (
	ConnectFailed Failure = iota // no connection, or no TLS on it
	Broken                       // the connection ended or failed before the answer did
	TimedOut                     // no complete answer in time, or never sent for want of a connection
	Malformed                    // the answer is not HTTP/1.1, or more came than was asked for
	failures                     // number of the above
)

var failureNames = [failures]string{"connect", "broken", "timeout", "malformed"}

func (f Failure) String() string { return failureNames[f] }

// A histogram counts latencies from 100 ns to an hour with three digits.
func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(100, int64(time.Hour), 3) }

// interval is what was measured in a span of time.
type interval struct {
	latency, service  *hdrhistogram.Histogram // ns from due, and from sent, to answered
	answered          int64
	statuses          [600]int64
	failed            [failures]int64
	bytesIn, bytesOut int64
	reconnects        int64
}

func newInterval() *interval {
	return &interval{latency: newHistogram(), service: newHistogram()}
}

func (i *interval) reset() {
	i.latency.Reset()
	i.service.Reset()
	*i = interval{latency: i.latency, service: i.service}
}

func (i *interval) add(o *interval) {
	i.latency.Merge(o.latency)
	i.service.Merge(o.service)
	i.answered += o.answered
	for s, n := range o.statuses {
		i.statuses[s] += n
	}
	for f, n := range o.failed {
		i.failed[f] += n
	}
	i.bytesIn += o.bytesIn
	i.bytesOut += o.bytesOut
	i.reconnects += o.reconnects
}

func (i *interval) failures() (n int64) {
	for _, k := range i.failed {
		n += k
	}
	return n
}

// tally is where one loop writes. The loop holds mu while it works through a
// batch of events; others only ever exchange the interval.
type tally struct {
	mu      sync.Mutex
	current *interval

	answered, failed atomic.Int64 // of the whole run, warm-up included
	_                [64]byte
}

// take exchanges the running interval for an empty one.
func (t *tally) take(empty *interval) *interval {
	t.mu.Lock()
	defer t.mu.Unlock()
	full := t.current
	t.current = empty
	return full
}
