-- What the client has said, for its carrier.
-- KEYS: record, uplink   ARGV: epoch, place that it has heard to, count
-- Returns: 'gone', 'taken', or {ms since the last sign of life, entries}
local known = redis.call('HMGET', KEYS[1], 'epoch', 'over', 'seen')
if not known[1] or known[2] then
  return 'gone'
end
if known[1] ~= ARGV[1] then
  return 'taken'
end
local now = redis.call('TIME')
local idle = now[1] * 1000 + math.floor(now[2] / 1000) - known[3]
return {idle, redis.call('XRANGE', KEYS[2], '(' .. ARGV[2], '+', 'COUNT', ARGV[3])}
