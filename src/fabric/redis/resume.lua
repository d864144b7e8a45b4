-- Takes a session over for whoever knows its secret: from here on its earlier connections are not addressed any more.
-- KEYS: presence, inbox, session record
-- ARGV: node, hash of the secret, ttl ms, ttl ms of the record, ttl ms of the inbox, deadline (ms of the server's clock),
--       id of the last entry that the client has seen or '', 1 if a record may be older than what its client has seen
-- Returns: 'gone', 'wrong', 'later' if it is older indeed, or {lease, lease before, confirmed id, the last of it that was told,
--          1 if entries were lost, field, value…}
local now = redis.call('TIME')
if now[1] * 1000 + now[2] / 1000 > tonumber(ARGV[6]) then
  return redis.error_reply('LATE the resume was given up before it ran')
end
local known = redis.call('HMGET', KEYS[3], 'session', 'hash', 'attach', 'confirmed', 'decided', 'told', 'in_doubt')
-- A store that has lost data may soon be told of the session by whoever holds it.
local gone = ARGV[8] == '1' and 'later' or 'gone'
if not known[1] then
  return gone
end
if known[2] ~= ARGV[2] then
  return 'wrong'
end
local held = redis.call('GET', KEYS[1])
local attach = held and string.match(held, '^%S+ ' .. known[1] .. ' (%d+) ')
if not attach then
  return gone
end

local function is_before(one, other)
  local millis, sequence = string.match(one, '(%d+)-(%d+)')
  local other_millis, other_sequence = string.match(other, '(%d+)-(%d+)')
  millis, other_millis = tonumber(millis), tonumber(other_millis)
  return millis < other_millis or (millis == other_millis and tonumber(sequence) < tonumber(other_sequence))
end

local confirmed, last = known[4], ARGV[7]
local told = known[6] or confirmed
if last == '' then
  last = confirmed
end
-- Nobody has seen what the server's clock has not come to: it would leave no room for later entries.
local millis = tonumber(string.match(last, '^%d+'))
if is_before(last, told) or millis > now[1] * 1000 + 60000 then
  return 'gone'
end
-- What was confirmed behind it was nothing that a client is told.
if is_before(last, confirmed) then
  last = confirmed
end
-- Whatever was dealt with and is not confirmed is in the inbox, unless the store has lost it: then its client may not have it.
local function is_missing(id)
  return is_before(confirmed, id) and #redis.call('XRANGE', KEYS[2], id, id) == 0
end
local decided, lost = known[5] or '0-0', 0
local unknown = is_before(decided, last) and is_missing(last)
if unknown or (is_before(last, decided) and is_missing(decided)) then
  -- Whoever held the session may know it still.
  if ARGV[8] == '1' then
    return 'later'
  end
  lost = 1
  -- Later entries must come behind what the client has seen.
  pcall(redis.call, 'XADD', KEYS[2], last, 'behind', '')
  redis.call('HSET', KEYS[3], 'missed', 1)
end

-- What the client was told and may not have seen, and a store had lost: it is sent again, if whoever sent it lives.
local in_doubt = {}
for id in string.gmatch(known[7] or '', '%S+') do
  if is_before(last, id) and is_missing(id) then
    in_doubt[#in_doubt + 1] = id
  end
end
if #in_doubt > 0 and ARGV[8] == '1' then
  return 'later'
elseif #in_doubt == 0 then
  redis.call('HDEL', KEYS[3], 'in_doubt')
end

-- Later than any that the store may have lost: what a session says is in order by it. A second has one resume, and the next ones count on.
local later = math.max(math.max(tonumber(attach), tonumber(known[3])) + 1, now[1] - 1735689600)
local lease = ARGV[1] .. ' ' .. known[1] .. ' ' .. string.format('%d', later) .. ' r'
redis.call('SET', KEYS[1], lease, 'PX', ARGV[3])
redis.call('HSET', KEYS[3], 'attach', string.match(lease, '(%d+) r$'))
redis.call('PEXPIRE', KEYS[3], ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[5])
local answer = {lease, held, confirmed, told, lost}
for _, word in ipairs(redis.call('HGETALL', KEYS[3])) do
  answer[#answer + 1] = word
end
return answer
