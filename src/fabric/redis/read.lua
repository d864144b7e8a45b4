-- Reads what an inbox holds, for the session whose inbox it is.
-- KEYS: presence, inbox   ARGV: lease, id of the last entry that was read
-- Returns: the later entries; none if the name is somebody else's by now, whose inbox it would be
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then
  return {}
end
return redis.call('XRANGE', KEYS[2], '(' .. ARGV[2], '+')
