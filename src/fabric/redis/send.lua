-- Sends envelopes to whoever holds each name. What is for a plain session is published and stored nowhere; what is for a resumable one is
-- appended to its inbox, if there is room, and published. Many names in one call: what a signal costs here is above all the calls.
-- KEYS: presence of each name, then inbox of each name. A user's other keys are named after them: same slot
-- ARGV: ttl ms of an inbox, length of the prefix of keys, most entries of an inbox, its most bytes, most weight of one sender,
--       ms of the server's clock, at which of sixteen runs old ids are forgotten; then for each name: channel, session that alone is meant or
--       '', '!' if there is always room or '', count of runs; for each run: sender's session if it may repeat itself or '', its attach, count
--       of envelopes; for each envelope: its text, the id under which it is delivered once or ''
-- Returns: for each name nil if there is nobody, or not the one that is meant; the holder's lease if all was accepted; or the lease and for each
--          envelope d = accepted, q = accepted while detached, D and Q = accepted before, f = full, u = nobody listens to the channel,
--          s = refused, since a later connection of its sender has spoken
local call, match, sub, concat = redis.call, string.match, string.sub, table.concat
local LARGE = 4096
local names, inbox_ttl, prefix = #KEYS / 2, ARGV[1], tonumber(ARGV[2])
local most, most_bytes, most_share = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local now, trim_at = tonumber(ARGV[6]), tonumber(ARGV[7])
local held = call('MGET', unpack(KEYS, 1, names))
-- Of the name that is served: its inbox and session record, how many entries that holds, whether a large one is among them.
local inbox, record, length, large

local function weight(size)
  return math.max(1, math.ceil(size / LARGE))
end

-- What the inbox holds, read entry by entry: bytes, and the weight of one sender.
local function measure(sender)
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
local function totals()
  local after, total = 0, nil
  for _, most in ipairs({1, 4096}) do
    after = 0
    for _, entry in ipairs(call('XREVRANGE', inbox, '+', '-', 'COUNT', most)) do
      total = tonumber(entry[2][4])
      if total then
        break
      end
      after = after + #entry[2][2]
    end
    if total then
      break
    end
  end
  total = (total or 0) + after
  local first = call('XRANGE', inbox, '-', '+', 'COUNT', '1')[1]
  local before = first and tonumber(first[2][4])
  return total, before and total - before + #first[2][2] or total, before
end

-- Appends an envelope if there is room, or always. Returns its id. While every entry is small, their count alone is bounded; from a large one on,
-- until that is confirmed, each bears the running total. The session record names the last large one.
local function append(envelope, always)
  local size, total = #envelope, nil
  length = length or call('XLEN', inbox)
  if large == nil then
    -- Beside fewer than eight frames of 64 KiB a small one has room, whatever they are.
    large = length >= 8 and call('HGET', record, 'large')
  end
  if size >= LARGE or large or length >= most_share then
    local bytes, exact
    total, bytes, exact = totals()
    if not always then
      if length >= most or (exact and bytes + size > most_bytes) then
        return nil
      end
      -- Each entry weighs less than one more than its bytes say.
      if length + 1 + (bytes + size) / LARGE > most_share then
        local share
        bytes, share = measure(match(envelope, '^%S+ (%S+)'))
        if bytes + size > most_bytes or share + weight(size) > most_share then
          return nil
        end
      end
    end
    total = total + size
  end
  local entry = total and {'e', envelope, 't', total} or {'e', envelope}
  local id = redis.pcall('XADD', inbox, '*', unpack(entry))
  if type(id) == 'table' then
    -- A server that is full says so; a stream that takes nothing must not fail the others of this call.
    if string.find(id.err, '^OOM') then
      error(id)
    end
    return nil
  end
  if length == 0 then
    call('PEXPIRE', inbox, inbox_ttl)
  end
  length = length + 1
  if size >= LARGE and call('EXISTS', record) == 1 then
    call('HSET', record, 'large', id)
    large = id
  end
  return id
end

-- A value of over 64 bytes makes Redis keep a hash as a table at once: looking an id up in a packed list of a hundred costs more than all else.
local PADDING = string.rep(' ', 65)

