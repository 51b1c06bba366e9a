-- KEYS: hot, persistent, then the sorted sets that list the session: the second is that of its agent, the third that of
--       its agent and status. On Redis Cluster the sets are in other slots: there the script gets only the first two
--       keys, and the store writes the sets before and after it (see add_entry.lua).
-- ARGV: 1 separated by spaces, because redis-py is slower with many arguments: expected revision, or '-' for
--       any, or '=' and the revision that PostgreSQL has assigned to the session; write id, tenant, hot TTL, persistent
--       TTL, score in the sets, TTL of the sets; then, parsed only if needed, the score below which entries may be dead,
--       and all statuses.
--       2 persistent value. 3 hot value. Both have blanks for revision and write ids (see codec.py).
-- Returns the new revision; or, if the save is refused, a list of the reason and the stored revision. (redis-py parses
-- a number much faster than a list.) With an assigned revision, returns the revision that is now stored, which may be a
-- later one, or 0 if the session was deleted less than a minute ago.
local expected, write_id, tenant_id, hot_ttl, persistent_ttl, score, set_ttl, rarely_used =
  string.match(ARGV[1], '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (.+)$')
local assigned = tonumber(string.match(expected, '^=(%d+)$'))
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
  local place = string.find(writes, write_id, 1, true)
  -- A different write under the same revision is one that PostgreSQL has lost.
  if assigned and (revision > assigned or (revision == assigned and place)) then
    return revision
  end
  -- This repeats a save whose reply was lost, perhaps with other saves in between. Each save adds one to the revision
  -- and one id to the list, so the position of the id gives its revision.
  if place and not assigned then
    -- This writes something, because WAIT waits only for writes of its own connection.
    redis.call('PEXPIRE', KEYS[2], persistent_ttl)
    return revision - (place - 1) / WRITE_STEP
  end
end
if assigned then
  -- A copy that was read before the deletion must not bring the session back. The id is in braces at the end of the key.
  local start_of_key, id = string.match(KEYS[2], '^(.*:)persist:(.*)$')
  if redis.call('EXISTS', start_of_key .. 'deleted:' .. id) == 1 then
    return 0
  end
  revision, writes = assigned - 1, ''
elseif expected ~= '-' and tonumber(expected) ~= revision then
  return {'conflict', revision}
end

-- Fails here, before the first write, if a key has a wrong type or the user lacks a permission.
check_setrange()
local needed, is_missing = tonumber(persistent_ttl), {}
for i = 3, #KEYS do
  redis.call('ZADD', KEYS[i], 'XX', 0, '')
  -- A set lives at least as long as the session. Its TTL is never shortened: another process may have longer ones.
  local left = redis.call('PTTL', KEYS[i])
  if left ~= -1 and left < needed and redis.call('PEXPIRE', KEYS[i], set_ttl) == 0 then
    is_missing[i] = true
  end
end

revision = revision + 1
writes = with_write(writes, write_id)
redis.call('SET', KEYS[1], ARGV[3], 'PX', hot_ttl)
fill_hot(revision, writes)
redis.call('SET', KEYS[2], ARGV[2], 'PX', persistent_ttl)
fill_persistent(revision, writes)
-- The id is in braces at the end of the key.
local session_id = string.sub(KEYS[1], -37, -2)
local new = {}
for i = 3, #KEYS do
  if redis.call('ZADD', KEYS[i], score, session_id) == 1 then
    new[#new + 1] = i
    if is_missing[i] then
      redis.call('PEXPIRE', KEYS[i], set_ttl)
    end
  end
end

-- Saves readers some work, and may fail without harm. It accesses keys that are not in KEYS, because few saves need
-- them; outside a cluster, scripts can access every key.
local function clean_up(i)
  local dead_score, statuses = string.match(rarely_used, '^(%S+) (.+)$')
  -- If a stored session is new in the set of its status, remove it from the set of its former status.
  if i == 5 and head ~= '' then
    for status in string.gmatch(statuses, '%S+') do
      local other = KEYS[4] .. ':' .. status
      if other ~= KEYS[i] then
        redis.call('ZREM', other, session_id)
      end
    end
  end
  -- A set grows only by new entries, so dead ones are looked for only then. An old entry need not be dead: another
  -- process may have longer lifetimes.
  local start_of_key = string.sub(KEYS[2], 1, -38)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[i], '-inf', dead_score, 'LIMIT', 0, 10)) do
    if redis.call('EXISTS', start_of_key .. member .. '}') == 0 then
      redis.call('ZREM', KEYS[i], member)
    end
  end
end
for _, i in ipairs(new) do
  pcall(clean_up, i)
end
return revision
