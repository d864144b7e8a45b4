-- Writes down what the next holders of resumable sessions must know, and lets go of what their clients are known to have.
-- KEYS: presence, inbox, session record, for each session
-- ARGV: deadline (ms of the server's clock), ttl ms of a record, ttl ms of an inbox; then for each session: lease, id behind which later entries
--       come if the session is written anew or '', first id that its client may not have or '', count of fields to set, count of fields to
--       forget, (field, value)…, field…
-- Returns: for each session 1, 0 if it is somebody else's by now, or the error
local call = redis.call
local now = call('TIME')
if now[1] * 1000 + now[2] / 1000 > tonumber(ARGV[1]) then
  return redis.error_reply('LATE the note was given up before it ran')
end

-- Lua passes some thousand values at once.
local function each(command, key, first, last)
  for from = first, last, 1000 do
    call(command, key, unpack(ARGV, from, math.min(from + 999, last)))
  end
end

local function note(presence, inbox, record, at)
  if call('GET', presence) ~= ARGV[at] then
    return 0
  end
  local behind, kept = ARGV[at + 1], ARGV[at + 2]
  local set = at + 5
  local unset = set + 2 * ARGV[at + 3]
  if behind ~= '' then
    call('DEL', record)
    -- Entries that come from now on must be later than those that the session has seen.
    pcall(call, 'XADD', inbox, behind, 'behind', '')
  elseif call('EXISTS', record) == 0 then
    -- The store has forgotten it: whoever holds the session is told so by its renewal, and writes everything.
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
  -- What fails for one session must not fail for the others.
  local ok, result = pcall(note, KEYS[i], KEYS[i + 1], KEYS[i + 2], at)
  results[#results + 1] = ok and result or redis.error_reply('NOTE ' .. tostring(result))
  at = at + 5 + 2 * ARGV[at + 3] + ARGV[at + 4]
end
return results
