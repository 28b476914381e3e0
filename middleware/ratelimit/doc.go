// Package ratelimit decides whether a key may have something now: a request of
// a rate, a place among so many at once, or bytes of a bandwidth. It knows no
// HTTP; package middleware makes keys of requests and answers of denials.
//
// A bucket is the generic cell rate algorithm (ATM Forum TM 4.0, section
// 4.4.2): with T the time between two tokens, a bucket is the moment at which
// it will be full again, and n tokens may be taken when that moment, n·T later,
// is at most burst·T away. A denial changes nothing. Over any time t a bucket
// gives at most burst + rate·t tokens, and exactly that many, rounded down, to
// who always asks.
//
// Three stores hold buckets: a table in memory (table.go), Redis asked for each
// decision (strict.go), and Redis asked ahead of time for tokens that are then
// spent without asking (lease.go).
package ratelimit
