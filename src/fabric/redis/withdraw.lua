-- Takes back what waits for a name that nobody holds.
-- KEYS: what waits; its tally is named after it   ARGV: ids…
-- Returns: how many of them were still waiting
local withdrawn = redis.call('XDEL', KEYS[1], unpack(ARGV))
if withdrawn > 0 then
  redis.call('DEL', KEYS[1] .. ':n')
  if redis.call('XLEN', KEYS[1]) == 0 then
    redis.call('DEL', KEYS[1])
  end
end
return withdrawn
