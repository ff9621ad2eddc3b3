-- WATERMARK: where a cold replay may start, and the policy in force there. Returns
-- {'OK', offset, digest, how many parts have state}.
-- It holds every part with state or with an unpublished revision and every undelivered dead letter, and
-- it never lies inside the span of an evicted part.
local problem = guard(true)
if problem then return {problem} end
local applied = tonumber(redis.call('HGET', meta, 'applied'))
local low = applied + 1
local function lower(key)
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if first[2] and tonumber(first[2]) < low then low = tonumber(first[2]) end
end
lower(opens)
lower(outbox)
-- Only spans that open before the mark matter: those that end before it too are forgotten here,
-- so that few are seen again, however long one part holds the mark back.
local across = {}
for _, span in ipairs(redis.call('ZRANGEBYSCORE', spans, '-inf', '(' .. low)) do
  local last, part = string.match(span, '^(%d+) (.*)$')
  local opening = number(redis.call('ZSCORE', markers, part), nil)
  across[#across + 1] = {span = span, last = tonumber(last), opening = opening}
end
local moved = true
while moved do
  moved = false
  for _, one in ipairs(across) do
    if one.opening and one.opening < low and one.last >= low then
      low = one.opening
      moved = true
    end
  end
end
for _, one in ipairs(across) do
  if one.last < low then redis.call('ZREM', spans, one.span) end
end
local log = cjson.decode(redis.call('HGET', policies, 'log'))
local trimmed = false
while #log > 1 and log[2][1] < low do
  table.remove(log, 1)
  trimmed = true
end
if trimmed then
  local needed = {log = true}
  for _, entry in ipairs(log) do needed[entry[2]] = true end
  for _, digest in ipairs(redis.call('HKEYS', policies)) do
    if not needed[digest] then redis.call('HDEL', policies, digest) end
  end
end
redis.call('HSET', policies, 'log', cjson.encode(log))
return {'OK', low, log[1][2], redis.call('HLEN', parts)}
