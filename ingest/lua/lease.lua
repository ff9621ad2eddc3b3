-- LEASE: hand out ready revisions, oldest first; revision n + 1 only when n is no longer ready.
-- ARGV[3] limit. Returns {'OK', ready left, member, evidence, member, evidence, ...}.
local problem = guard()
if problem then return {problem} end
local limit = tonumber(ARGV[3])
local reply = {'OK', 0}
if limit > 0 then
  for _, member in ipairs(redis.call('ZRANGE', ready, 0, limit * 2 - 1)) do
    local part, revision = split(member)
    if not (revision > 1 and unpublished(part, revision - 1)) then
      local score = redis.call('ZSCORE', ready, member)
      redis.call('ZREM', ready, member)
      redis.call('ZADD', leased, score, member)
      reply[#reply + 1] = member
      reply[#reply + 1] = redis.call('HGET', evidence, member)
      limit = limit - 1
      if limit == 0 then break end
    end
  end
end
reply[2] = redis.call('ZCARD', ready)
return reply
