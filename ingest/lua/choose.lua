-- CHOOSE: the first verdict offered for a part#revision is the one for ever.
-- ARGV[3..] member, verdict, member, verdict, ...
-- Returns {'OK', chosen verdict, published (1|0), ...} in order; a member that is not leased is a GAP.
local problem = guard()
if problem then return {problem} end
local reply = {'OK'}
for i = 3, #ARGV, 2 do
  local member, verdict = ARGV[i], ARGV[i + 1]
  local part, revision = split(member)
  if number(redis.call('HGET', published, part), 0) >= revision then
    reply[#reply + 1] = ''
    reply[#reply + 1] = 1
  else
    if not redis.call('ZSCORE', leased, member) then return {'GAP'} end
    redis.call('HSETNX', chosen, member, verdict)
    reply[#reply + 1] = redis.call('HGET', chosen, member)
    reply[#reply + 1] = 0
  end
end
return reply
