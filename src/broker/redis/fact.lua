-- Records what happened to a session or to a call as an event, unless the other side of the call has, or the same fact
-- was recorded before. Keeps what is open, so that other nodes can end it when this node dies.
-- KEYS: events, nodes with anything open, what is open on this node, end of the session or state of the call
-- ARGV: what, node, generation, field of what is open, its text, ms of the event, users, sessions, id, reason,
--       ttl ms of all that waits, ttl ms of ends, how many events may wait; for a call: side (1 or 2) whose offer began
--       it, number of that offer, latest numbers of sides 1 and 2, kind of pair. Numbers have the same length
-- Returns: how many old events were lost for want of room
local call = redis.call
local what, node, generation, field, ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[11]
local lost = 0

local function add(kind, id, ...)
  local before = call('XLEN', KEYS[1])
  call('XADD', KEYS[1], 'MAXLEN', '=', ARGV[13], '*', 'kind', kind, 'id', id, 'at', ARGV[6], ...)
  call('PEXPIRE', KEYS[1], ttl)
  lost = lost + before + 1 - call('XLEN', KEYS[1])
end

local function open()
  call('SADD', KEYS[2], node)
  call('PEXPIRE', KEYS[2], ttl)
  call('HSET', KEYS[3], field, generation .. ' ' .. ARGV[5])
  call('PEXPIRE', KEYS[3], ttl)
end

-- A newer connection of the session, on this node too, may have opened it again.
local function close(name)
  local known = call('HGET', KEYS[3], name)
  if known and string.match(known, '^%d+') == generation then
    call('HDEL', KEYS[3], name)
  end
end

if what == 'session.started' then
  open()
  add(what, ARGV[9], 'users', ARGV[7], 'sessions', ARGV[8])
elseif what == 'session.resumed' then
  open()
elseif what == 'session.moved' then
  for name in string.gmatch(field, '%S+') do
    close(name)
  end
elseif what == 'session.ended' then
  close(field)
  if call('SET', KEYS[4], '1', 'NX', 'PX', ARGV[12]) then
    add(what, ARGV[9], 'users', ARGV[7], 'sessions', ARGV[8], 'reason', ARGV[10])
  end
else
  local side, n = tonumber(ARGV[14]), ARGV[15]
  local known = call('HMGET', KEYS[4], 'id', 'users', 'sessions', 'started', 'answered', 'pair', 'done1', 'done2',
    'latest1', 'latest2')
  local id, started, answered = known[1], known[4], known[5]
  local done, latest = {known[7] or '', known[8] or ''}, {}
  -- Before the end, only the offer that began the call counts: a later one may begin the next call.
  for i = 1, 2 do
    local told = what == 'call.ended' and ARGV[15 + i] or ''
    if i == side and n > told then
      told = n
    end
    latest[i] = known[8 + i] and known[8 + i] > told and known[8 + i] or told
  end
  local users, sessions = known[2] or ARGV[7], known[3] or ARGV[8]
  if n <= done[side] then
    -- Of a call that is over.
    close(field)
  elseif what == 'call.ended' then
    close(field)
    call('DEL', KEYS[4])
    for i = 1, 2 do
      if latest[i] < done[i] then
        latest[i] = done[i]
      end
    end
    call('HSET', KEYS[4], 'done1', latest[1], 'done2', latest[2])
    call('PEXPIRE', KEYS[4], ARGV[12])
    if id then
      add(what, 'msg_call_ended_' .. id, 'users', users, 'sessions', sessions, 'call', id, 'reason', ARGV[10],
        'started', started, 'answered', answered or '', 'pair', known[6] or '')
    end
  else
    open()
    call('HSET', KEYS[4], 'latest1', latest[1], 'latest2', latest[2])
    if not id then
      id, started = ARGV[9], ARGV[6]
      call('HSET', KEYS[4], 'id', id, 'users', users, 'sessions', sessions, 'started', started)
      -- One that is only here began long ago: Redis has lost it.
      if what ~= 'call.here' then
        add('call.started', 'msg_call_started_' .. id, 'users', users, 'sessions', sessions, 'call', id)
      end
    end
    if what == 'call.answered' and not answered then
      call('HSET', KEYS[4], 'answered', ARGV[6])
      add(what, 'msg_call_answered_' .. id, 'users', users, 'sessions', sessions, 'call', id, 'started', started)
    elseif what == 'call.connected' then
      call('HSET', KEYS[4], 'pair', ARGV[18])
    end
    call('PEXPIRE', KEYS[4], ttl)
  end
end
return lost
