package ratelimit

// Known reports whether Peek sees the buckets: those of local policies, and no
// others, are in memory.
func (l *Limiter) Known() bool { return l.state.redis == nil }

// Crowded reports whether no further request could wait for its turn: Queue
// would say false.
func (l *Limiter) Crowded() bool { return l.state.waiting.Load() >= int64(l.Options.DelayQueue) }
