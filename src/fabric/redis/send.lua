-- Sends envelopes to whoever holds each name: appends them to the inbox, and pushes them to the holder's node in one message.
-- Many names in one call where one server holds them all: what a signal costs here is above all the calls.
-- KEYS: presence of each name, then inbox of each name. A resumable user's other keys are named after them: same slot
-- ARGV: ttl ms of an inbox, ttl ms of a resumable user's inbox, length of the prefix of keys, room for entries, for bytes, for one sender,
--       to how many entries a plain user's inbox is cut, at every sixteenth name from which on,
--       then for each name: channel, envelope; or '', channel, session that alone is meant or '', count and how, envelope…
--       The short form is what most signals take: every string that the script is given costs as much as its bytes are long, twice.
--       how: + 1,000 for each hundred entries to which the inbox is to be cut (one in sixteen is: cutting costs a third of appending),
--       + 100,000: each envelope is followed by the id under which it is delivered once, or '',  + 200,000: there is always room,
--       + 400,000: if there is nobody it waits, and how many ms is said before the envelopes
-- Returns: for each name nil if there is nobody, or not the one that was meant; '' and for each envelope the id of its place, or f, if it waits;
--          the holder's lease if all was accepted; or, of a resumable
--          holder or sender, the lease and for each envelope d = accepted, q = accepted while detached, D and Q = accepted before, f = full,
--          s = not accepted, since a later connection of its sender has spoken
local call, find, byte, concat = redis.call, string.find, string.byte, table.concat
local names = #KEYS / 2
local held = call('MGET', unpack(KEYS, 1, names))

local function append(inbox, envelope, ttl)
  -- The inbox is prolonged with the lease, not with every entry.
  local id = call('XADD', inbox, 'NOMKSTREAM', '*', 'e', envelope)
  if not id then
    id = call('XADD', inbox, '*', 'e', envelope)
    call('PEXPIRE', inbox, ttl)
  end
  return id
end

