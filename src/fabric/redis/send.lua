-- Sends envelopes to whoever holds each name. What is for a plain session is published and stored nowhere; what is for a resumable one is
-- appended to its inbox, if there is room, and published. Many names in one call: what a signal costs here is above all the calls.
-- KEYS: presence of each name, then inbox of each name. A user's other keys are named after them: same slot
-- ARGV: ttl ms of an inbox, length of the prefix of keys, most entries of an inbox, its most bytes, most weight of one sender,
--       at which of sixteen ids old ones are forgotten; then for each name: channel,
--       count of envelopes (behind '!' if there is always room; before ' SESSION' if that session alone is meant),
--       and for each envelope: its text, the id under which it is delivered once or ''
-- Returns: for each name nil if there is nobody, or not the one that is meant; the holder's lease if all was accepted; or the lease and for each
--          envelope d = accepted, q = accepted while detached, D and Q = accepted before, f = full, u = nobody listens to the channel,
--          s = refused, since a later connection of its sender has spoken
local call, match, sub, byte, concat = redis.call, string.match, string.sub, string.byte, table.concat
local LARGE = 4096
local names, inbox_ttl, prefix = #KEYS / 2, ARGV[1], tonumber(ARGV[2])
local most, most_bytes, most_share = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local trim_at = tonumber(ARGV[6])
local held = call('MGET', unpack(KEYS, 1, names))

local function weight(size)
  return math.max(1, math.ceil(size / LARGE))
end

