-- KEYS: hot, persistent. ARGV: hot TTL in ms, tenant or ''.
-- Returns the value in either form, or nil. Promotes a session that is only persistent.
local value = redis.call('GET', KEYS[1])
if value then
  return value
end
value = redis.call('GET', KEYS[2])
if not value then
  return false
end
-- A read with another tenant's id must not promote the session, and an unreadable value must not be changed.
local revision, _, tenant = read_head(value)
if revision and (ARGV[2] == '' or ARGV[2] == tenant) then
  -- pcall, because a server that does not accept writes can still return the value.
  promote(redis.pcall, value, tonumber(ARGV[1]))
end
return value
