-- Prepended to every script that looks into a value.

-- Revision, recent write ids (newest first, separated by commas) and tenant of a stored session, read from the
-- first bytes of either form; nil if it is not a session of layout 1.
local function read_head(value)
  local revision, writes, tenant =
    string.match(value, '^{"v":1,"revision": *(%d+),"writes":"([%x,]+) *","tenant_id":"([%x-]+)",')
  if not revision then
    revision, writes, tenant = string.match(value, '^1 +(%d+) ([%x,]+) +([%x-]+) %-?%d+\n')
  end
  return tonumber(revision), writes, tenant
end

-- The head is less than 200 bytes long; the rest of the value need not be copied to read it.
local HEAD_BYTES = 255

local function stored_head()
  local head = redis.call('GETRANGE', KEYS[2], 0, HEAD_BYTES)
  if head == '' then
    head = redis.call('GETRANGE', KEYS[1], 0, HEAD_BYTES)
  end
  return head
end

-- Copies the persistent value to the hot key as it is: a script cannot inflate it, so the reader takes either
-- form, and the next save writes JSON again. The hot key must not outlive the persistent one.
-- `call` is redis.call, or redis.pcall to go on where the server takes no writes.
local function promote(call, value, hot_ttl)
  local ttl = redis.call('PTTL', KEYS[2])
  if ttl < 0 or ttl > hot_ttl then
    ttl = hot_ttl
  end
  if ttl > 0 then
    call('SET', KEYS[1], value, 'PX', ttl)
  end
end

-- Every write id has 12 digits; the latest four are kept, with commas between them.
local WRITE_STEP = 13
local WRITES_LENGTH = 4 * WRITE_STEP - 1

local function with_write(writes, write_id)
  if writes == '' then
    return write_id
  end
  return string.sub(write_id .. ',' .. writes, 1, WRITES_LENGTH)
end

-- What a failing script has written stays: a role that may not fill the blanks is found out before, by no change.
local function check_filling()
  redis.call('SETRANGE', KEYS[1], 0, '')
end

-- Both write over the blanks that the client left in the values (see codec.py).
local function fill_hot(revision, writes)
  local blanks = string.len('{"v":1,"revision":')
  redis.call('SETRANGE', KEYS[1], blanks, string.format('%19d,"writes":"%-51s', revision, writes))
end

local function fill_persistent(revision, writes)
  redis.call('SETRANGE', KEYS[2], string.len('1 '), string.format('%19d %-51s', revision, writes))
end