-- Where somebody is resumable: keeps within the room, and delivers once what is to be delivered once.
local function carefully(i, channel, first, count, holder, with_ids, urgent)
  local presence, inbox = KEYS[i], KEYS[names + i]
  local function key(kind)
    return string.sub(presence, 1, ARGV[3]) .. kind .. string.sub(presence, ARGV[3] + 2)
  end
  local resumable = string.sub(holder, -1) ~= '-'
  local now = string.sub(holder, -1) == 'd' and 'q' or 'd'
  local record, entries, known = key('s'), 0, false
  if resumable then
    entries = call('XLEN', inbox)
    known = call('HEXISTS', record, 'session') == 1
  end
  local result, parts = {holder}, {'S ', holder, '\n'}
  local stride = with_ids and 2 or 1
  for n = first, first + count * stride - 1, stride do
    local envelope, id, code = ARGV[n], with_ids and ARGV[n + 1] or '', nil
    local sender, attach = string.match(envelope, '^%S+ (%S+) (%d+)')
    local seen = key('d') .. ':' .. sender
    if id ~= '' then
      local told = call('HMGET', seen, id, '')
      code = told[1] or call('HGET', seen .. ':old', id)
      code = code and string.upper(code)
      -- A connection that its client has given up speaks late: what it says is said by the later one, if it is still meant.
      if not code and not urgent and tonumber(attach) < tonumber(told[2] or 0) then
        code = 's'
      end
    end
    local size = #envelope
    local weight = math.max(1, math.ceil(size / 4096))
    if not code and resumable and not urgent then
      local filled = call('HMGET', record, 'bytes', 'q:' .. sender)
      if entries >= tonumber(ARGV[4]) or (filled[1] or 0) + size > tonumber(ARGV[5]) or (filled[2] or 0) + weight > tonumber(ARGV[6]) then
        code = 'f'
      end
    end
    local entry
    if not code then
      -- An inbox that takes nothing must not fail the others of this call. A server that is full says so before the first of them.
      local taken, answer = pcall(append, inbox, envelope, resumable and ARGV[2] or ARGV[1])
      if taken then
        entry = answer
      elseif find(type(answer) == 'table' and answer.err or answer, '^OOM') then
        error({err = 'OOM no memory is left'})
      else
        code = 'f'
      end
    end
    if entry then
      code = now
      parts[#parts + 1] = entry
      parts[#parts + 1] = ' '
      parts[#parts + 1] = envelope
      entries = entries + 1
      if known then
        call('HINCRBY', record, 'bytes', size)
        call('HINCRBY', record, 'q:' .. sender, weight)
      end
      if id ~= '' then
        call('HSET', seen, id, code)
        if call('HLEN', seen) >= 256 then
          call('RENAME', seen, seen .. ':old')
          call('PEXPIRE', seen .. ':old', 60000)
        else
          call('PEXPIRE', seen, 60000)
        end
        if attach ~= '0' then
          call('HSET', seen, '', attach)
          call('PEXPIRE', seen, 60000)
        end
      end
    end
    result[#result + 1] = code
  end
  if #parts > 3 then
    call('PUBLISH', channel, concat(parts))
  end
  return result, resumable
end

-- Nobody has the name: what is sent waits for whoever claims it, in the half of the room of an inbox.
local function wait(i, first, count, stride, ttl)
  local queue = string.sub(KEYS[i], 1, ARGV[3]) .. 'q' .. string.sub(KEYS[i], ARGV[3] + 2)
  local tally = queue .. ':n'
  local entries, result = call('XLEN', queue), {''}
  for n = first, first + count * stride - 1, stride do
    local envelope, code = ARGV[n], 'f'
    local sender = string.match(envelope, '^%S+ (%S+)')
    local size = #envelope
    local weight = math.max(1, math.ceil(size / 4096))
    local filled = call('HMGET', tally, 'bytes', 'q:' .. sender)
    if entries < ARGV[4] / 2 and (filled[1] or 0) + size <= ARGV[5] / 2 and (filled[2] or 0) + weight <= ARGV[6] / 2 then
      local taken, id = pcall(call, 'XADD', queue, '*', 'e', envelope)
      if taken then
        code, entries = id, entries + 1
        call('HINCRBY', tally, 'bytes', size)
        call('HINCRBY', tally, 'q:' .. sender, weight)
        call('PEXPIRE', queue, ttl)
        call('PEXPIRE', tally, ttl)
      end
    end
    result[#result + 1] = code
  end
  return result
end

-- Any number of envelopes, however they are to be carried. Returns how many arguments they took.
local function at_length(i, at)
  local holder, channel, only, count = held[i], ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local how, cut, stride = 0, 0, 1
  if count >= 1000 then
    how = math.floor(count / 100000)
    count = count % 100000
    count, cut = count % 1000, (count - count % 1000) / 10
    stride = how % 2 == 1 and 2 or 1
  end
  local waits = how >= 4 and 1 or 0
  if not holder and waits == 1 and only == '' then
    held[i] = wait(i, at + 4, count, stride, ARGV[at + 3])
  elseif holder and (only == '' or find(holder, only, 1, true)) then
    local inbox, resumable = KEYS[names + i], false
    if stride == 2 or byte(holder, -1) ~= 45 then
      held[i], resumable = carefully(i, channel, at + 3 + waits, count, holder, stride == 2, how % 4 >= 2)
    else
      local parts = {'S ', holder, '\n'}
      for n = at + 3 + waits, at + 2 + waits + count do
        local end_of_parts = #parts
        parts[end_of_parts + 1] = append(inbox, ARGV[n], ARGV[1])
        parts[end_of_parts + 2] = ' '
        parts[end_of_parts + 3] = ARGV[n]
      end
      call('PUBLISH', channel, concat(parts))
    end
    if cut > 0 and not resumable then
      call('XTRIM', inbox, 'MAXLEN', '~', cut)
    end
  else
    held[i] = false
  end
  return 3 + waits + count * stride
end

local at, cut_at = 9, tonumber(ARGV[8])
for i = 1, names do
  local holder, channel, envelope = held[i], ARGV[at], ARGV[at + 1]
  if channel == '' then
    at = at + 1 + at_length(i, at + 1)
  else
    at = at + 2
    if holder and byte(holder, -1) ~= 45 then
      held[i] = carefully(i, channel, at - 1, 1, holder, false, false)
    elseif holder then
      local inbox, id = KEYS[names + i], nil
      if i % 16 == cut_at then
        id = call('XADD', inbox, 'NOMKSTREAM', 'MAXLEN', '~', ARGV[7], '*', 'e', envelope)
      end
      id = id or append(inbox, envelope, ARGV[1])
      call('PUBLISH', channel, 'S ' .. holder .. '\n' .. id .. ' ' .. envelope)
    end
  end
end
return held
