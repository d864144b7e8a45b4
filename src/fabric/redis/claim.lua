-- Takes a name that nobody holds, or that a dead holder holds. A won name starts with an empty inbox and no old session.
-- KEYS: presence, inbox, session record   ARGV: lease, ttl ms, lease of the dead holder or '', deadline (ms of the server's clock)
-- Returns: nil if won, else the holder's lease
local now = redis.call('TIME')
if now[1] * 1000 + now[2] / 1000 > tonumber(ARGV[4]) then
  return redis.error_reply('LATE the claim was given up before it ran')
end
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[3] then
  return held
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('DEL', KEYS[2], KEYS[3])
return false
