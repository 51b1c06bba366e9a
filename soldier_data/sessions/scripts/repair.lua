-- KEYS: a sorted set. ARGV: pairs of a member and the score that it was seen with.
-- Removes the members whose score is still the same: a save that came in between made its entry right.
-- Returns the number of members removed.
local removed = 0
for i = 1, #ARGV, 2 do
  local score = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if score and tonumber(score) == tonumber(ARGV[i + 1]) then
    removed = removed + redis.call('ZREM', KEYS[1], ARGV[i])
  end
end
return removed
