package cache

// Result is what the cache did for a request: the label of metrics and the
// word in the access log.
type Result uint8

const (
	ResultNone        Result = iota // the route does not cache
	ResultHit                       // a fresh response was stored
	ResultStale                     // a stale response was served, as the client or the configuration allows
	ResultRefresh                   // a stale response was served, and a new one is fetched meanwhile
	ResultError                     // a stale response was served because the origin failed
	ResultRevalidated               // the origin said that what is stored is still right
	ResultCollapsed                 // the response to another request was for this one too
	ResultMiss                      // the origin answered
	ResultBypass                    // the request was none for the cache
	ResultUnavailable               // only-if-cached, and nothing was stored
	ResultCount                     // number of values above
)

// String is the result's name; "" for none.
func (r Result) String() string {
	return [ResultCount]string{"", "hit", "stale", "refresh", "stale_error", "revalidated", "collapsed", "miss", "bypass", "unavailable"}[r]
}
