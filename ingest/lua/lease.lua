-- LEASE: hand out ready revisions, oldest first; revision n + 1 only when n is no longer ready.
-- ARGV[3] limit. Returns {'OK', ready left, member, evidence, member, evidence, ...}.
local problem = guard(true)
if problem then return {problem} end
local limit = tonumber(ARGV[3])
local members, moved = {}, {}
if limit > 0 then
  local found = redis.call('ZRANGE', ready, 0, limit * 2 - 1, 'WITHSCORES')
  for i = 1, #found, 2 do
    local member = found[i]
    local part, revision = split(member)
    if not (revision > 1 and unpublished(part, revision - 1)) then
      members[#members + 1] = member
      moved[#moved + 1], moved[#moved + 2] = found[i + 1], member
      if #members == limit then break end
    end
  end
end
if #members == 0 then return {'OK', redis.call('ZCARD', ready)} end
redis.call('ZREM', ready, unpack(members))
redis.call('ZADD', leased, unpack(moved))
local frozen = redis.call('HMGET', evidence, unpack(members))
local reply = {'OK', redis.call('ZCARD', ready)}
for i, member in ipairs(members) do
  reply[#reply + 1], reply[#reply + 2] = member, frozen[i]
end
return reply
