-- TAKEOVER: this token owns the slot from now on; leases of the session before go back to ready.
-- ARGV[1] token. Unconditional. Returns {seq, applied, pub, policy}, or nil when the slot is cold.
local held = redis.call('HMGET', meta, 'seq', 'applied', 'pub', 'policy')
if not (held[1] and held[2] and held[3] and held[4]) then return false end
although_full()
redis.call('HSET', meta, 'token', ARGV[1])
if redis.call('EXISTS', leased) == 1 then
  redis.call('ZUNIONSTORE', ready, 2, ready, leased)
  redis.call('DEL', leased)
end
return held
