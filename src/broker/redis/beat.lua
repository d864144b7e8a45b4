-- Prolongs a node's own lease, or takes it anew under a fresh token, so that everybody can see that it was gone. StoreReport what the node believes
-- of the store, for nodes that start: whether every live user is known to it.
-- KEYS: node lease, what is said of the store
-- ARGV: fresh token, ttl ms, name of the epoch, 'known', 'guarded' or '' for nothing
-- Returns: {ms of the server's clock, the token of the lease}
local now = redis.call('TIME')
local millis = now[1] * 1000 + math.floor(now[2] / 1000)
local token = redis.call('GET', KEYS[1])
local known = 'known ' .. ARGV[3]
if not token then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
else
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
if token and ARGV[4] == 'known' then
  redis.call('SET', KEYS[2], known, 'PX', ARGV[2])
elseif ARGV[4] ~= '' and redis.call('GET', KEYS[2]) ~= known then
  redis.call('SET', KEYS[2], 'guarded', 'PX', ARGV[2])
end
return {millis, token or ARGV[1]}
