-- CONFIRM: these verdicts were read back from the verdict log.
-- ARGV[3] the new pub; ARGV[4..] part, revision, opening offset, ...  Returns {'OK'}.
local problem = guard(true)
if problem then return {problem} end
local names, members, openings = {}, {}, {}
for i = 4, #ARGV, 3 do
  names[#names + 1] = ARGV[i]
  members[#members + 1] = ARGV[i] .. '#' .. ARGV[i + 1]
  openings[#openings + 1], openings[#openings + 2] = ARGV[i + 2], ARGV[i]
end
if #names > 0 then
  local highest, raised = {}, {}
  for i, before in ipairs(redis.call('HMGET', published, unpack(names))) do
    local part, revision = names[i], tonumber(ARGV[3 * i + 2])
    if revision > (highest[part] or number(before, 0)) then
      highest[part] = revision
      raised[#raised + 1], raised[#raised + 2] = part, revision
    end
  end
  if #raised > 0 then redis.call('HSET', published, unpack(raised)) end
  redis.call('ZADD', markers, unpack(openings))
  redis.call('ZREM', ready, unpack(members))
  redis.call('ZREM', leased, unpack(members))
  redis.call('HDEL', evidence, unpack(members))
  redis.call('HDEL', chosen, unpack(members))
  for i, due_at in ipairs(redis.call('ZMSCORE', due, unpack(names))) do
    -- Evicted: nothing of it may be left to publish before the watermark lets go of it.
    if not due_at then
      local waiting = false
      for later = 1, REVISIONS_MAX do
        if unpublished(names[i], later) then waiting = true end
      end
      if not waiting then redis.call('ZREM', opens, names[i]) end
    end
  end
end
redis.call('HSET', meta, 'pub', ARGV[3])
return {'OK'}
