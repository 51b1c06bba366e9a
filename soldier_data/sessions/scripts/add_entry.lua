-- For Redis Cluster, where save.lua cannot access the sorted sets, as they are in other slots than the session.
-- KEYS: a sorted set.
-- ARGV: 1 'NX' to keep an existing entry, 'CH' to update it. 2 score. 3 session id. 4 shortest TTL that the set may
--       have. 5 TTL that it is given if its own is shorter. 6 score below which entries may be dead. 7 number of such
--       entries from which they are returned.
-- Returns whether the entry changed, and members and scores of entries that may be dead.
-- Fails before any write if the key has a wrong type or the user lacks a permission.
redis.call('ZADD', KEYS[1], 'XX', 0, '')
-- A TTL is never shortened: another process may have longer lifetimes.
local left = redis.call('PTTL', KEYS[1])
if left ~= -1 and left < tonumber(ARGV[4]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
end
local changed = redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2], ARGV[3])
if left == -2 then
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
elseif left >= 0 and ARGV[1] == 'CH' and changed == 0 then
  -- A repetition must write too: WAIT counts the replicas that have the last write of this connection.
  redis.call('PEXPIRE', KEYS[1], math.max(left, tonumber(ARGV[5])))
end
-- A set grows only by new entries, so dead ones are looked for only then.
local old = {}
if ARGV[1] == 'NX' and changed == 1 then
  old = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[6], 'WITHSCORES', 'LIMIT', 0, ARGV[7])
  if #old < 2 * tonumber(ARGV[7]) then
    old = {}
  end
end
return {changed, old}
