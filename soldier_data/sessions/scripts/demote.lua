-- KEYS: hot, persistent. Returns whether the session was moved: never, if nothing would be left of it.
if redis.call('EXISTS', KEYS[2]) == 0 then
  return 0
end
return redis.call('DEL', KEYS[1])
