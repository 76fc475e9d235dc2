-- Rows of one feature view, each written whole unless a newer one stands there or its user is erased.
-- KEYS: one hash per entity; all in one slot on a cluster. Whose key names a pseudonym is looked for
--       among the erased of its partition, a set in the same slot.
-- ARGV: for each row a MessagePack array: its time (protobuf Timestamp), then its values.
-- Answers how many rows were written. A row of equal time is written.
-- The name of the time's field and the commands that write a row stand in the text itself, for
-- each set of fields: building a table to unpack costs a tenth of the whole call.
local call, unpacked, byte = redis.call, cmsgpack.unpack, string.byte

local function moment(text)
  local read, at = {0, 0}, 1
  while at <= #text do
    local field, value, inverse, scale, bits = (byte(text, at) - byte(text, at) % 8) / 8, 0, 0, 1, nil
    local count = 0
    repeat
      at, count = at + 1, count + 1
      bits = byte(text, at)
      value, inverse = value + bits % 128 * scale, inverse + (127 - bits % 128) * scale
      scale = scale * 128
      if count == 9 and bits >= 128 then  -- the tenth byte holds the sign alone
        value, at, bits = -inverse - 1, at + 1, 0
      end
    until bits < 128
    read[field], at = value, at + 1
  end
  return read[1], read[2]
end

local function newer(one, other)
  local seconds, nanos = moment(one)
  local than, rest = moment(other)
  return seconds > than or (seconds == than and nanos > rest)
end

local erasing = {}
local function erased(key)
  local tag = string.sub(key, -40, -35)
  if not string.find(tag, '^{p%d%d%d}') then
    return false
  end
  local set = tag .. 'erased'
  if erasing[set] == nil then
    erasing[set] = call('EXISTS', set) == 1
  end
  return erasing[set] and call('SISMEMBER', set, string.sub(key, -40, -9)) == 1
end

local written = 0
for k, key in ipairs(KEYS) do
  local row = unpacked(ARGV[k])
  local held = call('HGET', key, $time)
  if (not held or held == row[1] or not newer(held, row[1])) and not erased(key) then
    $write
    written = written + 1
  end
end
return written
