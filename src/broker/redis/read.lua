-- Reads an inbox for the session that holds it.
-- KEYS: presence, inbox   ARGV: lease, id of the last entry that was read
-- Returns: the later entries; none if another session holds the name, or a newer connection of the same session
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then
  local session, generation = string.match(held, '^%S+ (%S+) (%d+)')
  local own_session, own_generation = string.match(ARGV[1], '^%S+ (%S+) (%d+)')
  -- A lower generation is accepted: Redis may have lost our resume.
  if session ~= own_session or tonumber(generation) > tonumber(own_generation) then
    return {}
  end
end
return redis.call('XRANGE', KEYS[2], '(' .. ARGV[2], '+')
