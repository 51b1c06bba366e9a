-- KEYS: hot, persistent. ARGV: hot TTL in ms, tenant or ''.
-- Returns the value in whichever form it is stored, or nil.
local value = redis.call('GET', KEYS[1])
if value then
  return value
end
value = redis.call('GET', KEYS[2])
if not value then
  return false
end
-- Reading with another tenant's id must not even move the session, and what is not a session stays as it is.
local revision, _, tenant = read_head(value)
if revision and (ARGV[2] == '' or ARGV[2] == tenant) then
  -- A server that is full, a replica or without replicas has the value all the same.
  promote(redis.pcall, value, tonumber(ARGV[1]))
end
return value
