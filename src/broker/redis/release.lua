-- Frees a name if this lease still holds it.
-- KEYS: presence, inbox, session record   ARGV: lease, id of the last entry that was read
-- Returns: the entries that were not read
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return {}
end
local unread = redis.call('XRANGE', KEYS[2], '(' .. ARGV[2], '+')
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
return unread
