package compress

import (
	"sync"
	"sync/atomic"

	"gateway/metrics"
)

// Engine is what outlives a configuration: the encoders and decoders that wait
// for work, how many streams hold one, how busy the process is, the forms of
// bodies that come again and again, and what is counted. Safe for concurrent use.
type Engine struct {
	encoders [CodingCount][maxLevel + 1][kinds]sync.Pool
	decoders [CodingCount]sync.Pool
	streams  atomic.Int64
	load     load
	memo     *memo

	learning     sync.Mutex
	dictionaries map[string]*Dictionaries // by route

	bytesIn, bytesOut [CodingCount]*metrics.Counter
	responses         [CodingCount]*metrics.Counter
	lowered           [CodingCount]*metrics.Counter
	reused            [CodingCount]*metrics.Counter
	memoHits          [CodingCount]*metrics.Counter
	nanoseconds       [CodingCount]atomic.Uint64
	decodedIn         [CodingCount]*metrics.Counter
	decodedOut        [CodingCount]*metrics.Counter
	skipped           [SkipCount]*metrics.Counter
}

// NewEngine makes an engine that counts in a registry. A process has one.
func NewEngine(r *metrics.Registry) *Engine {
	const (
		bytes     = "Bytes of response bodies before (in) and after (out) they were coded."
		responses = "Responses that were coded."
		lowered   = "Responses that were coded at a lower level than configured because the CPUs were busy."
		reused    = "Responses whose coded form came from the cache."
		memoHits  = "Responses that were not coded anew: the origin had sent a body with the same bytes before."
		seconds   = "Time spent coding response bodies."
		decoded   = "Bytes of response bodies before (in) and after (out) the origin's coding was taken off."
		skipped   = "Responses that were not coded, by reason."
	)
	e := &Engine{memo: newMemo()}
	e.load.cpu = processTime
	for c := Zstd; c < CodingCount; c++ {
		e.bytesIn[c] = r.Counter("gateway_compress_bytes_total", bytes, "coding", c.String(), "direction", "in")
		e.bytesOut[c] = r.Counter("gateway_compress_bytes_total", bytes, "coding", c.String(), "direction", "out")
		e.responses[c] = r.Counter("gateway_compress_responses_total", responses, "coding", c.String())
		e.lowered[c] = r.Counter("gateway_compress_lowered_total", lowered, "coding", c.String())
		e.reused[c] = r.Counter("gateway_compress_reused_total", reused, "coding", c.String())
		e.memoHits[c] = r.Counter("gateway_compress_memo_hits_total", memoHits, "coding", c.String())
		e.decodedIn[c] = r.Counter("gateway_compress_decoded_bytes_total", decoded, "coding", c.String(), "direction", "in")
		e.decodedOut[c] = r.Counter("gateway_compress_decoded_bytes_total", decoded, "coding", c.String(), "direction", "out")
		r.CounterFunc("gateway_compress_seconds_total", seconds,
			func() float64 { return float64(e.nanoseconds[c].Load()) / 1e9 }, "coding", c.String())
	}
	for s := range e.skipped {
		e.skipped[s] = r.Counter("gateway_compress_skipped_total", skipped, "reason", Skip(s).String())
	}
	r.GaugeFunc("gateway_compress_streams", "Streamed bodies that are being coded or decoded now.",
		func() float64 { return float64(e.streams.Load()) })
	r.GaugeFunc("gateway_compress_memo_bytes", "Memory of coded forms that are kept because their bodies come again and again.",
		func() float64 { return float64(e.memo.size()) })
	r.GaugeFunc("gateway_compress_cpu_usage_ratio", "Share of the CPUs that the process used when levels were last adjusted to it, 0 to 1.",
		e.load.share)
	return e
}

// Shedder lowers levels while more than this share of the CPUs is in use, from
// above 0 to 1; nil, which never does, for 0.
func (e *Engine) Shedder(busy float64) *Shedder {
	if busy <= 0 {
		return nil
	}
	return &Shedder{load: &e.load, busy: busy}
}

// Space is the space of a route's bodies.
func (e *Engine) Space(route string) Space { return e.memo.space(route) }

// Skip is why a response was not coded.
type Skip uint8

const (
	NotAccepted    Skip = iota // the client wants no coding that is offered
	OtherType                  // the media type is not one to compress
	TooSmall                   // the body is smaller than the minimum
	AlreadyCoded               // the origin has coded it
	NoTransform                // the response or the request forbids changes
	PartOfBody                 // the request asks for a range, or the response is one
	FromOtherSite              // a page of another site asked
	NotSmaller                 // the coded body would have been larger
	TooManyStreams             // as many streams as allowed are being coded
	BeingCoded                 // the cache's form of the body is just being made
	SkipCount                  // number of values above
)

var skipNames = [SkipCount]string{
	NotAccepted: "not_accepted", OtherType: "type", TooSmall: "small", AlreadyCoded: "coded",
	NoTransform: "no_transform", PartOfBody: "range", FromOtherSite: "cross_site",
	NotSmaller: "not_smaller", TooManyStreams: "streams", BeingCoded: "being_coded",
}

// String is the reason's name in metrics.
func (s Skip) String() string { return skipNames[s] }

// Reused counts a response that was made of a coded form from the cache.
func (e *Engine) Reused(c Coding) { e.reused[c].Inc() }

// Skipped counts a response that was not coded.
func (e *Engine) Skipped(s Skip) { e.skipped[s].Inc() }

// enter counts a stream in, unless there are max of them.
func (e *Engine) enter(max int) bool {
	if e.streams.Add(1) > int64(max) {
		e.streams.Add(-1)
		return false
	}
	return true
}
