-- Takes back what waits for a name that nobody holds.
-- KEYS: what waits; its tally is named after it   ARGV: session of the sender, ids…
-- Returns: how many of them were still waiting
local call = redis.call
local queue, tally, withdrawn = KEYS[1], KEYS[1] .. ':n', 0
for i = 2, #ARGV do
  local entry = call('XRANGE', queue, ARGV[i], ARGV[i])[1]
  if entry then
    local size = #entry[2][2]
    call('XDEL', queue, ARGV[i])
    call('HINCRBY', tally, 'bytes', -size)
    call('HINCRBY', tally, 'q:' .. ARGV[1], -math.max(1, math.ceil(size / 4096)))
    withdrawn = withdrawn + 1
  end
end
if withdrawn > 0 and call('XLEN', queue) == 0 then
  call('DEL', queue, tally)
end
return withdrawn
