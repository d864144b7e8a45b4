-- Moves a session to a new connection that proves its secret. Nothing is addressed to earlier connections any more.
-- KEYS: presence, inbox, session record
-- ARGV: node, hash of the secret, ttl ms, ttl ms of the record, ttl ms of the inbox, deadline (ms of the server's
--       clock), id of the last entry that the client has seen or '', name of the epoch, 1 while the session's holder
--       may not have rewritten its record in this epoch yet, word of the lease with those who may call the user and a
--       space, or ''
-- Returns: 'gone', 'wrong', 'later' if the holder may yet rewrite the record, or {lease, lease before, confirmed id,
--          id of the last confirmed entry that the client was told, 1 if the record is of an earlier epoch,
--          field, value…}
local call = redis.call
local now = call('TIME')
if now[1] * 1000 + now[2] / 1000 > tonumber(ARGV[6]) then
  return redis.error_reply('LATE the resume was given up before it ran')
end
local known = call('HMGET', KEYS[3], 'session', 'hash', 'generation', 'confirmed', 'told', 'epoch')
local gone = ARGV[9] == '1' and 'later' or 'gone'
if not known[1] then
  return gone
end
if known[2] ~= ARGV[2] then
  return 'wrong'
end
local held = call('GET', KEYS[1])
local generation = held and string.match(held, '^%S+ ' .. known[1] .. ' (%d+) ')
local is_old = known[6] ~= ARGV[8]
if not generation or (is_old and ARGV[9] == '1') then
  return gone
end

local function is_before(one, other)
  local millis, sequence = string.match(one, '(%d+)-(%d+)')
  local other_millis, other_sequence = string.match(other, '(%d+)-(%d+)')
  millis, other_millis = tonumber(millis), tonumber(other_millis)
  return millis < other_millis or (millis == other_millis and tonumber(sequence) < tonumber(other_sequence))
end

local confirmed, last = known[4], ARGV[7]
local told = known[5] or confirmed
if last == '' then
  last = confirmed
end
-- An id in the future is forged or damaged. It would become the inbox's last id, and later entries could not follow it.
local millis = tonumber(string.match(last, '^%d+'))
if is_before(last, told) or millis > now[1] * 1000 + 60000 then
  return 'gone'
end
if is_old then
  -- Later entries must get higher ids than what the client has seen.
  pcall(call, 'XADD', KEYS[2], last, 'behind', '')
  call('HSET', KEYS[3], 'epoch', ARGV[8], 'missed', 1)
end

-- Higher than any generation that Redis may have lost, since receivers order a session's envelopes by it: the seconds
-- since 2025. Further resumes in one second count on.
local later = math.max(math.max(tonumber(generation), tonumber(known[3])) + 1, now[1] - 1735689600)
local lease = ARGV[1] .. ' ' .. known[1] .. ' ' .. string.format('%d', later) .. ' ' .. ARGV[10] .. 'r'
call('SET', KEYS[1], lease, 'PX', ARGV[3])
call('HSET', KEYS[3], 'generation', string.format('%d', later))
call('PEXPIRE', KEYS[3], ARGV[4])
call('PEXPIRE', KEYS[2], ARGV[5])
local answer = {lease, held, confirmed, told, is_old and 1 or 0}
for _, word in ipairs(call('HGETALL', KEYS[3])) do
  answer[#answer + 1] = word
end
return answer
