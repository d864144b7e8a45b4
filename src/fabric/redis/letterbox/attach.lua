-- The client begins to read, in place of any earlier reader.
-- KEYS: record   ARGV: hash of its secret, node of the reader, deadline (ms of the server's clock)
-- Returns: 'gone', 'wrong', or {number of the reader, node of the reader before or ''}
local now = redis.call('TIME')
if now[1] * 1000 + now[2] / 1000 > tonumber(ARGV[3]) then
  return redis.error_reply('LATE the reader was given up before it began')
end
local known = redis.call('HMGET', KEYS[1], 'hash', 'reader_node')
if not known[1] then
  return 'gone'
end
if known[1] ~= ARGV[1] then
  return 'wrong'
end
redis.call('HSET', KEYS[1], 'reader_node', ARGV[2])
return {redis.call('HINCRBY', KEYS[1], 'reader', 1), known[2] or ''}
