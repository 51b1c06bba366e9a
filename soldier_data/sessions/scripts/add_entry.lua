-- For Redis Cluster, where a sorted set lives in another slot than the session, so that save.lua cannot reach it.
-- KEYS: a sorted set. ARGV: 1 'NX' to leave an entry as it is, 'CH' to renew it. 2 score. 3 session id. 4 TTL that the
--       set needs. 5 TTL that it is given if it has less. 6 score below which entries may be dead. 7 how many of these
--       it takes for them to be told.
-- Returns whether the entry changed, and members and scores of entries that may be dead.
-- What is refused is refused first: a key of another type, a role without a command.
redis.call('ZADD', KEYS[1], 'XX', 0, '')
-- Never given less: another process may have other limits.
local left = redis.call('PTTL', KEYS[1])
if left ~= -1 and left < tonumber(ARGV[4]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
end
local changed = redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2], ARGV[3])
if left == -2 then
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
elseif left >= 0 and ARGV[1] == 'CH' and changed == 0 then
  -- A repetition writes something too: WAIT counts the replicas that have this connection's last write.
  redis.call('PEXPIRE', KEYS[1], math.max(left, tonumber(ARGV[5])))
end
-- A set only grows by new entries, so that is when to look for dead ones.
local old = {}
if ARGV[1] == 'NX' and changed == 1 then
  old = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[6], 'WITHSCORES', 'LIMIT', 0, ARGV[7])
  if #old < 2 * tonumber(ARGV[7]) then
    old = {}
  end
end
return {changed, old}
