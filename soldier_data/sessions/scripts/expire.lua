-- KEYS: hot, persistent. ARGV: a time in ms since 1970.
-- Deletes the session if it was created at or before that time, and returns whether it did.
local created_at = string.match(redis.call('GETRANGE', KEYS[2], 0, HEAD_BYTES), '^1 +%d+ [%x,]+ +[%x-]+ (%-?%d+)\n')
if not created_at or tonumber(created_at) > tonumber(ARGV[1]) then
  return 0
end
redis.call('DEL', KEYS[1], KEYS[2])
return 1
