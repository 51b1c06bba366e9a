-- KEYS: a sorted set. ARGV: 'call', or 'pcall' to leave the rest where the server takes no writes; then pairs of a
-- member and the score that it was seen with.
-- Removes the members whose score is still the same: a save that came in between made its entry right.
-- Returns the number of members removed.
local removed = 0
for i = 2, #ARGV, 2 do
  local score = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if score and tonumber(score) == tonumber(ARGV[i + 1]) then
    local gone = redis[ARGV[1]]('ZREM', KEYS[1], ARGV[i])
    if type(gone) ~= 'number' then
      break
    end
    removed = removed + gone
  end
end
return removed
