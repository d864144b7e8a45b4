-- Adds revocations of tokens, and forgets those that have ended.
-- KEYS: revocations, when each ends
-- ARGV: how many there may be; then for each: tokens, time before which they were issued, time at which they have ended
--       (Unix seconds)
-- Returns: 1, or 0 if there is no room for all
local call = redis.call
local now = tonumber(call('TIME')[1])
local ended = call('ZRANGE', KEYS[2], '-inf', now, 'BYSCORE')
local last = tonumber(call('ZRANGE', KEYS[2], -1, -1, 'WITHSCORES')[2] or now)
-- Is there one too many, without those that have ended and with those that come?
local beyond = ARGV[1] + #ended - (#ARGV - 1) / 3
if beyond < 0 or #call('ZRANGE', KEYS[2], beyond, beyond) > 0 then
  return 0
end
local known = {}
for i = 2, #ARGV, 3 do
  known[i] = call('HGET', KEYS[1], ARGV[i]) or '0 0'
end
for _, tokens in ipairs(ended) do
  call('HDEL', KEYS[1], tokens)
end
call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
for i = 2, #ARGV, 3 do
  local before, till = string.match(known[i], '^(%d+) (%d+)$')
  before = math.max(tonumber(before), tonumber(ARGV[i + 1]))
  till = math.max(tonumber(till), tonumber(ARGV[i + 2]))
  call('HSET', KEYS[1], ARGV[i], string.format('%.0f %.0f', before, till))
  call('ZADD', KEYS[2], till, ARGV[i])
  last = math.max(last, till)
end
local left = math.max(1, last - now) * 1000
call('PEXPIRE', KEYS[1], left)
call('PEXPIRE', KEYS[2], left)
return 1
