-- KEYS: hot, persistent, deleted, then the sorted sets that the session is to be taken out of. ARGV: tenant or '', write id, how long to remember the write id.
-- Returns whether the session was removed, or -1 if the tenant was asked for and cannot be told.
if redis.call('GET', KEYS[3]) == ARGV[2] then
  -- A repeated deletion after a lost reply; somebody may have saved the session anew.
  return 1
end
if ARGV[1] ~= '' then
  local head = stored_head()
  if head == '' then
    return 0
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
  -- Refused before anything goes, and not half-way: a key of another type, a role without the command.
  redis.call('ZREM', KEYS[i], '')
end
if redis.call('DEL', KEYS[1], KEYS[2]) == 0 then
  return 0
end
redis.call('SET', KEYS[3], ARGV[2], 'PX', ARGV[3])
for i = 4, #KEYS do
  -- The id stands in braces at the end of the key.
  redis.call('ZREM', KEYS[i], string.sub(KEYS[1], -37, -2))
end
return 1