-- What a sender has sent to be delivered once: a hash of the outcomes of its ids. Its field '' bears the sender's latest connection and when
-- the hash is to be prolonged, its field ' ' says that there are older ids. (A sorted set would need no second generation, and costs more.)
-- Returns the outcome of each id that is known, and of all others if they come late; what the field '' is to be, if not what it is.
local function earlier(seen, attach, ids)
  local known, codes = call('HMGET', seen, '', ' ', unpack(ids)), {}
  local spoken, due = match(known[1] or '', '^(%d+) (%d+)')
  spoken, due = tonumber(spoken or 0), tonumber(due or 0)
  for n, id in ipairs(ids) do
    local code = known[n + 2] or (known[2] and call('HGET', seen .. ':old', id))
    -- A connection that its client has given up speaks late: what it says is said by the later one, if it is still meant.
    codes[id] = code and string.upper(code) or (attach < spoken and 's')
  end
  if spoken ~= attach or due < now then
    return codes, string.format('%d %d%s', attach, now + 60000, PADDING)
  end
  return codes
end

local function remember(seen, head, news, trim)
  if trim and call('HLEN', seen) > 256 then
    head = head or call('HGET', seen, '')
    call('RENAME', seen, seen .. ':old')
    call('PEXPIRE', seen .. ':old', '60000')
    call('HSET', seen, ' ', '1')
  end
  if head then
    news[#news + 1] = ''
    news[#news + 1] = head
  end
  call('HSET', seen, unpack(news))
  if head then
    call('PEXPIRE', seen, '120000')
  end
end

-- A user's key of another kind.
local function key(i, kind)
  return sub(KEYS[i], 1, prefix) .. kind .. sub(KEYS[i], prefix + 2)
end

local at = 8
for i = 1, names do
  local holder, channel, only, always = held[i], ARGV[at], ARGV[at + 1], ARGV[at + 2] == '!'
  local runs, flag = tonumber(ARGV[at + 3]), holder and string.byte(holder, -1)
  local plain, code = flag == 45, flag == 100 and 'q' or 'd'
  local result, all, kept, parts = {holder}, true, {}, nil
  if holder and (only == '' or string.find(holder, only, 1, true)) then
    parts = {plain and 'P ' or 'S ', plain and match(holder, '^%S+ (%S+)') or holder, '\n'}
    inbox, record, length, large = KEYS[names + i], key(i, 's'), nil, nil
  else
    all, held[i] = false, false
  end
  at = at + 4
  for run = 1, runs do
    local sender, attach, count = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
    local codes, head, seen, news = {}, nil, nil, {}
    if parts and sender ~= '' then
      local ids = {}
      for n = 1, count do
        ids[n] = ARGV[at + 2 + 2 * n]
      end
      seen = key(i, 'd') .. ':' .. sender
      codes, head = earlier(seen, tonumber(attach), ids)
    end
    for n = at + 3, parts and at + 1 + 2 * count or 0, 2 do
      local envelope, id = ARGV[n], ARGV[n + 1]
      local told = codes[id]
      if not told then
        local place = plain or append(envelope, always)
        told = place and code or 'f'
        if place then
          if not plain then
            parts[#parts + 1] = place
            parts[#parts + 1] = ' '
          end
          parts[#parts + 1] = envelope
          if seen then
            codes[id] = string.upper(code)
            news[#news + 1] = id
            news[#news + 1] = code
          end
        end
      end
      all = all and told == code
      result[#result + 1] = told
    end
    if #news > 0 then
      kept[#kept + 1] = {seen, head, news, (i + run) % 16 == trim_at}
    end
    at = at + 3 + 2 * count
  end
  if parts then
    if #parts > 3 and call('PUBLISH', channel, concat(parts)) == 0 and plain then
      all, kept = false, {}
      for n = 2, #result do
        result[n] = result[n] == code and 'u' or result[n]
      end
    end
    for _, one in ipairs(kept) do
      remember(one[1], one[2], one[3], one[4])
    end
    held[i] = all and holder or result
  end
end
return held
