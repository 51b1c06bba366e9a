-- KEYS: hot, persistent. Returns the tier in which a read would find the session, or nil.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 'hot'
end
if redis.call('EXISTS', KEYS[2]) == 1 then
  return 'persistent'
end
return false
