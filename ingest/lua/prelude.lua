-- Shared by every script: keys, the guard, and small helpers.
--
-- KEYS[1..13], all in one slot `{site.area.line.pN}`:
--   meta      hash  token, seq, applied, pub, policy (digest in force at `applied`)
--   parts     hash  part -> state (cmsgpack)
--   due       zset  part -> broker time (ms) of its deadline, or once closed of its horizon
--   opens     zset  part -> opening offset, while it has state or an unpublished revision
--   ready     zset  part#revision -> offset that closed it
--   leased    zset  the same, while a session scores it
--   evidence  hash  part#revision -> frozen evidence (MessagePack)
--   chosen    hash  part#revision -> verdict bytes; the first writer wins
--   published hash  part -> highest revision read back from the verdict log
--   markers   zset  part -> opening offset, of parts that have a published verdict or were evicted
--   spans     zset  last offset that an evicted part took, and the part -> offset that opened it
--   outbox    zset  dead letter (JSON [offset, field, reason]) -> offset
--   policies  hash  digest -> body (JSON);  "log" -> JSON list of [offset, digest], ascending
-- ARGV[1] token, ARGV[2] expected seq; then what the script documents.
--
-- Every script that a session issues, a reading one too, checks (token, seq), adds one to seq, then acts.
local meta, parts, due, opens = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local ready, leased, evidence, chosen = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local published, markers, spans, outbox, policies =
  KEYS[9], KEYS[10], KEYS[11], KEYS[12], KEYS[13]

local REVISIONS_MAX = 16

-- A full server (maxmemory) refuses the first write of a script that may grow, and takes what follows a
-- write that cannot. So this lets scripts run that drain the slot; APPLY, which fills it, is refused whole.
local function although_full()
  redis.call('HDEL', meta, '')
end

local function guard(drains)
  local held = redis.call('HMGET', meta, 'token', 'seq')
  if not held[1] then return 'GAP' end
  if held[1] ~= ARGV[1] then return 'FENCED' end
  if held[2] ~= ARGV[2] then return 'GAP' end
  if drains then although_full() end
  redis.call('HINCRBY', meta, 'seq', 1)
  return nil
end

local function number(text, default)
  if text then return tonumber(text) end
  return default
end

-- part#revision -> part, revision
local function split(member)
  local part, revision = string.match(member, '^(.*)#(%d+)$')
  return part, tonumber(revision)
end

local function unpublished(part, revision)
  local member = part .. '#' .. revision
  return redis.call('ZSCORE', ready, member) or redis.call('ZSCORE', leased, member)
end
