-- Sends envelopes to the holders of names. Envelopes for a plain session are published and not stored. Envelopes for a
-- resumable one are appended to its inbox, if there is room, and published. One call serves many names, since most of
-- what a signal costs is the call.
-- KEYS: presence of each name, then inbox of each name. The names of a user's other keys derive from these: same slot
-- ARGV: ttl ms of an inbox, length of the prefix of keys, limits of an inbox: entries, bytes, weight of a lone
--       sender; then for each name: channel, only session that may receive or '', '!' to ignore the limits and who may
--       call or '+' from who is in a call with the user or '', count of envelopes, envelope…
-- Returns: for each name nil if nobody holds it, or another session than the only one; the holder's lease if all was
--          accepted; or the lease and for each envelope d = accepted, f = full, u = no subscriber to the channel,
--          n = the sender is not among those who may call the user; if it is known who may call a user whose name
--          nobody holds, '' and for each envelope n, or a = absent
local call, match, sub, concat = redis.call, string.match, string.sub, table.concat
local LARGE = 4096
local names, inbox_ttl, prefix = #KEYS / 2, ARGV[1], tonumber(ARGV[2])
local most, most_bytes, most_share = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local held = call('MGET', unpack(KEYS, 1, names))
-- About the current name: its inbox and session record, the count of entries, and the last large one, if any.
local inbox, record, length, large

-- As InboxLimits::weight.
local function weight(size)
  return math.max(1, math.ceil(size / LARGE))
end

-- Reads the whole inbox: its bytes, its weight, and the weight of one sender.
local function measure(sender)
  local bytes, all, share = 0, 0, 0
  for _, entry in ipairs(call('XRANGE', inbox, '-', '+')) do
    local envelope = entry[2][2]
    bytes, all = bytes + #envelope, all + weight(#envelope)
    if match(envelope, '^%S+ (%S+)') == sender then
      share = share + weight(#envelope)
    end
  end
  return bytes, all, share
end

-- Returns the running total of bytes up to the last entry, an upper bound of the bytes in the inbox, and whether the
-- bound is exact. Entries that were appended while all were small carry no total.
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

-- Appends an envelope if there is room, or always. Returns its id, or nil. While all entries are small, only their
-- count is limited. From a large one on, until it is confirmed, each entry carries the running total of bytes, so that
-- the limit of bytes can be checked without reading the inbox. The session record names the last large entry.
local function append(envelope, always)
  local size, total = #envelope, nil
  length = length or call('XLEN', inbox)
  if large == nil then
    -- A small entry always has room beside fewer than eight frames of 64 KiB.
    large = length >= 8 and call('HGET', record, 'large')
  end
  if size >= LARGE or large or length >= most_share then
    local bytes, exact
    total, bytes, exact = totals()
    if not always then
      if length >= most or (exact and bytes + size > most_bytes) then
        return nil
      end
      -- A sender may have as much as it leaves free: see InboxLimits. All together it is less than that while it is
      -- within the share of one. The weight of an entry is less than its bytes / LARGE + 1: read the inbox only if
      -- that bound is exceeded.
      if length + 1 + (bytes + size) / LARGE > most_share then
        local all, share
        bytes, all, share = measure(match(envelope, '^%S+ (%S+)'))
        if bytes + size > most_bytes or share + all + 2 * weight(size) > 2 * most_share then
          return nil
        end
      end
    end
    total = total + size
  end
  local entry = total and {'e', envelope, 't', total} or {'e', envelope}
  local id = redis.pcall('XADD', inbox, '*', unpack(entry))
  if type(id) == 'table' then
    -- Out of memory fails the whole call. Any other error is of this inbox alone, and must not fail the other names.
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

-- The user's key of another kind.
local function key(i, kind)
  return sub(KEYS[i], 1, prefix) .. kind .. sub(KEYS[i], prefix + 2)
end

-- Whether one of these patterns covers the name of the envelope's sender.
local function may_call(names, envelope)
  local sender = match(envelope, '^%S+ %S+ %S+ %S+ [^/ ]*/(%S+)') or ''
  for name in string.gmatch(names, '[^,]+') do
    local start = match(name, '^(.*)%*$')
    if name == sender or (start and sub(sender, 1, #start) == start) then
      return true
    end
  end
  return false
end

local at = 6
for i = 1, names do
  local holder, channel, only, way = held[i], ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local always = way == '!'
  local count = tonumber(ARGV[at + 3])
  if not holder or (only ~= '' and not string.find(holder, only, 1, true)) then
    held[i] = false
    -- Whoever may not call the user learns nothing from an absence.
    local callers = not holder and only == '' and way == '' and call('GET', key(i, 'b'))
    if callers then
      held[i] = {''}
      for n = at + 4, at + 3 + count do
        held[i][n - at - 2] = may_call(match(callers, '^c=(%S*)'), ARGV[n]) and 'a' or 'n'
      end
    end
  else
    -- The flags of a plain session are '-' (45).
    local plain = string.byte(holder, -1) == 45
    local result, all = {holder}, true
    local parts = {plain and 'P ' or 'S ', plain and match(holder, '^%S+ (%S+)') or holder, '\n'}
    inbox, record, length, large = KEYS[names + i], key(i, 's'), nil, nil
    local refused = nil
    local callers = way == '' and string.find(holder, ' c=', 1, true) and match(holder, ' c=(%S*) ')
    for n = at + 4, at + 3 + count do
      local envelope = ARGV[n]
      -- What is behind an envelope that found no room must not overtake it if its sender repeats it.
      local is_behind = refused and refused[match(envelope, '^%S+ (%S+)')]
      local forbidden = callers and not may_call(callers, envelope)
      local place = not forbidden and (plain or not is_behind and append(envelope, always))
      if not place and not forbidden then
        refused = refused or {}
        refused[match(envelope, '^%S+ (%S+)')] = true
      end
      if place and not plain then
        parts[#parts + 1] = place
        parts[#parts + 1] = ' '
      end
      if place then
        parts[#parts + 1] = envelope
      end
      all = all and place
      result[#result + 1] = forbidden and 'n' or place and 'd' or 'f'
    end
    if #parts > 3 and call('PUBLISH', channel, concat(parts)) == 0 and plain then
      all = false
      for n = 2, #result do
        result[n] = result[n] == 'd' and 'u' or result[n]
      end
    end
    held[i] = all and holder or result
  end
  at = at + 4 + count
end
return held
