-- Rows made again from history, each written only where the live row has not moved meanwhile.
-- KEYS: cursor, log, erased users, then one row per user; all in one slot.
-- ARGV: 1-5 the five field names of a row, 6 an entry that the log must hold ('' for none), 7 for
--       how many seconds a state that another model made is put by (0: not at all); then for each row the version that must be live (as stored; '' for no live row) and its five
--       values.
-- Answers the positions (from 1) of the rows that were left alone; that of an erased user, which is
-- not written, is none of them.
local call, keys, argv = redis.call, KEYS, ARGV
local profile, learned, version, model, time = argv[1], argv[2], argv[3], argv[4], argv[5]
local left, at, gone, keep = {}, 8, 0, tonumber(argv[7])
local erasing = call('EXISTS', keys[3]) == 1
local lost = argv[6] ~= '' and #call('XRANGE', keys[2], argv[6], argv[6]) == 0
for k = 4, #keys do
  local live = call('HMGET', keys[k], time, profile, version)
  local found = ''
  if live[1] and live[2] then
    found = live[3] or ''
  end
  -- A row's key ends with the user's 32 characters and the eight of the project.
  if erasing and call('SISMEMBER', keys[3], string.sub(keys[k], -40, -9)) == 1 then
    gone = gone + 1
  elseif found == argv[at] and not lost then
    if keep > 0 and found ~= '' then
      local was = call('HMGET', keys[k], learned, model)
      -- A state that is none has two bytes at most: the tag, and a length of 0.
      if was[1] and was[2] and was[2] ~= argv[at + 4] and #was[1] > 2 then
        local beside = string.sub(keys[k], -40, -9) .. ':before'
        call('HSET', beside, learned, was[1], version, argv[at + 3], model, was[2])
        call('EXPIRE', beside, keep)
      end
    end
    call('HSET', keys[k], profile, argv[at + 1], learned, argv[at + 2], version, argv[at + 3],
         model, argv[at + 4], time, argv[at + 5])
  else
    left[#left + 1] = k - 3
  end
  at = at + 6
end
local written = #keys - 3 - #left - gone
if written > 0 then
  call('HINCRBY', keys[1], 'rebuilt', written)
end
return left
