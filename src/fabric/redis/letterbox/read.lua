-- What the client was told. A sign of life of the client.
-- KEYS: record, uplink, downlink   ARGV: hash of its secret, number of the reader, place that it has read to or '', ttl ms, count
-- Returns: 'gone', 'wrong', 'replaced', or {1 if something before is not kept any more, node, epoch, entries}
local call = redis.call
local known = call('HMGET', KEYS[1], 'hash', 'reader', 'node', 'epoch', 'over', 'trimmed', 'last')
if not known[1] then
  return 'gone'
end
if known[1] ~= ARGV[1] then
  return 'wrong'
end
if known[2] ~= ARGV[2] then
  return 'replaced'
end

local function is_before(one, other)
  local millis, sequence = string.match(one, '(%d+)-(%d+)')
  local other_millis, other_sequence = string.match(other, '(%d+)-(%d+)')
  millis, other_millis = tonumber(millis), tonumber(other_millis)
  return millis < other_millis or (millis == other_millis and tonumber(sequence) < tonumber(other_sequence))
end

local after, reset = ARGV[3], 0
if after == '' then
  after = '0-0'
end
if is_before(after, known[6] or '0-0') then
  reset = 1
elseif is_before(known[7] or '0-0', after) then
  -- Nobody was told that: it is of a store that has lost its data, or invented.
  reset, after = 1, '0-0'
end
local entries = call('XRANGE', KEYS[3], '(' .. after, '+', 'COUNT', ARGV[5])
if known[5] then
  if #entries == 0 then
    return 'gone'
  end
else
  local now = call('TIME')
  call('HSET', KEYS[1], 'seen', now[1] * 1000 + math.floor(now[2] / 1000))
  for i = 1, 3 do
    call('PEXPIRE', KEYS[i], ARGV[4])
  end
end
return {reset, known[3], known[4], entries}
