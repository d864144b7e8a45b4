-- Prolongs our leases with their inboxes and records, and takes back those that nobody holds.
-- KEYS: for each name: presence, inbox, session record, session that last claimed the name over a dead holder
-- ARGV: ttl ms, ttl ms of a resumable session's inbox, ttl ms of its record, deadline (ms of the server's clock),
--       one lease for each name
-- Returns: for each name 1 = prolonged, 2 = Redis had lost the lease or the record, and the lease is ours again,
--          3 = a newer connection of the same session holds it, 0 = another session holds it, 4 = the lease had run
--          out, and is ours again: the inbox is kept, so nobody had freed the name and nothing is lost
local call, match = redis.call, string.match
local now = call('TIME')
if now[1] * 1000 + now[2] / 1000 > tonumber(ARGV[4]) then
  return redis.error_reply('LATE the renewal was given up before it ran')
end

-- The result for a name that another lease holds: the same session may have other flags or another generation.
local function compare(held, lease)
  local session, generation = match(held, '^%S+ (%S+) (%d+)')
  local own_session, own_generation = match(lease, '^%S+ (%S+) (%d+)')
  if session ~= own_session then
    return 0
  end
  generation, own_generation = tonumber(generation), tonumber(own_generation)
  if generation > own_generation then
    return 3
  end
  -- The same connection with other flags, or an earlier one because Redis has lost our resume.
  return generation == own_generation and 1 or 2
end

local results = {}
for i = 1, #KEYS, 4 do
  local lease = ARGV[4 + (i + 3) / 4]
  local held = call('GET', KEYS[i])
  local result = 1
  if held ~= lease then
    result = held and compare(held, lease) or 2
    -- A name that another session had claimed meanwhile is lost, even if it is free again.
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
      local kept = call('PEXPIRE', KEYS[i + 1], ARGV[2]) == 1
      if call('PEXPIRE', KEYS[i + 2], ARGV[3]) == 0 then
        result = 2
      end
      if not held and kept then
        result = 4
      end
    end
  end
  results[#results + 1] = result
end
return results
