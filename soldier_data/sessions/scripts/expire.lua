-- KEYS: hot, persistent. ARGV: the moment in ms; sessions created then or before are over.
-- Looks again at what was seen to be over: somebody may have begun a new session under the id since.
-- Returns whether a session was removed.
local created_at = string.match(redis.call('GETRANGE', KEYS[2], 0, HEAD_BYTES), '^1 +%d+ [%x,]+ +[%x-]+ (%-?%d+)\n')
if not created_at or tonumber(created_at) > tonumber(ARGV[1]) then
  return 0
end
redis.call('DEL', KEYS[1], KEYS[2])
return 1
