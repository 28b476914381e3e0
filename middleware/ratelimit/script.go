package ratelimit

import (
	"context"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"
)

// bucketSource is a bucket in Redis. It keeps the tokens that are missing and
// when they were counted, by the server's clock, so that no gateway's clock
// matters and a changed rate keeps them. A key lives until its bucket is full.
//
//	KEYS[1]  bucket
//	ARGV     1 tokens and 2 µs in which they come
//	         3 largest debt that a grant may leave
//	         4 tokens spent already, negative for some that come back
//	         5 tokens wanted
//	         6 tokens that are useful at least: fewer are none
//	         7 debt that the bucket has at least
//	         8 nodes to share with: one takes no more than 2/(nodes+1) of
//	           what is there, so that the next finds something; 1 takes all
//
// It returns the tokens granted and the debt. When nothing was spent or
// granted, nothing is written.
const bucketSource = `
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local rate = ARGV[1] / ARGV[2]
local debt = 0
local kept = redis.call('GET', KEYS[1])
if kept then
  local missing, at = string.match(kept, '^(%S+) (%S+)$')
  debt = missing - math.max(0, now - at) * rate
end
local spent, want, floor, nodes = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[7]), tonumber(ARGV[8])
local changed = spent ~= 0
if debt < floor then
  debt = floor
  changed = changed or floor > 0
end
debt = math.max(0, debt + spent)
local room = math.floor(ARGV[3] - debt + 1e-6)
local granted = math.max(0, math.min(want, room))
if nodes > 1 and granted > 0 then
  granted = math.min(granted, math.max(1, math.ceil(room * 2 / (nodes + 1))))
end
if granted < tonumber(ARGV[6]) then granted = 0 end
debt = debt + granted
if changed or granted > 0 then
  redis.call('SET', KEYS[1], string.format('%.17g %.0f', debt, now), 'PX', math.ceil(debt / rate / 1000) + 1000)
end
return {granted, string.format('%.17g', debt)}
`

var bucketScript = redis.NewScript(bucketSource)

// heartbeatScript notes a node (ARGV[1]) that lives for so many ms (ARGV[2])
// and returns how many live.
var heartbeatScript = redis.NewScript(`
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[2] * 4)
return redis.call('ZCARD', KEYS[1])
`)

// ask is one call of the bucket script.
type ask struct {
	key         string
	spent, want int64
	least       int64
	floor       float64
	nodes       int64

	granted int64
	debt    float64
	err     error
}

// arguments are those of the script at a rate.
func (a *ask) arguments(r *rate, largest float64) []any {
	return []any{r.count, r.per.Microseconds(), strconv.FormatFloat(largest, 'f', -1, 64), a.spent, a.want, a.least, strconv.FormatFloat(a.floor, 'f', -1, 64), a.nodes}
}

// read takes the script's answer.
func (a *ask) read(cmd *redis.Cmd) {
	var list []any
	if list, a.err = cmd.Slice(); a.err != nil {
		return
	}
	if len(list) == 2 {
		granted, ok1 := list[0].(int64)
		text, ok2 := list[1].(string)
		debt, err := strconv.ParseFloat(text, 64)
		if ok1 && ok2 && err == nil {
			a.granted, a.debt = granted, debt
			return
		}
	}
	a.err = fmt.Errorf("ask Redis for tokens: unexpected answer %v", list)
}

// run makes the calls in one round trip, two when the server has forgotten the
// script. Each has its own outcome.
func run(ctx context.Context, client redis.UniversalClient, asks []ask, r *rate, largest float64) {
	commands := make([]*redis.Cmd, len(asks))
	pipe := client.Pipeline()
	for i := range asks {
		commands[i] = pipe.EvalSha(ctx, bucketScript.Hash(), []string{asks[i].key}, asks[i].arguments(r, largest)...)
	}
	_, _ = pipe.Exec(ctx) // the commands have its error
	forgotten := false
	pipe = client.Pipeline()
	for i := range asks {
		if redis.HasErrorPrefix(commands[i].Err(), "NOSCRIPT") {
			forgotten = true
			commands[i] = bucketScript.Eval(ctx, pipe, []string{asks[i].key}, asks[i].arguments(r, largest)...)
		}
	}
	if forgotten {
		_, _ = pipe.Exec(ctx)
	}
	for i := range asks {
		asks[i].read(commands[i])
	}
}
