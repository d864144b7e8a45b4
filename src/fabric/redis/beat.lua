-- Prolongs a node's own lease, or takes it anew under a fresh token, so that everybody can see that it was gone.
-- KEYS: node lease   ARGV: fresh token, ttl ms
-- Returns: {ms of the server's clock, the token that it bears now}
local now = redis.call('TIME')
local millis = now[1] * 1000 + math.floor(now[2] / 1000)
local token = redis.call('GET', KEYS[1])
if token then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return {millis, token}
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {millis, ARGV[1]}
