-- KEYS: a sorted set. ARGV: 'call', or 'pcall' to stop without an error if the server does not accept writes; then
-- pairs of a member and the score with which it was read.
-- Removes the members whose score is unchanged, since a save in between makes an entry valid again, and returns their
-- number.
local removed = 0
for i = 2, #ARGV, 2 do
  local score = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if score and tonumber(score) == tonumber(ARGV[i + 1]) then
    local reply = redis[ARGV[1]]('ZREM', KEYS[1], ARGV[i])
    if type(reply) ~= 'number' then
      break
    end
    removed = removed + reply
  end
end
return removed
