-- Sends envelopes to whoever holds each name: appends them to the inbox, and pushes them to the holder's node in one message.
-- Many names in one call where one server holds them all: the call itself is the dearest part of a signal.
-- KEYS: presence, inbox for each name
-- ARGV: ttl ms of an inbox, then for each name: channel, session that alone is meant or '', count, envelope…
-- Returns: for each name the holder's lease, or nil if there is nobody, or not the one that was meant
local call = redis.call
local results = {}
local at = 2
for i = 1, #KEYS, 2 do
  local channel, only, count = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local held = call('GET', KEYS[i])
  if held and (only == '' or string.find(held, only, 1, true)) then
    local inbox = KEYS[i + 1]
    local push = {'S ', held, '\n'}
    for envelope = at + 3, at + 2 + count do
      -- The inbox is prolonged with the lease, not with every entry.
      local id = call('XADD', inbox, 'NOMKSTREAM', 'MAXLEN', '~', '256', '*', 'e', ARGV[envelope])
      if not id then
        id = call('XADD', inbox, '*', 'e', ARGV[envelope])
        call('PEXPIRE', inbox, ARGV[1])
      end
      push[#push + 1] = id
      push[#push + 1] = ' '
      push[#push + 1] = ARGV[envelope]
    end
    call('PUBLISH', channel, table.concat(push))
    results[#results + 1] = held
  else
    results[#results + 1] = false
  end
  at = at + 3 + count
end
return results
