-- The carrier tells the client something, and notes how far it has come; once, however often it is repeated.
-- KEYS: record, uplink, downlink
-- ARGV: epoch, number, ttl ms, ttl ms of last words, room for entries, for bytes, place up to which everything was dealt with and the next one,
--       or '' and '', what comes then: 'on', 'handed' or 'over', count of notes, then (field, value)…, frame…
-- Returns: nil if the letterbox is somebody else's or gone; else the node of the reader or ''
local call = redis.call
local known = call('HMGET', KEYS[1], 'epoch', 'number', 'over', 'reader_node', 'down', 'up')
if known[1] ~= ARGV[1] or known[3] then
  return nil
end
local reader = known[4] or ''
if tonumber(known[2]) >= tonumber(ARGV[2]) then
  return reader
end
call('HSET', KEYS[1], 'number', ARGV[2])
local at = 11
for _ = 1, tonumber(ARGV[10]) do
  call('HSET', KEYS[1], 'n:' .. ARGV[at], ARGV[at + 1])
  at = at + 2
end
local bytes, last = tonumber(known[5] or 0), nil
for i = at, #ARGV do
  last = call('XADD', KEYS[3], '*', 'f', ARGV[i])
  bytes = bytes + #ARGV[i]
end
if last then
  local length, trimmed = call('XLEN', KEYS[3]), nil
  local function too_much()
    return length > tonumber(ARGV[5]) or (bytes > tonumber(ARGV[6]) and length > 1)
  end
  while too_much() do
    local gone = {}
    for _, entry in ipairs(call('XRANGE', KEYS[3], '-', '+', 'COUNT', 64)) do
      if not too_much() then
        break
      end
      trimmed = entry[1]
      gone[#gone + 1] = trimmed
      length, bytes = length - 1, bytes - #entry[2][2]
    end
    call('XDEL', KEYS[3], unpack(gone))
  end
  if trimmed then
    call('HSET', KEYS[1], 'trimmed', trimmed)
  end
  call('HSET', KEYS[1], 'last', last, 'down', bytes)
  call('PEXPIRE', KEYS[3], ARGV[3])
end
if ARGV[7] ~= '' then
  local heard = 0
  for _, entry in ipairs(call('XRANGE', KEYS[2], '-', ARGV[7])) do
    heard = heard + #entry[2][2]
  end
  call('XTRIM', KEYS[2], 'MINID', ARGV[8])
  call('HSET', KEYS[1], 'cursor', ARGV[7], 'up', math.max(0, (known[6] or 0) - heard))
end
if ARGV[9] == 'handed' then
  call('HSET', KEYS[1], 'node', '')
elseif ARGV[9] == 'over' then
  call('HSET', KEYS[1], 'over', 1)
  call('DEL', KEYS[2])
  call('PEXPIRE', KEYS[1], ARGV[4])
  call('PEXPIRE', KEYS[3], ARGV[4])
end
return reader
