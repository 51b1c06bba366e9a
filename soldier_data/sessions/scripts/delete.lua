-- KEYS: hot, persistent. ARGV: tenant or ''.
-- Returns the number of keys removed, or -1 if the tenant was asked for and cannot be told.
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
return redis.call('DEL', KEYS[1], KEYS[2])
