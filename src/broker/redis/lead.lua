-- Takes or keeps the right to tell events.
-- KEYS: who tells events   ARGV: node, ttl ms   Returns: 1 if the node has it
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
