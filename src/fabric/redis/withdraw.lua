-- Takes back what one session has sent and what still waits for a name that nobody holds.
-- KEYS: what waits; its tally is named after it   ARGV: session of the sender
-- Returns: how many envelopes that were
local call = redis.call
local withdrawn = 0
for _, entry in ipairs(call('XRANGE', KEYS[1], '-', '+')) do
  if string.match(entry[2][2], '^%S+ (%S+)') == ARGV[1] then
    call('XDEL', KEYS[1], entry[1])
    withdrawn = withdrawn + 1
  end
end
local tally = KEYS[1] .. ':n'
if withdrawn > 0 then
  if call('XLEN', KEYS[1]) == 0 then
    call('DEL', KEYS[1], tally)
  elseif call('EXISTS', tally) == 1 then
    -- To be counted anew, should it matter.
    call('HSET', tally, 'entries', -1)
  end
end
return withdrawn
