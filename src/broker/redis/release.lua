-- Gives a name back, if it is still this one's.
-- KEYS: presence, inbox, session record   ARGV: lease, id of the last entry that was read
-- Returns: the entries that nobody will read now
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return {}
end
local unread = redis.call('XRANGE', KEYS[2], '(' .. ARGV[2], '+')
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
return unread
