-- KEYS: hot, persistent, deleted, then the sorted sets to remove the session from.
-- ARGV: tenant or '', write id, how long to remember the write id (in ms); '1' to refuse copies from PostgreSQL for
--       that long although the session is not stored here.
-- Returns 1 if the session was deleted, 0 if it does not exist, -1 if its tenant is needed but unreadable.
if redis.call('GET', KEYS[3]) == ARGV[2] then
  -- This repeats a deletion whose reply was lost. The session may have been saved again since.
  return 1
end
local function not_found()
  if ARGV[4] == '1' then
    redis.call('SET', KEYS[3], '-', 'PX', ARGV[3])
  end
  return 0
end
if ARGV[1] ~= '' then
  local head = stored_head()
  if head == '' then
    return not_found()
  end
  local revision, _, tenant = read_head(head)
  if not revision then
    return -1
  end
  if tenant ~= ARGV[1] then
    return 0
  end
end
for i = 4, #KEYS do
  -- Fails before anything is deleted if a key has a wrong type or the user lacks a permission.
  redis.call('ZREM', KEYS[i], '')
end
if redis.call('DEL', KEYS[1], KEYS[2]) == 0 then
  return not_found()
end
redis.call('SET', KEYS[3], ARGV[2], 'PX', ARGV[3])
for i = 4, #KEYS do
  -- The id is in braces at the end of the key.
  redis.call('ZREM', KEYS[i], string.sub(KEYS[1], -37, -2))
end
return 1
