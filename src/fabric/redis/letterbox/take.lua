-- Carries a conversation on in place of the carrier of this epoch.
-- KEYS: record   ARGV: epoch, node, deadline (ms of the server's clock)
-- Returns: nil if it is not that one's any more, or over; else {node before, epoch, cursor, field, value…}
local now = redis.call('TIME')
if now[1] * 1000 + now[2] / 1000 > tonumber(ARGV[3]) then
  return redis.error_reply('LATE it was given up before it ran')
end
local known = redis.call('HMGET', KEYS[1], 'epoch', 'over', 'node', 'cursor')
if known[1] ~= ARGV[1] or known[2] then
  return nil
end
redis.call('HSET', KEYS[1], 'node', ARGV[2], 'number', 0)
local answer = {known[3], redis.call('HINCRBY', KEYS[1], 'epoch', 1), known[4]}
for _, word in ipairs(redis.call('HGETALL', KEYS[1])) do
  answer[#answer + 1] = word
end
return answer
