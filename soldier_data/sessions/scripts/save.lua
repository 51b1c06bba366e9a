-- KEYS: hot, persistent, then the sorted sets that the session belongs in. On Redis Cluster these live in other
-- slots: there the script gets the first two keys alone, and the store writes the sets after it.
-- ARGV: 1 the short arguments in one, separated by spaces, because redis-py takes longer over many: expected
--       revision or '-', write id, tenant, hot TTL, persistent TTL, score in the sets; and, as few saves need
--       them, in one: score below which entries are dead, TTL of the sets.
--       2 persistent value. 3 hot value. Both have blanks for revision and write ids (see codec.py).
-- Returns the revision that is stored now; or what is wrong, and the revision that is stored. redis-py takes
-- much longer to read a list than a number.
local expected, write_id, tenant_id, hot_ttl, persistent_ttl, score, for_sets =
  string.match(ARGV[1], '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (.+)$')
local revision, writes = 0, ''
local head = stored_head()
if head ~= '' then
  local tenant
  revision, writes, tenant = read_head(head)
  if not revision then
    return {'unreadable', 0}
  end
  if tenant ~= tenant_id then
    return {'taken', 0}
  end
  -- A repeated save after a lost reply: it took effect, maybe with others after it. Each save adds one to the
  -- revision and one id to the list, so the id's place tells its revision.
  local place = string.find(writes, write_id, 1, true)
  if place then
    return revision - (place - 1) / WRITE_STEP
  end
end
if expected ~= '-' and tonumber(expected) ~= revision then
  return {'conflict', revision}
end

revision = revision + 1
writes = with_write(writes, write_id)
redis.call('SET', KEYS[1], ARGV[3], 'PX', hot_ttl)
fill_hot(revision, writes)
redis.call('SET', KEYS[2], ARGV[2], 'PX', persistent_ttl)
fill_persistent(revision, writes)
-- The id stands in braces at the end of the key.
local session_id = string.sub(KEYS[1], -37, -2)
for i = 3, #KEYS do
  -- A set only grows by new entries, so that is when to look for dead ones. The new session dies of age before
  -- the set's time is up, however often it is saved, so no other save need prolong that.
  if redis.call('ZADD', KEYS[i], score, session_id) == 1 then
    local dead_score, set_ttl = string.match(for_sets, '^(%S+) (%S+)$')
    redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', dead_score)
    redis.call('PEXPIRE', KEYS[i], set_ttl)
  end
end
return revision
