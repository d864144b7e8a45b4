-- Writes down what the next holder of a resumable session must know, and lets go of what its client is known to have.
-- KEYS: presence, inbox, session record
-- ARGV: lease, ttl ms of the record, ttl ms of the inbox, confirmed id or '', the id behind it, the last of it that the client was told,
--       hash and session and attach and last id and epoch of a session that is written anew or five '',
--       deadline (ms of the server's clock), count of fields to set, then (field, value)…, fields to forget…
-- Returns: 1, or 0 if the session is somebody else's by now
local call = redis.call

local now = call('TIME')
if now[1] * 1000 + now[2] / 1000 > tonumber(ARGV[12]) then
  return redis.error_reply('LATE the note was given up before it ran')
end
if call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
if ARGV[7] ~= '' then
  call('DEL', KEYS[3])
  call('HSET', KEYS[3], 'hash', ARGV[7], 'session', ARGV[8], 'attach', ARGV[9], 'confirmed', ARGV[4], 'told', ARGV[6],
    'epoch', ARGV[11])
  -- Entries that come from now on must be later than those that the session has seen.
  pcall(call, 'XADD', KEYS[2], ARGV[10], 'behind', '')
elseif call('EXISTS', KEYS[3]) == 0 then
  -- The store has forgotten it: whoever holds the session is told so by its renewal, and writes everything.
  return 1
end
if ARGV[4] ~= '' then
  call('HSET', KEYS[3], 'confirmed', ARGV[4], 'told', ARGV[6])
  call('XTRIM', KEYS[2], 'MINID', ARGV[5])
  local large = call('HGET', KEYS[3], 'large')
  if large and #call('XRANGE', KEYS[2], large, large) == 0 then
    call('HDEL', KEYS[3], 'large')
  end
end
-- Lua passes some thousand values at once.
local function each(command, first, last)
  for from = first, last, 1000 do
    call(command, KEYS[3], unpack(ARGV, from, math.min(from + 999, last)))
  end
end
local unset = 14 + 2 * ARGV[13]
each('HSET', 14, unset - 1)
each('HDEL', unset, #ARGV)
call('PEXPIRE', KEYS[3], ARGV[2])
if ARGV[7] ~= '' then
  call('PEXPIRE', KEYS[2], ARGV[3])
end
return 1
