package ratelimit

import (
	"strconv"
	"time"
)

// quota is how many requests the policy allows in how many seconds; no window
// for a number of places.
func (l *Limiter) quota() (n, window int64) {
	if l.kind == limitsConcurrency {
		return int64(l.Options.Concurrency), 0
	}
	return l.Options.Rate.Count, int64(l.Options.Rate.Per / time.Second)
}

// AppendPolicy appends the policy as a member of RateLimit-Policy
// (draft-ietf-httpapi-ratelimit-headers-11 section 3): "api";q=100;w=1
func (l *Limiter) AppendPolicy(dst []byte) []byte {
	quota, window := l.quota()
	dst = append(dst, '"')
	dst = append(dst, l.Name...) // letters, digits, _ and -
	dst = append(dst, `";q=`...)
	dst = strconv.AppendInt(dst, quota, 10)
	if window == 0 {
		return append(dst, `;qu="concurrent-requests"`...)
	}
	dst = append(dst, ";w="...)
	return strconv.AppendInt(dst, window, 10)
}

// AppendState appends what a decision left as a member of RateLimit (section
// 4 of the draft): "api";r=50;t=1. Of a denial t is Retry-After.
func (l *Limiter) AppendState(dst []byte, v *Verdict) []byte {
	dst = append(dst, '"')
	dst = append(dst, l.Name...)
	dst = append(dst, `";r=`...)
	dst = strconv.AppendInt(dst, l.Remaining(v), 10)
	if _, window := l.quota(); window == 0 {
		return dst
	}
	dst = append(dst, ";t="...)
	return strconv.AppendInt(dst, l.ResetAfter(v), 10)
}

// Quota is what X-RateLimit-Limit says.
func (l *Limiter) Quota() int64 {
	n, _ := l.quota()
	return n
}

// Remaining is how many requests of cost 1 the key may still send at once, no
// more than the quota.
func (l *Limiter) Remaining(v *Verdict) int64 {
	if !v.Allowed {
		return 0
	}
	return min(v.Left, l.Quota())
}

// ResetAfter is in how many seconds the bucket is full again, and after a
// denial, in how many it gives again.
func (l *Limiter) ResetAfter(v *Verdict) int64 {
	if !v.Allowed {
		return l.RetryAfter(v)
	}
	if l.kind == limitsConcurrency {
		return 0
	}
	return seconds(v.Reset)
}

// RetryAfter is in how many seconds a denied request would be allowed if nobody
// else asked: rounded up, at least one. When a place becomes free nobody knows.
func (l *Limiter) RetryAfter(v *Verdict) int64 {
	if l.kind == limitsConcurrency {
		return 1
	}
	return max(1, seconds(v.Wait))
}

// seconds is a time in ns, rounded up.
func seconds(ns int64) int64 { return (ns + int64(time.Second) - 1) / int64(time.Second) }
