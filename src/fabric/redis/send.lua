-- Sends an envelope to whoever holds the name: appends it to the inbox, and pushes it to the holder's node.
-- KEYS: presence, inbox   ARGV: envelope, channel, session that alone is meant or ''
-- Returns: the holder's lease, or nil if there is nobody, or not the one that was meant
local held = redis.call('GET', KEYS[1])
if not held then
  return false
end
local session = string.match(held, ' (%x+) ')
if ARGV[3] ~= '' and ARGV[3] ~= session then
  return false
end
local id = redis.call('XADD', KEYS[2], 'MAXLEN', '~', '256', '*', 'e', ARGV[1])
redis.call('PEXPIRE', KEYS[2], '60000')
redis.call('PUBLISH', ARGV[2], id .. ' ' .. session .. ' ' .. ARGV[1])
return held
