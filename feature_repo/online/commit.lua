-- One updater commit: rows, dead letters and cursor, or nothing at all.
-- KEYS: log, cursor, lease, dead letters, erased users, what users said about profiling (see the
--       append script), then one row per user; all in one slot.
-- ARGV: 1 epoch, 2 expected cursor, 3 new cursor, 4 channel, 5 expected count of rebuilt rows
--       ('' for any), 6 number of dead letters, 7 number of models (0 or 1), 8-12 the five
--       field names of a row; then the dead letters, the model, and for each row the version
--       that must be live (as stored; '' for any) and its five values; then users, each with what
--       is now known of its profiling ('' for nothing).
-- The row of an erased user is not written.
-- Answers {"ok"}, {"again"} when this very commit was applied before (its answer was lost),
-- or {"refused", guard, found}.
local call, keys, argv = redis.call, KEYS, ARGV
local epoch = call('HGET', keys[3], 'epoch')
if epoch ~= argv[1] then
  return {'refused', 'epoch', epoch or 'none'}
end
local held = call('HMGET', keys[2], 'cursor', 'rebuilt')
local cursor, rebuilt = held[1] or '0-0', held[2] or '0'
if cursor ~= argv[2] then
  if cursor == argv[3] then
    return {'again'}
  end
  return {'refused', 'cursor', cursor}
end
if argv[5] ~= '' and rebuilt ~= argv[5] then
  return {'refused', 'rebuilt', rebuilt}
end
if #call('XRANGE', keys[1], argv[3], argv[3], 'COUNT', 1) == 0 then
  return {'refused', 'entry', argv[3]}
end
local at = 13 + argv[6] + argv[7]
for k = 7, #keys do
  if argv[at] ~= '' and call('HGET', keys[k], argv[10]) ~= argv[at] then
    return {'refused', 'version', keys[k]}
  end
  at = at + 6
end
at = 13
for _ = 1, tonumber(argv[6]) do
  call('XADD', keys[4], '*', 'e', argv[at])
  at = at + 1
end
for _ = 1, tonumber(argv[7]) do
  call('HSET', keys[2], 'model', argv[at])
  at = at + 1
end
local profile, learned, version, model, time = argv[8], argv[9], argv[10], argv[11], argv[12]
local erasing = call('EXISTS', keys[5]) == 1
for k = 7, #keys do
  at = at + 1
  -- A row's key ends with the user's 32 characters and the eight of the project.
  if not erasing or call('SISMEMBER', keys[5], string.sub(keys[k], -40, -9)) == 0 then
    -- Said in full: building a table to unpack costs as much as a tenth of the whole commit.
    call('HSET', keys[k], profile, argv[at], learned, argv[at + 1], version, argv[at + 2],
         model, argv[at + 3], time, argv[at + 4])
  end
  at = at + 5
end
for n = at, #argv, 2 do
  -- A denial that was appended behind this commit's events holds on.
  local ms, seq = string.match(call('HGET', keys[6], argv[n]) or '', '^0:(%d+)-(%d+)$')
  local to, to_seq = string.match(argv[3], '^(%d+)-(%d+)$')
  ms, seq, to, to_seq = tonumber(ms), tonumber(seq), tonumber(to), tonumber(to_seq)
  local behind = ms and (ms > to or ms == to and seq > to_seq)
  local gone = erasing and call('SISMEMBER', keys[5], argv[n]) == 1
  if gone or not behind and argv[n + 1] == '' then
    call('HDEL', keys[6], argv[n])
  elseif not behind then
    call('HSET', keys[6], argv[n], argv[n + 1])
  end
end
call('HSET', keys[2], 'cursor', argv[3])
call('PUBLISH', argv[4], argv[3])
return {'ok'}
