-- KEYS: hot, persistent. Deletes the hot key if the persistent one exists, and returns whether it did.
if redis.call('EXISTS', KEYS[2]) == 0 then
  return 0
end
return redis.call('DEL', KEYS[1])
