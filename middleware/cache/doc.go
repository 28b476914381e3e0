// Package cache is a shared HTTP cache: the rules of RFC 9111 and its relatives
// as functions over parsed heads and a time, a store in memory, flights that
// collapse misses, purges, and a tier in Redis that gateways share. There is no
// HTTP server in it, and no I/O but for Save, Load and the tier; who calls it
// brings requests, answers and the time.
//
// # A request
//
//	Lookup ─ Hit, HitStale ── serve Entry as Answer says
//	       ├ HitRefresh ───── the same, and Refresh in the background
//	       ├ Validate, Miss ─ Begin ─ Lead, Alone: Recall, which may make it a
//	       │                        │   hit; else ask the origin, then
//	       │                        │   Whole, or Response, Write…, Finish,
//	       │                        │   or NotModified, or Fail
//	       │                        ├ Wait: Reader.Wait, then Head and Next
//	       │                        └ Again: Lookup
//	       ├ Unavailable ──── answer 504
//	       └ Bypass ───────── forward; Posted, and Invalidate if the method is
//	                          unsafe; a flight that Posted gives is then led
//
// A Policy is the part of a route, a Cache what all routes share. A Lookup keeps
// its memory and holds its Entry until Release; a hit allocates nothing and
// copies no body.
//
// # Which way the RFCs' choices were taken
//
//   - Two max-age that differ, and one that is not a number, make a response
//     stale (RFC 9111 section 4.2.1). Numbers above 2³¹ are 2³¹.
//   - A quoted string that is never closed hides nothing of what follows.
//   - no-cache="f" and private="f" leave f out of what is stored.
//   - s-maxage forbids to serve stale responses, as must-revalidate does (section
//     5.2.2.10), also inside a stale-while-revalidate window. Origins that want
//     both for shared caches say so in CDN-Cache-Control with max-age.
//   - A fresh immutable response is served on max-age=0, and validated on
//     no-cache (RFC 8246).
//   - What varies by fields that the gateway writes is not stored.
//   - The answer to a POST is stored as that of a GET if its Content-Location is
//     the target URI and it is fresh by what the origin says; not if it varies.
//   - HEAD is answered from what a GET stored and stores nothing; trailer
//     sections are passed on and not stored.
//   - A response without a lifetime is stored if it can be validated.
//   - Parts of a response are stored as one range; parts with the same strong
//     validator that touch are joined. To the beginning of a response with one
//     the rest is asked for with If-Range when the whole is wanted.
//   - A response that could not be shared is remembered, and requests for it go
//     side by side for a while. What a single request caused, such as with
//     Authorization, is not held against others.
//   - Purges and unsafe methods also reach what is being received.
//
// # The tier
//
// Whoever leads a flight asks Redis, with a deadline of milliseconds and behind a
// breaker, before the origin; what is there goes into memory and is looked up as
// if it had been there. What the origin gives is written in the background as it
// is in memory by then. The name in Redis is a hash, the value a versioned block
// with a checksum that holds the whole key: what is damaged, foreign or another
// one's is a miss.
//
// Each purge has a number in Redis, and what it hits is recorded there with it,
// so that a gateway that missed messages learns from the records what it has
// missed, and values carry the last number that was known when their origin was
// asked: older ones are known for purged without an index from tags to values.
// While purges may not arrive, entries older than purge_lag count as stale and
// Redis is not asked.
//
// # The store
//
// Entries are bytes without pointers outside the Go heap, in shards of 16 MiB or
// more with a lock each, so that neither their number nor their size costs the
// collector anything, and the limit is one: memory is taken from the system
// within it and given back. See the type store for how it chooses.
//
// Hit ratios in percent with room for 4,000 entries of the same size and 200,000
// requests; Zipf over 80,000 keys; a third of "scan" is keys that never come
// again, and "shift n" moves its popular keys away after n times 4,000 requests:
//
//	trace      store   LRU   optimum (Belady)
//	zipf 1.01   70.5  67.1   78.4
//	zipf 1.2    88.2  87.6   91.2
//	scan        46.0  39.2   52.7
//	loop 0.8    98.4  98.4   98.4
//	loop 1.5    54.5   0.0   65.0
//	shift 25    69.0  66.8   77.8
//	shift 9     64.1  65.5   75.3
//
// Libraries that were considered keep Go values: pointers for the collector to
// follow, and sizes that are only what they are told
// (docs/decisions/0007-cache-store.md).
package cache
