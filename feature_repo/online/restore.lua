-- States of an earlier model put back into rows, those that were there in their place put by.
-- KEYS: cursor, erased users, then one row per user; all in one slot.
-- ARGV: 1-3 the field names of learned state, version and model, 4 the model as rows have it,
--       5 for how many seconds the others are kept.
-- A state fits while its row has the version that it was put by at. Answers the positions (from 1)
-- of the rows that have theirs again.
local call, keys, argv = redis.call, KEYS, ARGV
local learned, version, model = argv[1], argv[2], argv[3]
local done = {}
for k = 3, #keys do
  local user = string.sub(keys[k], -40, -9)
  local beside = user .. ':before'
  local kept = call('HMGET', beside, learned, version, model)
  local live = call('HMGET', keys[k], learned, version, model)
  if kept[3] == argv[4] and live[2] and kept[2] == live[2] and live[3] ~= kept[3]
     and call('SISMEMBER', keys[2], user) == 0 then
    call('HSET', keys[k], learned, kept[1], model, kept[3])
    if live[1] and live[3] and tonumber(argv[5]) > 0 then
      call('HSET', beside, learned, live[1], model, live[3])
      call('EXPIRE', beside, argv[5])
    else
      call('DEL', beside)
    end
    done[#done + 1] = k - 2
  end
end
if #done > 0 then
  call('HINCRBY', keys[1], 'rebuilt', #done)
end
return done
