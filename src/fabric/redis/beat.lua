-- Prolongs a node's own lease, or takes it anew under a fresh token, so that everybody can see that it was gone.
-- KEYS: node lease   ARGV: fresh token, ttl ms
-- Returns: {1 if it was there else 0, ms of the server's clock}
local now = redis.call('TIME')
local millis = now[1] * 1000 + math.floor(now[2] / 1000)
if redis.call('PEXPIRE', KEYS[1], ARGV[2]) == 1 then
  return {1, millis}
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {0, millis}