-- What an inbox holds, read entry by entry: bytes, and the weight of one sender.
local function measure(inbox, sender)
  local bytes, share = 0, 0
  for _, entry in ipairs(call('XRANGE', inbox, '-', '+')) do
    local envelope = entry[2][2]
    bytes = bytes + #envelope
    if match(envelope, '^%S+ (%S+)') == sender then
      share = share + weight(#envelope)
    end
  end
  return bytes, share
end

-- The running total of bytes up to the last entry, how many of them are in the inbox at the most, and whether it is exactly so many. Entries
-- that were appended while all were small bear no total.
local function totals(inbox)
  local after, total = 0, nil
  for _, entry in ipairs(call('XREVRANGE', inbox, '+', '-', 'COUNT', 1)) do
    total = tonumber(entry[2][4])
  end
  if not total then
    for _, entry in ipairs(call('XREVRANGE', inbox, '+', '-')) do
      total = tonumber(entry[2][4])
      if total then
        break
      end
      after = after + #entry[2][2]
    end
    total = (total or 0) + after
  end
  local first = call('XRANGE', inbox, '-', '+', 'COUNT', 1)[1]
  local before = first and tonumber(first[2][4])
  return total, before and total - before + #first[2][2] or total, before
end

-- Appends an entry. A stream that takes nothing must not fail the others of this call; a server that is full says so before the first of them.
local function add(inbox, ...)
  local id = redis.pcall('XADD', inbox, '*', ...)
  if type(id) ~= 'table' then
    return id
  elseif string.find(id.err, '^OOM') then
    error(id)
  end
end

-- A user's key of another kind.
local function key(i, kind)
  return sub(KEYS[i], 1, prefix) .. kind .. sub(KEYS[i], prefix + 2)
end

-- Appends an envelope if there is room, or always. Returns its id. While every entry is small, their count alone is bounded; from a large one on,
-- until that is confirmed, each bears the running total. The session record names the last large one.
local function append(i, envelope, always)
  local inbox, size = KEYS[names + i], #envelope
  local length, large = call('XLEN', inbox), size >= LARGE
  if not large and length < most_share and (length == 0 or not call('HGET', key(i, 's'), 'large')) then
    local id = add(inbox, 'e', envelope)
    if length == 0 then
      call('PEXPIRE', inbox, inbox_ttl)
    end
    return id
  end
  local total, bytes, exact = totals(inbox)
  if not always then
    if length >= most or (exact and bytes + size > most_bytes) then
      return nil
    end
    -- Each entry weighs less than one more than its bytes say.
    if length + 1 + (bytes + size) / LARGE > most_share then
      local share
      bytes, share = measure(inbox, match(envelope, '^%S+ (%S+)'))
      if bytes + size > most_bytes or share + weight(size) > most_share then
        return nil
      end
    end
  end
  local id = add(inbox, 'e', envelope, 't', total + size)
  if id and large and call('EXISTS', key(i, 's')) == 1 then
    call('HSET', key(i, 's'), 'large', id)
  end
  if length == 0 then
    call('PEXPIRE', inbox, inbox_ttl)
  end
  return id
end

-- What a sender has sent to be delivered once: the outcome of this id, if there is one, and the key that remembers it. A field '' bears the
-- sender's latest connection, a field ' ' says that there are older ids. (A sorted set would need no second generation, and costs more.)
local function earlier(i, envelope, id, always)
  local sender, attach = match(envelope, '^%S+ (%S+) (%d+)')
  local seen = key(i, 'd') .. ':' .. sender
  local known = call('HMGET', seen, id, '', ' ')
  local code = known[1] or (known[3] and call('HGET', seen .. ':old', id))
  if code then
    return string.upper(code)
  end
  -- A connection that its client has given up speaks late: what it says is said by the later one, if it is still meant.
  if not always and tonumber(attach) < tonumber(known[2] or 0) then
    return 's'
  end
  return nil, seen, attach
end

-- A value of over 64 bytes makes Redis keep a hash as a table at once: looking an id up in a packed list of a hundred costs more than all else.
local PADDING = string.rep(' ', 65)

local function remember(seen, id, code, attach, trim)
  attach = attach .. PADDING
  call('HSET', seen, id, code, '', attach)
  if trim and call('HLEN', seen) > 258 then
    call('RENAME', seen, seen .. ':old')
    call('PEXPIRE', seen .. ':old', 60000)
    call('HSET', seen, '', attach, ' ', 1)
  end
  call('PEXPIRE', seen, 60000)
end

local at = 7
for i = 1, names do
  local holder, channel, how = held[i], ARGV[at], ARGV[at + 1]
  local count, always, only = tonumber(how), false, ''
  if not count then
    always, count, only = match(how, '^(!?)(%d+) ?(.*)$')
    always, count = always == '!', tonumber(count)
  end
  if holder and (only == '' or string.find(holder, only, 1, true)) then
    local flag = byte(holder, -1)
    local plain, code, result, all = flag == 45, flag == 100 and 'q' or 'd', {holder}, true
    local parts = {plain and 'P ' or 'S ', plain and match(holder, '^%S+ (%S+)') or holder, '\n'}
    local kept = {}
    for n = at + 2, at + 2 * count, 2 do
      local envelope, id, told, seen, attach = ARGV[n], ARGV[n + 1], nil, nil, nil
      if id ~= '' then
        told, seen, attach = earlier(i, envelope, id, always)
      end
      if not told then
        local place = plain or append(i, envelope, always)
        told = place and code or 'f'
        if place then
          if not plain then
            parts[#parts + 1] = place
            parts[#parts + 1] = ' '
          end
          parts[#parts + 1] = envelope
          if seen then
            kept[#kept + 1] = {seen, id, code, attach, (i + n / 2) % 16 == trim_at}
          end
        end
      end
      all = all and told == code
      result[#result + 1] = told
    end
    if #parts > 3 and call('PUBLISH', channel, concat(parts)) == 0 and plain then
      all, kept = false, {}
      for n = 2, #result do
        result[n] = result[n] == code and 'u' or result[n]
      end
    end
    for _, one in ipairs(kept) do
      remember(unpack(one))
    end
    held[i] = all and holder or result
  else
    held[i] = false
  end
  at = at + 2 + 2 * count
end
return held
