-- KEYS: hot, persistent.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 'hot'
end
if redis.call('EXISTS', KEYS[2]) == 1 then
  return 'persistent'
end
return false
