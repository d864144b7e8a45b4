-- Prolongs a node's own lease. If it is gone, creates it with a new token, which shows that Redis has lost it. Also
-- publishes what the node reports of the store, for nodes that start: whether the store knows every live user.
-- KEYS: node lease, report of the store, nodes that beat lately
-- ARGV: new token, ttl ms, name of the epoch, report: 'known', 'guarded' or '' for none, node
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
redis.call('ZADD', KEYS[3], millis, ARGV[5])
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', millis - ARGV[2])
redis.call('PEXPIRE', KEYS[3], ARGV[2])
-- A node that has just lost its lease cannot know that every user is known.
if token and ARGV[4] == 'known' then
  redis.call('SET', KEYS[2], known, 'PX', ARGV[2])
elseif ARGV[4] ~= '' and redis.call('GET', KEYS[2]) ~= known then
  redis.call('SET', KEYS[2], 'guarded', 'PX', ARGV[2])
end
return {millis, token or ARGV[1]}
