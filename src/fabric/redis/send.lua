-- Sends envelopes to whoever holds each name: appends them to the inbox, and pushes them to the holder's node in one message.
-- Many names in one call where one server holds them all: what a signal costs here is above all the calls.
-- KEYS: presence of each name, then inbox of each name. A resumable user's other keys are named after them: same slot
-- ARGV: ttl ms of an inbox, ttl ms of a resumable user's inbox, length of the prefix of keys, room for entries, for bytes, for one sender,
--       to how many entries a plain user's inbox is cut, at every sixteenth name from which on,
--       then for each name: channel, envelope; or '', channel, session that alone is meant or '', count and how, envelope…
--       The short form is what most signals take: every string that the script is given costs as much as its bytes are long, twice.
--       how: + 1,000 for each hundred entries to which the inbox is to be cut (one in sixteen is: cutting costs a third of appending),
--       + 100,000: each envelope is followed by the id under which it is delivered once, or '',  + 200,000: there is always room
-- Returns: for each name nil if there is nobody, or not the one that was meant; the holder's lease if all was accepted; or the
--          lease and for each envelope d = accepted, q = accepted while detached, D and Q = accepted before, f = full, s = not accepted, since a later connection of its sender has spoken
local call, find, match, sub, byte, concat = redis.call, string.find, string.match, string.sub, string.byte, table.concat
-- So many envelopes, each smaller than so many bytes, are not counted: more than wait for a client that confirms when it is asked.
local FEW, SMALL = 96, 4096
local names = #KEYS / 2
local held = call('MGET', unpack(KEYS, 1, names))

local function key(i, kind)
  return sub(KEYS[i], 1, ARGV[3]) .. kind .. sub(KEYS[i], ARGV[3] + 2)
end

local function append(inbox, envelope, ttl)
  -- The inbox is prolonged with the lease, not with every entry.
  local id = call('XADD', inbox, 'NOMKSTREAM', '*', 'e', envelope)
  if not id then
    id = call('XADD', inbox, '*', 'e', envelope)
    call('PEXPIRE', inbox, ttl)
  end
  return id
end

-- The id of an envelope's place. A stream that takes nothing must not fail the others of this call; a server that is full says so before the
-- first of them.
local function try_append(stream, envelope, ttl)
  local taken, id = pcall(append, stream, envelope, ttl)
  if taken then
    return id
  end
  if find(type(id) == 'table' and id.err or id, '^OOM') then
    error({err = 'OOM no memory is left'})
  end
end

-- What a stream holds, and how much room it leaves: counted only where that may matter, since counting costs more than all the rest.
-- Where there is no tally and few envelopes, there surely is room for a small one.
local function measure(stream)
  local box = {stream = stream, tally = stream .. ':n', length = call('XLEN', stream)}
  box.is_counted = box.length >= FEW or call('EXISTS', box.tally) == 1
  return box
end

local function weight(size)
  return math.max(1, math.ceil(size / SMALL))
end

