-- Rows made again from history, each written only where the live row has not moved meanwhile.
-- KEYS: cursor, log, then one row per user; all in one slot.
-- ARGV: 1-5 the five field names of a row, 6 an entry that the log must hold ('' for none); then
--       for each row the version that must be live (as stored; '' for no live row) and its five
--       values.
-- Answers the positions (from 1) of the rows that were left alone.
local call, keys, argv = redis.call, KEYS, ARGV
local profile, learned, version, model, time = argv[1], argv[2], argv[3], argv[4], argv[5]
local left, at = {}, 7
local lost = argv[6] ~= '' and #call('XRANGE', keys[2], argv[6], argv[6]) == 0
for k = 3, #keys do
  local live = call('HMGET', keys[k], time, profile, version)
  local found = ''
  if live[1] and live[2] then
    found = live[3] or ''
  end
  if found == argv[at] and not lost then
    call('HSET', keys[k], profile, argv[at + 1], learned, argv[at + 2], version, argv[at + 3],
         model, argv[at + 4], time, argv[at + 5])
  else
    left[#left + 1] = k - 2
  end
  at = at + 6
end
local written = #keys - 2 - #left
if written > 0 then
  call('HINCRBY', keys[1], 'rebuilt', written)
end
return left
