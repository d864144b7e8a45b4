-- Updates the records of resumable sessions, and removes confirmed entries from their inboxes.
-- KEYS: for each session: presence, inbox, session record
-- ARGV: deadline (ms of the server's clock), ttl ms of a record, ttl ms of an inbox; then for each session: lease,
--       id that later entries must exceed if the record is rewritten or '', first unconfirmed id or '', count of
--       fields to set, count of fields to delete, (field, value)…, field…
-- Returns: for each session 1, 0 if another session or connection holds the name, or the error
local call = redis.call
local now = call('TIME')
if now[1] * 1000 + now[2] / 1000 > tonumber(ARGV[1]) then
  return redis.error_reply('LATE the update was given up before it ran')
end

-- Lua's unpack is limited to some thousand values.
local function each(command, key, first, last)
  for from = first, last, 1000 do
    call(command, key, unpack(ARGV, from, math.min(from + 999, last)))
  end
end

local function save(presence, inbox, record, at)
  if call('GET', presence) ~= ARGV[at] then
    return 0
  end
  local behind, kept = ARGV[at + 1], ARGV[at + 2]
  local set = at + 5
  local unset = set + 2 * ARGV[at + 3]
  if behind ~= '' then
    call('DEL', record)
    -- Later entries must get higher ids than those that the session has seen.
    pcall(call, 'XADD', inbox, behind, 'behind', '')
  elseif call('EXISTS', record) == 0 then
    -- Redis has lost the record. The holder learns that by its renewal, and rewrites the whole record.
    return 1
  end
  each('HSET', record, set, unset - 1)
  each('HDEL', record, unset, unset + ARGV[at + 4] - 1)
  if behind ~= '' then
    call('PEXPIRE', record, ARGV[2])
    call('PEXPIRE', inbox, ARGV[3])
  end
  if kept ~= '' then
    call('XTRIM', inbox, 'MINID', kept)
    local large = call('HGET', record, 'large')
    if large and #call('XRANGE', inbox, large, large) == 0 then
      call('HDEL', record, 'large')
    end
  end
  return 1
end

local results, at = {}, 4
for i = 1, #KEYS, 3 do
  -- An error of one session must not fail the others.
  local ok, result = pcall(save, KEYS[i], KEYS[i + 1], KEYS[i + 2], at)
  results[#results + 1] = ok and result or redis.error_reply('SAVE ' .. tostring(result))
  at = at + 5 + 2 * ARGV[at + 3] + ARGV[at + 4]
end
return results
