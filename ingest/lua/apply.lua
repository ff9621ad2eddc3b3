-- APPLY: take a run of events, in offset order.
-- ARGV[3] MessagePack list of events (see `row_of` in store.py), ARGV[4] how many parts ticks may move.
-- Returns {'OK', events taken, applied, ready, outbox, next due or ''}; fewer events taken than given means
-- that a tick was cut into slices: call again from there, `applied` has not moved past it.
--
-- This is `ingest/joiner.py` once more; both pass one contract suite.
local RECORDS_MAX = 32

local problem = guard()
if problem then return {problem} end

local in_force = redis.call('HGET', meta, 'policy')
local applied = tonumber(redis.call('HGET', meta, 'applied'))
local budget = tonumber(ARGV[4])
local bodies, states, touched = {}, {}, {}

-- What the run writes, one command a key at `flush`: a command from a script costs a microsecond.
local writes = {}
local WRITE_ARGUMENTS = 1000

local function write(command, key, a, b)
  local w = writes[key]
  if not w then
    w = {command, key}
    writes[key] = w
  end
  w[#w + 1], w[#w + 2] = a, b
  if #w >= WRITE_ARGUMENTS then
    redis.call(unpack(w))
    writes[key] = nil
  end
end

local function policy_of(digest)
  if not bodies[digest] then
    bodies[digest] = cjson.decode(redis.call('HGET', policies, digest))
  end
  return bodies[digest]
end

local function state_of(part)
  if states[part] == nil then
    local packed = redis.call('HGET', parts, part)
    states[part] = packed and cmsgpack.unpack(packed) or false
  end
  return states[part]
end

local marked, revisions = {}, {}

local function marker_of(part)
  if marked[part] == nil then
    marked[part] = number(redis.call('ZSCORE', markers, part), false)
  end
  return marked[part]
end

local function published_of(part)
  if revisions[part] == nil then
    revisions[part] = number(redis.call('HGET', published, part), 0)
  end
  return revisions[part]
end

-- All that is known of the run's parts, in three commands.
local function look_up(rows)
  local names, known = {}, {}
  for _, row in ipairs(rows) do
    local part = row[4]
    if row[1] == 'capture' and not known[part] then
      known[part] = true
      names[#names + 1] = part
    end
  end
  if #names == 0 then return end
  local packed = redis.call('HMGET', parts, unpack(names))
  local openings = redis.call('ZMSCORE', markers, unpack(names))
  local highest = redis.call('HMGET', published, unpack(names))
  for i, part in ipairs(names) do
    states[part] = packed[i] and cmsgpack.unpack(packed[i]) or false
    marked[part] = number(openings[i], false)
    revisions[part] = number(highest[i], 0)
  end
end

local function store(part, s)
  states[part] = s
  touched[part] = true
end

-- The part's state, which reaches to `offset` now: see `_spanning` in joiner.py.
local function spanning(part, offset)
  local s = state_of(part)
  if s then
    s.last = offset
    store(part, s)
  end
  return s
end

local function has(list, name)
  for _, held in ipairs(list) do
    if held == name then return true end
  end
  return false
end

local function plus(list, name)
  if not has(list, name) then list[#list + 1] = name end
end

local function refuse(offset, field, reason)
  redis.call('ZADD', outbox, offset, cjson.encode({offset, field, reason}))
end

-- Lua compares strings by the server's locale; evidence is the same bytes everywhere.
local function bytewise(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = a:byte(i), b:byte(i)
    if x ~= y then return x < y end
  end
  return #a < #b
end

local function freeze(part, s, offset, ts, closing)
  s.rev = s.rev + 1
  if s.rev <= published_of(part) then return end
  local names, bodies_, missing = {}, {}, {}
  for item in pairs(s.items) do names[#names + 1] = item end
  table.sort(names, bytewise)
  for _, item in ipairs(names) do bodies_[#bodies_ + 1] = s.items[item][3] end
  for _, item in ipairs(policy_of(s.pol).products[s.product].expected) do
    if not s.items[item] then missing[#missing + 1] = item end
  end
  table.sort(missing, bytewise)
  local member = part .. '#' .. s.rev
  write('HSET', evidence, member, cmsgpack.pack({
    product = s.product, closed = closing, head = s.head, alias = s.alias, policy = s.pol,
    opened_offset = s.off, opened_at_ms = s.ts, closed_offset = offset, closed_at_ms = ts,
    names = names, items = bodies_, missing = missing, late = s.late, superseded = s.sup,
    gap_ids = s.gaps,
  }))
  write('ZADD', ready, offset, member)
end

local function due_of(s)
  if s.open then return s.dl end
  return s.hz
end

local function refusal(s, e, marker, policy)
  local owner = policy.stations[e.item]
  if not owner then
    return 'modality', 'no in-line station publishes ' .. e.item
      .. '; declare it in the line file'
  end
  if owner ~= e.station then
    return 'station', e.item .. ' belongs to station ' .. owner
      .. '; give each station its own modality'
  end
  if not policy.products[e.product] then
    return 'product', e.product .. ' is not a product of this line; declare it in the line file'
  end
  if s then
    if s.product ~= e.product then
      return 'product', 'this part opened as ' .. s.product .. '; correct the station'
    end
    return nil
  end
  if e.captured < e.ts - policy.retention_ms then
    return 'captured_at_ns', "older than the log's retention; correct the station's clock"
  end
  if marker and e.offset ~= marker then
    return 'part',
      'came after the late-data horizon; raise late_horizon_ms or use a new pass'
  end
  return nil
end

local function beyond_bounds(s, revise)
  if s.n >= RECORDS_MAX then
    return 'part', 'has ' .. RECORDS_MAX .. ' records already; use a new pass'
  end
  if revise and s.rev >= REVISIONS_MAX then
    return 'part', 'has ' .. REVISIONS_MAX .. ' revisions; use a new pass'
  end
  return nil
end

local function opened(e, policy)
  local joining = policy.products[e.product]
  local deadline = e.ts + joining.deadline_ms
  return {
    open = true, product = e.product, pol = in_force, head = e.head, off = e.offset, ts = e.ts,
    dl = deadline, hz = deadline + joining.late_horizon_ms, last = e.offset, rev = 0, n = 0,
    alias = '', items = {}, seen = {}, sup = {}, late = {}, gaps = {},
  }
end

local function is_complete(s, item, policy)
  for _, expected in ipairs(policy.products[s.product].expected) do
    if expected ~= item and not s.items[expected] then return false end
  end
  return true
end

local function capture(row)
  local e = {offset = row[2], ts = row[3], product = row[5], station = row[6], item = row[7],
    sequence = row[8], event_id = row[9], captured = row[10], head = row[11], body = row[12]}
  local part, gaps = row[4], row[13]
  local s = spanning(part, e.offset)
  local policy = policy_of(s and s.pol or in_force)
  local marker = not s and marker_of(part)
  local field, reason = refusal(s, e, marker, policy)
  if field then return refuse(e.offset, field, reason) end
  local fresh = not s
  if fresh then s = opened(e, policy) end
  if s.seen[e.event_id] then return end
  local held = s.items[e.item]
  local lower = held and e.sequence <= held[1]
  local complete = not held and is_complete(s, e.item, policy)
  if lower and not s.open then
    return refuse(e.offset, 'capture_sequence',
      'a capture with a higher sequence was judged already; count captures up')
  end
  local revise = complete or not s.open
  field, reason = beyond_bounds(s, revise)
  if field then return refuse(e.offset, field, reason) end
  if fresh then write('ZADD', opens, e.offset, part) end
  if lower then
    s.sup[#s.sup + 1] = e.event_id
  else
    if held then s.sup[#s.sup + 1] = held[2] end
    s.items[e.item] = {e.sequence, e.event_id, e.body}
  end
  for _, gap in ipairs(gaps) do plus(s.gaps, gap) end
  s.seen[e.event_id] = 1
  s.n = s.n + 1
  if revise then
    local closing = s.open and 'complete' or 'late'
    if not s.open then plus(s.late, e.item) end
    s.open = false
    freeze(part, s, e.offset, e.ts, closing)
  end
  store(part, s)
end

local function no_such_part(offset)
  refuse(offset, 'part', 'nothing is known of this part here; send its records first')
end

local function alias(row)
  local offset, ts, part, real = row[2], row[3], row[4], row[5]
  local s = spanning(part, offset)
  if not s then return no_such_part(offset) end
  if s.alias == real then return end
  local field, reason = beyond_bounds(s, not s.open)
  if field then return refuse(offset, field, reason) end
  s.alias, s.n = real, s.n + 1
  if not s.open then freeze(part, s, offset, ts, 'late') end
end

local function force(row)
  local offset, ts, part = row[2], row[3], row[4]
  local s = spanning(part, offset)
  if not s then return no_such_part(offset) end
  if not s.open then return end
  s.open = false
  freeze(part, s, offset, ts, 'forced')
end

local function flush()
  for part in pairs(touched) do
    local s = states[part]
    write('HSET', parts, part, cmsgpack.pack(s))
    write('ZADD', due, due_of(s), part)
  end
  touched = {}
  for _, w in pairs(writes) do redis.call(unpack(w)) end
  writes = {}
end

local function evict(part, s)
  redis.call('HDEL', parts, part)
  redis.call('ZREM', due, part)
  redis.call('ZADD', markers, s.off, part)
  marked[part] = s.off
  redis.call('ZADD', spans, s.off, s.last .. ' ' .. part)
  states[part] = false
  for revision = 1, s.rev do
    if unpublished(part, revision) then return end
  end
  redis.call('ZREM', opens, part)
end

-- Returns whether the tick is done; otherwise the budget is spent and it goes on in the next call.
local function tick(row)
  local offset, ts, log_start = row[2], row[3], row[4]
  flush()
  while true do
    local now = redis.call('ZRANGEBYSCORE', due, '-inf', ts, 'LIMIT', 0, 1)
    if #now == 0 then break end
    if budget <= 0 then return false end
    budget = budget - 1
    local part = now[1]
    local s = state_of(part)
    if s.open then
      s.open, s.last = false, offset
      freeze(part, s, offset, ts, 'deadline')
      store(part, s)
      flush()
    else
      evict(part, s)
    end
  end
  while true do
    local old = redis.call('ZRANGEBYSCORE', markers, '-inf', '(' .. log_start, 'LIMIT', 0, 64)
    if #old == 0 then return true end
    if budget <= 0 then return false end
    budget = budget - #old
    redis.call('ZREM', markers, unpack(old))
    redis.call('HDEL', published, unpack(old))
    marked, revisions = {}, {}
  end
end

local function change_policy(row)
  local offset, digest, body = row[2], row[4], row[5]
  redis.call('HSET', policies, digest, body)
  local log = cjson.decode(redis.call('HGET', policies, 'log'))
  log[#log + 1] = {offset, digest}
  redis.call('HSET', policies, 'log', cjson.encode(log))
  redis.call('HSET', meta, 'policy', digest)
  in_force = digest
end

local rows = cmsgpack.unpack(ARGV[3])
local taken = 0
look_up(rows)
for _, row in ipairs(rows) do
  if row[2] <= applied then error('event at or before applied') end
  local kind, done = row[1], true
  if kind == 'capture' then capture(row)
  elseif kind == 'tick' then done = tick(row)
  elseif kind == 'alias' then alias(row)
  elseif kind == 'force' then force(row)
  elseif kind == 'policy' then change_policy(row)
  elseif kind == 'refused' then refuse(row[2], row[4], row[5])
  else error('unknown event ' .. tostring(kind)) end
  if not done then break end
  taken = taken + 1
  applied = row[2]
end
flush()
redis.call('HSET', meta, 'applied', string.format('%.0f', applied))
local soonest = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
return {'OK', taken, applied, redis.call('ZCARD', ready), redis.call('ZCARD', outbox),
  soonest[2] or ''}
