-- Prolongs leases that are still ours, with what belongs to them, and takes back those that are nobody's. Up to some hundred names a call.
-- KEYS: presence, inbox, session record, who has taken the name over, for each name
-- ARGV: ttl ms, ttl ms of a resumable session's inbox, ttl ms of its record, deadline (ms of the server's clock),
--       one lease for each name
-- Returns: for each name 1 = ours, 2 = the store had lost it and it is ours again, 3 = a newer connection's of the same session,
--          0 = somebody else's
local call, match = redis.call, string.match
local now = call('TIME')
if now[1] * 1000 + now[2] / 1000 > tonumber(ARGV[4]) then
  return redis.error_reply('LATE the renewal was given up before it ran')
end

-- Whether it is another state of the same session, and which of the two is later.
local function kin(held, lease)
  local session, generation = match(held, '^%S+ (%S+) (%d+)')
  local own_session, own_attach = match(lease, '^%S+ (%S+) (%d+)')
  if session ~= own_session then
    return 0
  end
  generation, own_attach = tonumber(generation), tonumber(own_attach)
  if generation > own_attach then
    return 3
  end
  -- The same connection with other flags; or an earlier one, after the store had lost the resume.
  return generation == own_attach and 1 or 2
end

local results = {}
for i = 1, #KEYS, 4 do
  local lease = ARGV[4 + (i + 3) / 4]
  local held = call('GET', KEYS[i])
  local result = 1
  if held ~= lease then
    result = held and kin(held, lease) or 2
    local taken = not held and call('GET', KEYS[i + 3])
    if taken and not string.find(lease, taken, 1, true) then
      result = 0
    end
    if result == 1 or result == 2 then
      call('SET', KEYS[i], lease, 'PX', ARGV[1])
    end
  else
    call('PEXPIRE', KEYS[i], ARGV[1])
  end
  if result == 1 or result == 2 then
    if string.sub(lease, -1) ~= '-' then
      call('PEXPIRE', KEYS[i + 1], ARGV[2])
      if call('PEXPIRE', KEYS[i + 2], ARGV[3]) == 0 then
        result = 2
      end
    end
  end
  results[#results + 1] = result
end
return results
