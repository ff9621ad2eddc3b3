-- RESET: wipe the slot and start cold. Unconditional.
-- ARGV[1] token, ARGV[2] applied, ARGV[3] digest and ARGV[4] body of the policy in force there.
redis.call('DEL', unpack(KEYS))
redis.call('HSET', meta, 'token', ARGV[1], 'seq', 0, 'applied', ARGV[2], 'pub', 0,
  'policy', ARGV[3])
redis.call('HSET', policies, ARGV[3], ARGV[4],
  'log', cjson.encode({{tonumber(ARGV[2]), ARGV[3]}}))
return 'OK'
