-- LETTERS: the oldest undelivered dead letters; those below ARGV[3] (exclusive) were delivered.
-- ARGV[4] limit. Returns {'OK', JSON [offset, field, reason], ...}.
local problem = guard(true)
if problem then return {problem} end
redis.call('ZREMRANGEBYSCORE', outbox, '-inf', '(' .. ARGV[3])
local reply = {'OK'}
for _, letter in ipairs(redis.call('ZRANGE', outbox, 0, tonumber(ARGV[4]) - 1)) do
  reply[#reply + 1] = letter
end
return reply
