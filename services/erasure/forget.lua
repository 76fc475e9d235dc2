-- A profile that nothing happened to for long goes, unless something is happening now.
-- KEYS: cursor, log, row, owners of anonymous ids, who said what about profiling, what is put by of
--       the row; all in one slot. Of an anonymous id that is a user's, on a server that is no part of
--       a cluster, also the cursor, log and row of that user.
-- ARGV: 1 pseudonym, 2 and 3 the fields of a row's time and version, 4 and 5 their values as they
--       were read ('' for none), 6 the owner's note as it was read ('-' for none), 7 entries that
--       are looked through at most, 8 that user.
-- Answers 'gone', 'moved' (row or note are others now, or an event is on its way) or 'busy' (too
-- much is on its way). An updater has no such row in hand: it reads those of entries that are on
-- their way, and of one that it keeps it compares the version. Nothing here takes memory, so that
-- it works in a full store.
local call, keys, argv = redis.call, KEYS, ARGV
local function is_coming(cursor, log, user)
  local behind = '(' .. (call('HGET', cursor, 'cursor') or '0-0')
  local entries = call('XRANGE', log, behind, '+', 'COUNT', tonumber(argv[7]) + 1)
  if #entries > tonumber(argv[7]) then
    return 'busy'
  end
  for n = 1, #entries do
    for k = 2, #entries[n][2], 2 do
      if string.find(entries[n][2][k], user, 1, true) then
        return 'moved'
      end
    end
  end
end
local row = call('HMGET', keys[3], argv[2], argv[3])
local note = call('HGET', keys[4], argv[1]) or '-'
if (row[1] or '') ~= argv[4] or (row[2] or '') ~= argv[5] or note ~= argv[6] then
  return 'moved'
end
local coming = is_coming(keys[1], keys[2], argv[1])
if not coming and keys[7] then
  coming = call('EXISTS', keys[9]) == 1 and 'moved' or is_coming(keys[7], keys[8], argv[8])
end
if coming then
  return coming
end
call('DEL', keys[3], keys[6])
call('HDEL', keys[4], argv[1])
call('HDEL', keys[5], argv[1], 'gpc:' .. argv[1])
return 'gone'
