-- Claims a name that is free, or whose holder is known to be dead. The new session starts with an empty inbox.
-- KEYS: presence, inbox, session record, session that last claimed the name over a dead holder, reservation, who may
--       call the user
-- ARGV: lease, ttl ms, lease of the dead holder or '', deadline (ms of the server's clock), hash of the secret of a
--       resumable session or '', session, ttl ms of the record, name of the epoch, proof of who claims or ''
-- Returns: nil if won, else the holder's lease, or for how many ms the name is reserved for somebody else
local now = redis.call('TIME')
if now[1] * 1000 + now[2] / 1000 > tonumber(ARGV[4]) then
  return redis.error_reply('LATE the claim was given up before it ran')
end
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[3] then
  return held
end
local reserved = redis.call('GET', KEYS[5])
if reserved and reserved ~= ARGV[9] then
  return math.max(1, redis.call('PTTL', KEYS[5]))
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
-- Behind the SET: Redis refuses no write for want of memory once a script has written.
redis.call('DEL', KEYS[2], KEYS[3], KEYS[5], KEYS[6])
if held or redis.call('EXISTS', KEYS[4]) == 1 then
  -- The dead holder's node may only be cut off. If it comes back after this claim has ended, its session must not take
  -- the name back (renew.lua): what was sent to the session is gone.
  redis.call('SET', KEYS[4], ARGV[6], 'PX', ARGV[7])
end
if ARGV[5] ~= '' then
  redis.call('HSET', KEYS[3], 'session', ARGV[6], 'hash', ARGV[5], 'generation', 0, 'confirmed', '0-0',
    'epoch', ARGV[8], 'since', now[1])
  redis.call('PEXPIRE', KEYS[3], ARGV[7])
end
return false
