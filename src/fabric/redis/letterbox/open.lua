-- Opens a letterbox, with what its client has said already.
-- KEYS: record, uplink   ARGV: hash of its secret, node, ttl ms, frame…
local now = redis.call('TIME')
local millis = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('HSET', KEYS[1], 'hash', ARGV[1], 'node', ARGV[2], 'epoch', 1, 'cursor', '0-0', 'number', 0, 'seen', millis)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
for i = 4, #ARGV do
  redis.call('XADD', KEYS[2], '*', 'f', ARGV[i])
  redis.call('HINCRBY', KEYS[1], 'up', #ARGV[i])
end
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1
