-- Looks at a letterbox.
-- KEYS: record   ARGV: hash of its secret
-- Returns: 'gone', 'wrong', or {node, epoch, field, value…}
local known = redis.call('HMGET', KEYS[1], 'hash', 'over', 'node', 'epoch')
if not known[1] or known[2] then
  return 'gone'
end
if known[1] ~= ARGV[1] then
  return 'wrong'
end
local answer = {known[3], known[4]}
for _, word in ipairs(redis.call('HGETALL', KEYS[1])) do
  answer[#answer + 1] = word
end
return answer
