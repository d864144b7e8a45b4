-- Prolongs a node's own lease, or takes it anew under a fresh token, so that everybody can see that it was gone.
-- KEYS: node lease, what says which store is whole
-- ARGV: fresh token, ttl ms, which store this is if the node believes it to be whole or ''
-- Returns: {ms of the server's clock, the token that it bears now}
local now = redis.call('TIME')
local millis = now[1] * 1000 + math.floor(now[2] / 1000)
local token = redis.call('GET', KEYS[1])
if not token then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return {millis, ARGV[1]}
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
if ARGV[3] ~= '' then
  redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[2])
end
return {millis, token}
