-- Append events of one partition in order, each at most once, or none after a bound.
-- KEYS: log, erased users, owners of anonymous ids, ids seen today, then ids seen on the days
--       before and (clocks differ) tomorrow; all in one slot.
-- ARGV: 1 seconds for which a day's ids are kept, 2 entries the log may hold, 3 '1' to write
--       something in any case (a replica that confirms it has everything before it), then for
--       each event its dedup key, its user, its record and '1' if that user is an anonymous id.
--       A dedup key that begins with '~' and 31 is of a key of scope write: what others sent under
--       the rest of it makes the event known, never the other way round.
-- Answers for each event '+id' (new), '=id' (known), 'x' (its user is erased), '>owner' (it is
-- to be written for the user the anonymous id belongs to) or '!entries' (refused: the log is full).
local call, keys, argv = redis.call, KEYS, ARGV
local names, known, answer, fresh = {}, {}, {}, {}
local count = (#argv - 3) / 4
local function vouched(name)
  return string.sub(name, 1, 2) == '~\31' and string.sub(name, 3)
end
for n = 1, count do
  names[n] = argv[4 * n]
end
for n = 1, count do
  names[#names + 1] = vouched(names[n]) or nil
end
for k = 4, #keys do
  if call('EXISTS', keys[k]) == 1 then
    local found = call('HMGET', keys[k], unpack(names))
    for n = 1, #names do
      if found[n] and not known[names[n]] then
        known[names[n]] = found[n]
      end
    end
  end
end
local erasing = call('EXISTS', keys[2]) == 1
local length, bound = call('XLEN', keys[1]), tonumber(argv[2])
for n = 1, count do
  local name, user = names[n], argv[4 * n + 1]
  local owner = argv[4 * n + 3] == '1' and call('HGET', keys[3], user)
  known[name] = known[name] or known[vouched(name)]
  if erasing and call('SISMEMBER', keys[2], user) == 1 then
    answer[n] = 'x'
  elseif known[name] then
    answer[n] = '=' .. known[name]
  elseif owner and owner ~= '' then
    answer[n] = '>' .. (string.match(owner, '>(.+)') or string.sub(owner, 1, #user))
  elseif length >= bound then
    answer[n] = '!' .. length
  else
    local id = call('XADD', keys[1], '*', 'e', argv[4 * n + 2])
    if owner ~= '' and argv[4 * n + 3] == '1' then
      call('HSET', keys[3], user, '')
    end
    length = length + 1
    known[name] = id
    fresh[#fresh + 1] = name
    fresh[#fresh + 1] = id
    answer[n] = '+' .. id
  end
end
if #fresh > 0 then
  call('HSET', keys[4], unpack(fresh))
  call('EXPIRE', keys[4], argv[1])
elseif argv[3] == '1' then
  call('HSET', keys[4], '', '')
  call('EXPIRE', keys[4], argv[1])
end
return answer
