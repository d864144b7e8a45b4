-- Prolongs leases that are still ours, takes back those that are nobody's. Up to some hundred keys a call.
-- KEYS: presence…   ARGV: ttl ms, deadline (ms of the server's clock), one lease for each key
-- Returns: for each key 1 = ours, 2 = was nobody's and is ours again, 0 = somebody else's
local now = redis.call('TIME')
if now[1] * 1000 + now[2] / 1000 > tonumber(ARGV[2]) then
  return redis.error_reply('LATE the renewal was given up before it ran')
end
local results = {}
for i, key in ipairs(KEYS) do
  local held = redis.call('GET', key)
  if held == ARGV[i + 2] then
    redis.call('PEXPIRE', key, ARGV[1])
    results[i] = 1
  elseif held then
    results[i] = 0
  else
    redis.call('SET', key, ARGV[i + 2], 'PX', ARGV[1])
    results[i] = 2
  end
end
return results
