-- One updater commit: rows, dead letters and cursor, or nothing at all.
-- KEYS: log, cursor, lease, dead letters, then one row per user; all in one slot.
-- ARGV: epoch, expected cursor, new cursor, channel, dead letter count, field count F,
--       dead letters..., field names (F), then F values for each row.
-- Answers {"ok"}, {"again"} when this very commit was applied before (its answer was lost),
-- or {"refused", guard, found}.
local epoch = redis.call('HGET', KEYS[3], 'epoch')
if epoch ~= ARGV[1] then
  return {'refused', 'epoch', epoch or 'none'}
end
local cursor = redis.call('HGET', KEYS[2], 'cursor') or '0-0'
if cursor ~= ARGV[2] then
  if cursor == ARGV[3] then
    return {'again'}
  end
  return {'refused', 'cursor', cursor}
end
if #redis.call('XRANGE', KEYS[1], ARGV[3], ARGV[3], 'COUNT', 1) == 0 then
  return {'refused', 'entry', ARGV[3]}
end
local deads, width, at = tonumber(ARGV[5]), tonumber(ARGV[6]), 7
for i = 0, deads - 1 do
  redis.call('XADD', KEYS[4], '*', 'e', ARGV[at + i])
end
local names = at + deads
at = names + width
for k = 5, #KEYS do
  local pairs_of_row = {}
  for f = 0, width - 1 do
    pairs_of_row[2 * f + 1] = ARGV[names + f]
    pairs_of_row[2 * f + 2] = ARGV[at + f]
  end
  redis.call('HSET', KEYS[k], unpack(pairs_of_row))
  at = at + width
end
redis.call('HSET', KEYS[2], 'cursor', ARGV[3])
redis.call('PUBLISH', ARGV[4], ARGV[3])
return {'ok'}
