-- Prepended to every script that parses a value.

-- Returns revision, latest write ids (newest first, separated by commas) and tenant of a stored session, given the
-- first bytes of either form; nil if the value is not a session in format 1.
local function read_head(value)
  local revision, writes, tenant =
    string.match(value, '^{"v":1,"revision": *(%d+),"writes":"([%x,]+) *","tenant_id":"([%x-]+)",')
  if not revision then
    revision, writes, tenant = string.match(value, '^1 +(%d+) ([%x,]+) +([%x-]+) %-?%d+\n')
  end
  return tonumber(revision), writes, tenant
end

-- The head is shorter than 200 bytes, so the rest of the value need not be copied.
local HEAD_BYTES = 255

local function stored_head()
  local head = redis.call('GETRANGE', KEYS[2], 0, HEAD_BYTES)
  if head == '' then
    head = redis.call('GETRANGE', KEYS[1], 0, HEAD_BYTES)
  end
  return head
end

-- Copies the persistent value to the hot key unchanged, because a script cannot decompress it: readers accept either
-- form, and the next save writes JSON again. The hot key must not outlive the persistent one.
-- `call` is redis.call, or redis.pcall to continue if the server does not accept writes.
local function promote(call, value, hot_ttl)
  local ttl = redis.call('PTTL', KEYS[2])
  if ttl < 0 or ttl > hot_ttl then
    ttl = hot_ttl
  end
  if ttl > 0 then
    call('SET', KEYS[1], value, 'PX', ttl)
  end
end

-- A write id has 12 digits. The latest four are stored, separated by commas.
local WRITE_STEP = 13
local WRITES_LENGTH = 4 * WRITE_STEP - 1

local function with_write(writes, write_id)
  if writes == '' then
    return write_id
  end
  return string.sub(write_id .. ',' .. writes, 1, WRITES_LENGTH)
end

-- Fails if the user lacks the permission for SETRANGE; otherwise does nothing. Redis does not undo the writes of a
-- script that fails, so this must be checked before the first write.
local function check_setrange()
  redis.call('SETRANGE', KEYS[1], 0, '')
end

-- Both overwrite the blanks that the client left in the values (see codec.py).
local function fill_hot(revision, writes)
  local blanks = string.len('{"v":1,"revision":')
  redis.call('SETRANGE', KEYS[1], blanks, string.format('%19d,"writes":"%-51s', revision, writes))
end

local function fill_persistent(revision, writes)
  redis.call('SETRANGE', KEYS[2], string.len('1 '), string.format('%19d %-51s', revision, writes))
end
