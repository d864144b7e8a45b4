-- Writes down what the next holder of a resumable session must know, and lets go of what its client is known to have.
-- KEYS: presence, inbox, session record
-- ARGV: lease, ttl ms of the record, ttl ms of the inbox, confirmed id or '', the id behind it, bytes that leave the inbox,
--       hash and session and attach and last id of a session that is written anew or four '',
--       deadline (ms of the server's clock), count of senders whose entries leave, then (sender, weight)…, count of fields to set, then (field, value)…, fields to forget…
-- Returns: 1, or 0 if the session is somebody else's by now
local call = redis.call
local now = call('TIME')
if now[1] * 1000 + now[2] / 1000 > tonumber(ARGV[11]) then
  return redis.error_reply('LATE the note was given up before it ran')
end
if call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
if ARGV[7] ~= '' then
  call('DEL', KEYS[3])
  call('HSET', KEYS[3], 'hash', ARGV[7], 'session', ARGV[8], 'attach', ARGV[9], 'confirmed', ARGV[4])
  -- Entries that come from now on must be later than those that the session has seen.
  pcall(call, 'XADD', KEYS[2], ARGV[10], 'behind', '')
elseif call('EXISTS', KEYS[3]) == 0 then
  -- The store has forgotten it: whoever holds the session is told so by its renewal, and writes everything.
  return 1
end
if ARGV[4] ~= '' then
  call('HSET', KEYS[3], 'confirmed', ARGV[4])
  call('XTRIM', KEYS[2], 'MINID', ARGV[5])
end
local function less(field, by)
  if call('HINCRBY', KEYS[3], field, -by) <= 0 then
    call('HDEL', KEYS[3], field)
  end
end
if ARGV[6] ~= '0' then
  less('bytes', ARGV[6])
end
local at = 12
for _ = 1, tonumber(ARGV[at]) do
  less('q:' .. ARGV[at + 1], ARGV[at + 2])
  at = at + 2
end
if ARGV[4] ~= '' and call('XLEN', KEYS[2]) == 0 then
  -- An empty inbox holds nobody's entries, whatever a store that has lost some of our notes believes.
  for _, field in ipairs(call('HKEYS', KEYS[3])) do
    if field == 'bytes' or string.sub(field, 1, 2) == 'q:' then
      call('HDEL', KEYS[3], field)
    end
  end
end
at = at + 1
for _ = 1, tonumber(ARGV[at]) do
  call('HSET', KEYS[3], ARGV[at + 1], ARGV[at + 2])
  at = at + 2
end
for i = at + 1, #ARGV do
  call('HDEL', KEYS[3], ARGV[i])
end
call('PEXPIRE', KEYS[3], ARGV[2])
if ARGV[7] ~= '' then
  call('PEXPIRE', KEYS[2], ARGV[3])
end
return 1
