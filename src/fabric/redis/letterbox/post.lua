-- The client says something: all of it is taken, or nothing, and under one key once.
-- KEYS: record, uplink, downlink, idempotency keys
-- ARGV: hash of its secret, ttl ms, idempotency key or '', how many keys are kept, ttl ms of them, room for entries, for bytes,
--       1 if it closes, deadline (ms of the server's clock), frame…
-- Returns: 'gone', 'wrong', or {count, node, epoch}; a count of -1: there is no room
local call = redis.call
local now = call('TIME')
if now[1] * 1000 + now[2] / 1000 > tonumber(ARGV[9]) then
  return redis.error_reply('LATE the post was given up before it ran')
end
local known = call('HMGET', KEYS[1], 'hash', 'over', 'node', 'epoch', 'up')
if not known[1] or known[2] then
  return 'gone'
end
if known[1] ~= ARGV[1] then
  return 'wrong'
end
call('HSET', KEYS[1], 'seen', now[1] * 1000 + math.floor(now[2] / 1000))
for i = 1, 3 do
  call('PEXPIRE', KEYS[i], ARGV[2])
end
local key, old = ARGV[3], KEYS[4] .. ':old'
if key ~= '' then
  local before = call('HGET', KEYS[4], key) or call('HGET', old, key)
  if before then
    return {tonumber(before), known[3], known[4]}
  end
end
local count, bytes = #ARGV - 9, 0
for i = 10, #ARGV do
  bytes = bytes + #ARGV[i]
end
-- There is always room for a goodbye.
if ARGV[8] ~= '1' and (call('XLEN', KEYS[2]) + count > tonumber(ARGV[6]) or (known[5] or 0) + bytes > tonumber(ARGV[7])) then
  return {-1, known[3], known[4]}
end
for i = 10, #ARGV do
  call('XADD', KEYS[2], '*', 'f', ARGV[i])
end
if ARGV[8] == '1' then
  call('XADD', KEYS[2], '*', 'c', '')
end
call('HINCRBY', KEYS[1], 'up', bytes)
call('PEXPIRE', KEYS[2], ARGV[2])
if key ~= '' then
  if call('HLEN', KEYS[4]) >= tonumber(ARGV[4]) then
    call('RENAME', KEYS[4], old)
    call('PEXPIRE', old, ARGV[5])
  end
  call('HSET', KEYS[4], key, count)
  call('PEXPIRE', KEYS[4], ARGV[5])
end
return {count, known[3], known[4]}
