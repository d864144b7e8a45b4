-- Reads what an inbox holds, for the session whose inbox it is.
-- KEYS: presence, inbox   ARGV: lease, id of the last entry that was read
-- Returns: the later entries; none if the name is somebody else's by now, or a newer connection's of the same session
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then
  local session, generation = string.match(held, '^%S+ (%S+) (%d+)')
  local own_session, own_attach = string.match(ARGV[1], '^%S+ (%S+) (%d+)')
  -- A store that has lost a resume still knows the connection before.
  if session ~= own_session or tonumber(generation) > tonumber(own_attach) then
    return {}
  end
end
return redis.call('XRANGE', KEYS[2], '(' .. ARGV[2], '+')
