package cache

import "github.com/redis/go-redis/v9"

// What gateways share about purges is in three hashes: state with n, the number
// of the last purge, and s, the number at which this history began; purges with
// the number of the last purge of each thing, and with the empty field the
// number at which that hash began; and former, what was purges before it had too
// many. Older records are forgotten: values that are older than former's
// beginning count as purged.
//
// Numbers begin with the time in microseconds, so that a Redis that has lost
// what it knew, or fell back to an older state, begins a new history with higher
// ones.
const begin = `
for i = 1, 3 do
	local kind = redis.call('TYPE', KEYS[i]).ok
	if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', KEYS[i]) end
end
local function text(n) return string.format('%.0f', n) end
local known = tonumber(ARGV[1])
local n = tonumber(redis.call('HGET', KEYS[1], 'n'))
local s = tonumber(redis.call('HGET', KEYS[1], 's'))
local floor = tonumber(redis.call('HGET', KEYS[3], '') or redis.call('HGET', KEYS[2], ''))
if not n or not s or not floor or not redis.call('HGET', KEYS[2], '') or n < known then
	local now = redis.call('TIME')
	n = math.max(known + 1, tonumber(now[1]) * 1000000 + tonumber(now[2]))
	s, floor = n, n
	redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
	redis.call('HSET', KEYS[1], 'n', text(n), 's', text(n))
	redis.call('HSET', KEYS[2], '', text(n))
end
`

// publishScript records purges and tells of them: what the caller knows, the
// channel, the most records, and for each purge its field and the message.
var publishScript = redis.NewScript(begin + `
for i = 4, #ARGV, 2 do
	n = n + 1
	redis.call('HSET', KEYS[1], 'n', text(n))
	redis.call('HSET', KEYS[2], ARGV[i], text(n))
	if redis.call('HLEN', KEYS[2]) > tonumber(ARGV[3]) then
		redis.call('RENAME', KEYS[2], KEYS[3])
		redis.call('HSET', KEYS[2], '', text(n))
	end
	redis.call('PUBLISH', ARGV[2], text(n) .. ' ' .. ARGV[i + 1])
end
return text(n)`)

// syncScript gives n, s and the number at which the records begin; and the
// records, unless the caller knows all and does not want them all the same.
var syncScript = redis.NewScript(begin + `
if n == known and ARGV[2] == '0' then return {text(n), text(s), text(floor)} end
return {text(n), text(s), text(floor), redis.call('HGETALL', KEYS[2]), redis.call('HGETALL', KEYS[3])}`)