-- How many bytes there are, and how much of its share this sender has. A tally is of as many envelopes as it says: whoever takes some away
-- changes it, and what came without being counted is seen by the length. There are never more than there is room for.
local function counts(box, sender)
  local known = call('HMGET', box.tally, 'entries', 'bytes', sender)
  if tonumber(known[1] or -1) == box.length then
    return tonumber(known[2]), tonumber(known[3] or 0)
  end
  local bytes, shares, fields = 0, {}, {'entries', box.length}
  for _, entry in ipairs(call('XRANGE', box.stream, '-', '+')) do
    local envelope = entry[2][2]
    local from = match(envelope, '^%S+ (%S+)')
    if from then
      bytes = bytes + #envelope
      shares[from] = (shares[from] or 0) + weight(#envelope)
    end
  end
  for from, share in pairs(shares) do
    fields[#fields + 1] = from
    fields[#fields + 1] = share
  end
  call('DEL', box.tally)
  call('HSET', box.tally, 'bytes', bytes, unpack(fields))
  call('PEXPIRE', box.tally, 60000)
  return bytes, shares[sender] or 0
end

-- Appends an envelope if there is room, or it is urgent. Returns the id of its place, if it has one.
local function put(box, envelope, ttl, urgent)
  local size = #envelope
  local is_counted = not urgent and (box.is_counted or size >= SMALL)
  local sender, bytes, share
  if not urgent and box.length >= tonumber(ARGV[4]) then
    return nil
  end
  if is_counted then
    sender = match(envelope, '^%S+ (%S+)')
    bytes, share = counts(box, sender)
    bytes, share = bytes + size, share + weight(size)
    if bytes > tonumber(ARGV[5]) or share > tonumber(ARGV[6]) then
      call('PEXPIRE', box.tally, ttl)
      return nil
    end
  end
  local id = try_append(box.stream, envelope, ttl)
  if id then
    box.length = box.length + 1
  end
  if id and is_counted then
    call('HSET', box.tally, 'entries', box.length, 'bytes', bytes, sender, share)
  elseif id and size >= SMALL then
    -- To be counted when it matters.
    call('HSET', box.tally, 'entries', -1)
  end
  if is_counted or size >= SMALL then
    box.is_counted = true
    call('PEXPIRE', box.tally, ttl)
  else
    box.is_counted = box.is_counted or box.length >= FEW
  end
  return id
end

-- Where somebody is resumable: keeps within the room, and delivers once what is to be delivered once.
local function carefully(i, channel, first, count, holder, with_ids, urgent)
  local inbox, last = KEYS[names + i], sub(holder, -1)
  local resumable, now = last ~= '-', last == 'd' and 'q' or 'd'
  local box = resumable and measure(inbox)
  local result, parts, all = {holder}, {'S ', holder, '\n'}, true
  local stride = with_ids and 2 or 1
  for n = first, first + count * stride - 1, stride do
    local envelope, id, code = ARGV[n], with_ids and ARGV[n + 1] or '', nil
    local sender, attach, seen
    if id ~= '' then
      sender, attach = match(envelope, '^%S+ (%S+) (%d+)')
      seen = key(i, 'd') .. ':' .. sender
      local told = call('HMGET', seen, id, '')
      code = told[1] or call('HGET', seen .. ':old', id)
      code = code and string.upper(code)
      -- A connection that its client has given up speaks late: what it says is said by the later one, if it is still meant.
      if not code and not urgent and tonumber(attach) < tonumber(told[2] or 0) then
        code = 's'
      end
    end
    if not code then
      local entry
      if resumable then
        entry = put(box, envelope, ARGV[2], urgent)
      else
        entry = try_append(inbox, envelope, ARGV[1])
      end
      code = entry and now or 'f'
      if entry then
        local at = #parts
        parts[at + 1] = entry
        parts[at + 2] = ' '
        parts[at + 3] = envelope
      end
      if entry and id ~= '' then
        call('HSET', seen, id, code, '', attach)
        if call('HLEN', seen) > 256 then
          call('RENAME', seen, seen .. ':old')
          call('PEXPIRE', seen .. ':old', 60000)
          call('HSET', seen, '', attach)
        end
        call('PEXPIRE', seen, 60000)
      end
    end
    all = all and code == now
    result[#result + 1] = code
  end
  if #parts > 3 then
    call('PUBLISH', channel, concat(parts))
  end
  return all and holder or result, resumable
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
  if holder and (only == '' or find(holder, only, 1, true)) then
    local inbox, resumable = KEYS[names + i], false
    if stride == 2 or byte(holder, -1) ~= 45 then
      held[i], resumable = carefully(i, channel, at + 3, count, holder, stride == 2, how >= 2)
    else
      local parts = {'S ', holder, '\n'}
      for n = at + 3, at + 2 + count do
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
  return 3 + count * stride
end

local at, cut_at = 9, tonumber(ARGV[8])
for i = 1, names do
  local holder, channel = held[i], ARGV[at]
  if channel == '' then
    at = at + 1 + at_length(i, at + 1)
  else
    local envelope, inbox, id = ARGV[at + 1], KEYS[names + i], nil
    if holder and byte(holder, -1) == 45 then
      if i % 16 == cut_at then
        id = call('XADD', inbox, 'NOMKSTREAM', 'MAXLEN', '~', ARGV[7], '*', 'e', envelope)
      end
      id = id or append(inbox, envelope, ARGV[1])
    elseif holder then
      -- Where there surely is room, and an inbox already.
      if #envelope < SMALL and call('XLEN', inbox) < FEW and call('EXISTS', inbox .. ':n') == 0 then
        id = redis.pcall('XADD', inbox, 'NOMKSTREAM', '*', 'e', envelope)
        id = id and not id.err and id
      end
      if not id then
        held[i] = carefully(i, channel, at + 1, 1, holder, false, false)
      end
    end
    if id then
      call('PUBLISH', channel, 'S ' .. holder .. '\n' .. id .. ' ' .. envelope)
    end
    at = at + 2
  end
end
return held
