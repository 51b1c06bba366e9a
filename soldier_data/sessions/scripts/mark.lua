-- KEYS: hot, persistent.
-- ARGV: 1 expected revision, write id and tenant, separated by spaces. 2 persistent value. 3 hot value. The values have
--       blanks, as in save.lua.
-- Replaces the values of the keys that exist, without changing their TTLs.
-- Returns 1 if the session is marked, 0 if it does not exist, -1 if it has a different revision.
local expected, write_id, tenant_id = string.match(ARGV[1], '^(%S+) (%S+) (%S+)$')
local revision, writes, tenant = read_head(stored_head())
if not revision or tenant ~= tenant_id then
  return 0
end
if string.find(writes, write_id, 1, true) then
  return 1
end
if tonumber(expected) ~= revision then
  return -1
end
writes = with_write(writes, write_id)
check_setrange()
if redis.call('SET', KEYS[1], ARGV[3], 'XX', 'KEEPTTL') then
  fill_hot(revision + 1, writes)
end
if redis.call('SET', KEYS[2], ARGV[2], 'XX', 'KEEPTTL') then
  fill_persistent(revision + 1, writes)
end
return 1
