-- Whether a secret is that of the session that holds the name.
-- KEYS: presence, inbox, session record   ARGV: hash of the secret
-- Returns: 1 if it is, else 0
local known = redis.call('HMGET', KEYS[3], 'session', 'hash')
local held = redis.call('GET', KEYS[1])
if known[1] and known[2] == ARGV[1] and held and string.match(held, '^%S+ (%S+)') == known[1] then
  return 1
end
return 0
