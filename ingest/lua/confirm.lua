-- CONFIRM: these verdicts were read back from the verdict log.
-- ARGV[3] the new pub; ARGV[4..] part, revision, opening offset, ...  Returns {'OK'}.
local problem = guard()
if problem then return {problem} end
for i = 4, #ARGV, 3 do
  local part, revision, opening = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2]
  local member = part .. '#' .. revision
  if number(redis.call('HGET', published, part), 0) < revision then
    redis.call('HSET', published, part, revision)
  end
  redis.call('ZADD', markers, opening, part)
  redis.call('ZREM', ready, member)
  redis.call('ZREM', leased, member)
  redis.call('HDEL', evidence, member)
  redis.call('HDEL', chosen, member)
  if redis.call('HEXISTS', parts, part) == 0 then
    -- Evicted: nothing of it may be left to publish before the watermark lets go of it.
    local waiting = false
    for later = revision + 1, 16 do
      if unpublished(part, later) then waiting = true end
    end
    if not waiting then redis.call('ZREM', opens, part) end
  end
end
redis.call('HSET', meta, 'pub', ARGV[3])
return {'OK'}
