-- Prolongs leases that are still ours, with their inboxes, and takes back those that are nobody's. Up to some hundred names a call.
-- KEYS: presence, inbox for each name
-- ARGV: ttl ms, ttl ms of an inbox, deadline (ms of the server's clock), one lease for each name
-- Returns: for each name 1 = ours, 2 = was nobody's and is ours again, 0 = somebody else's
local now = redis.call('TIME')
if now[1] * 1000 + now[2] / 1000 > tonumber(ARGV[3]) then
  return redis.error_reply('LATE the renewal was given up before it ran')
end
local results = {}
for i = 1, #KEYS, 2 do
  local lease = ARGV[3 + (i + 1) / 2]
  local held = redis.call('GET', KEYS[i])
  if held == lease then
    redis.call('PEXPIRE', KEYS[i], ARGV[1])
    redis.call('PEXPIRE', KEYS[i + 1], ARGV[2])
    results[#results + 1] = 1
  elseif held then
    results[#results + 1] = 0
  else
    redis.call('SET', KEYS[i], lease, 'PX', ARGV[1])
    results[#results + 1] = 2
  end
end
return results
