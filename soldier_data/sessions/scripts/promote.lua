-- KEYS: hot, persistent. ARGV: hot TTL in ms. Returns whether the session was promoted.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
local value = redis.call('GET', KEYS[2])
if not value or not read_head(value) then
  return 0
end
promote(redis.call, value, tonumber(ARGV[1]))
return 1
