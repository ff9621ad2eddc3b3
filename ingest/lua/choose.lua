-- CHOOSE: the first verdict offered for a part#revision is the one for ever.
-- ARGV[3..] member, verdict, member, verdict, ...
-- Returns {'OK', answer, ...} in order: 1 when it is published already, 0 when the offered verdict is the
-- chosen one, else the bytes that were chosen before. A member that is not leased is a GAP.
local problem = guard(true)
if problem then return {problem} end
local members, names = {}, {}
for i = 3, #ARGV, 2 do
  members[#members + 1] = ARGV[i]
  names[#names + 1] = split(ARGV[i])
end
if #members == 0 then return {'OK'} end
local highest = redis.call('HMGET', published, unpack(names))
local scores = redis.call('ZMSCORE', leased, unpack(members))
local before = redis.call('HMGET', chosen, unpack(members))
local reply, fresh, mine = {'OK'}, {}, {}
for i, member in ipairs(members) do
  local _, revision = split(member)
  if number(highest[i], 0) >= revision then
    reply[#reply + 1] = 1
  elseif not scores[i] then
    return {'GAP'}
  elseif before[i] or mine[member] then
    reply[#reply + 1] = before[i] or mine[member]
  else
    mine[member] = ARGV[2 * i + 2]
    fresh[#fresh + 1], fresh[#fresh + 2] = member, ARGV[2 * i + 2]
    reply[#reply + 1] = 0
  end
end
if #fresh > 0 then redis.call('HSET', chosen, unpack(fresh)) end
return reply
