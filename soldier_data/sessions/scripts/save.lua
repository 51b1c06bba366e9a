-- KEYS: hot, persistent, then the sorted sets that the session belongs in (the third of them the one of its status,
-- the second the one of all its agent's). On Redis Cluster these live in other slots: there the script gets the first
-- two keys alone, and the store writes the sets before and after it (see enter.lua).
-- ARGV: 1 the short arguments in one, separated by spaces, because redis-py takes longer over many: expected
--       revision or '-', write id, tenant, hot TTL, persistent TTL, score in the sets, TTL that a set is given; and, as
--       few saves need them, in one: score below which entries may be dead, every status.
--       2 persistent value. 3 hot value. Both have blanks for revision and write ids (see codec.py).
-- Returns the revision that is stored now; or what is wrong, and the revision that is stored. redis-py takes
-- much longer to read a list than a number.
local expected, write_id, tenant_id, hot_ttl, persistent_ttl, score, set_ttl, seldom =
  string.match(ARGV[1], '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (.+)$')
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
    -- A write, so that WAIT has something to wait for: the other one was sent on another connection.
    redis.call('PEXPIRE', KEYS[2], persistent_ttl)
    return revision - (place - 1) / WRITE_STEP
  end
end
if expected ~= '-' and tonumber(expected) ~= revision then
  return {'conflict', revision}
end

-- Whatever is refused is refused here, where nothing has changed: a key of another type, a role without a command.
check_filling()
local needed, missing = tonumber(persistent_ttl), {}
for i = 3, #KEYS do
  redis.call('ZADD', KEYS[i], 'XX', 0, '')
  -- A set lives at least as long as the session. It is never given less: another process may have other limits.
  local left = redis.call('PTTL', KEYS[i])
  if left ~= -1 and left < needed and redis.call('PEXPIRE', KEYS[i], set_ttl) == 0 then
    missing[i] = true
  end
end

revision = revision + 1
writes = with_write(writes, write_id)
redis.call('SET', KEYS[1], ARGV[3], 'PX', hot_ttl)
fill_hot(revision, writes)
redis.call('SET', KEYS[2], ARGV[2], 'PX', persistent_ttl)
fill_persistent(revision, writes)
-- The id stands in braces at the end of the key.
local session_id = string.sub(KEYS[1], -37, -2)
local new = {}
for i = 3, #KEYS do
  if redis.call('ZADD', KEYS[i], score, session_id) == 1 then
    new[#new + 1] = i
    if missing[i] then
      redis.call('PEXPIRE', KEYS[i], set_ttl)
    end
  end
end

-- What follows spares readers work, and fails without harm. The keys are not given, since few saves need them: on
-- a server that is no part of a cluster, a script can reach every key.
local function tidy(i)
  local dead_score, statuses = string.match(seldom, '^(%S+) (.+)$')
  -- A session whose entry is new left the set of its former status.
  if i == 5 and head ~= '' then
    for status in string.gmatch(statuses, '%S+') do
      local other = KEYS[4] .. ':' .. status
      if other ~= KEYS[i] then
        redis.call('ZREM', other, session_id)
      end
    end
  end
  -- A set only grows by new entries, so that is when to look for dead ones. Old is not dead: another process may
  -- let its sessions live longer.
  local start_of_key = string.sub(KEYS[2], 1, -38)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[i], '-inf', dead_score, 'LIMIT', 0, 10)) do
    if redis.call('EXISTS', start_of_key .. member .. '}') == 0 then
      redis.call('ZREM', KEYS[i], member)
    end
  end
end
for _, i in ipairs(new) do
  pcall(tidy, i)
end
return revision
