-- Sends envelopes to whoever holds each name: appends them to the inbox, and pushes them to the holder's node in one message.
-- Many names in one call where one server holds them all: what a signal costs here is above all the calls.
-- KEYS: presence of each name, then inbox of each name
-- ARGV: ttl ms of an inbox, then for each name: channel, session that alone is meant or '', count, envelope…;
--       a count of N thousands more: cut the inbox to N hundred entries. One in sixteen does: cutting costs a third of appending
-- Returns: for each name the holder's lease, or nil if there is nobody, or not the one that was meant
local call, find, concat = redis.call, string.find, table.concat
local names = #KEYS / 2
local held = call('MGET', unpack(KEYS, 1, names))

local function append(inbox, envelope)
  -- The inbox is prolonged with the lease, not with every entry.
  local id = call('XADD', inbox, 'NOMKSTREAM', '*', 'e', envelope)
  if not id then
    id = call('XADD', inbox, '*', 'e', envelope)
    call('PEXPIRE', inbox, ARGV[1])
  end
  return id
end

local at = 2
for i = 1, names do
  local holder, only, count = held[i], ARGV[at + 1], tonumber(ARGV[at + 2])
  local cut = 0
  if count >= 1000 then
    count, cut = count % 1000, (count - count % 1000) / 10
  end
  if holder and (only == '' or find(holder, only, 1, true)) then
    local inbox, push = KEYS[names + i], nil
    if count == 1 then
      push = 'S ' .. holder .. '\n' .. append(inbox, ARGV[at + 3]) .. ' ' .. ARGV[at + 3]
    else
      local parts = {'S ', holder, '\n'}
      for n = at + 3, at + 2 + count do
        local end_of_parts = #parts
        parts[end_of_parts + 1] = append(inbox, ARGV[n])
        parts[end_of_parts + 2] = ' '
        parts[end_of_parts + 3] = ARGV[n]
      end
      push = concat(parts)
    end
    if cut > 0 then
      call('XTRIM', inbox, 'MAXLEN', '~', cut)
    end
    call('PUBLISH', ARGV[at], push)
  else
    held[i] = false
  end
  at = at + 3 + count
end
return held
