-- Append events of one partition in order, each at most once, or none after a bound.
-- KEYS: log, erased users, owners of anonymous ids, ids seen today, then ids seen on the days
--       before and (clocks differ) tomorrow, all in one slot; then, on a server that is no part of
--       a cluster, of other partitions the owners of anonymous ids, each before its ids seen.
--       Behind the ids seen of this partition stands who said what about profiling: of a user '0'
--       (denied; with ':' and the entry, from its append until it is applied), or the second in
--       which a grant ends, '-1' for never.
-- ARGV: 1 seconds for which a day's ids are kept, 2 entries the log may hold, 3 '1' to write
--       something in any case (a replica that confirms it has everything before it), 4 hashes of
--       ids seen, 5 '1' if who said nothing may be profiled, 6 the second it is now, then for each
--       event its dedup key, its user, its record and '1' if that user is
--       an anonymous id, or, of one moved here from an anonymous id, the number of the key that
--       holds the owner, and the anonymous id; what of it is kept of a user who may not be
--       profiled: '' nothing, '=' all, else a record; and '0' if it denies profiling, or 'once' if
--       it is written for its user a single time (noted beside profiling, as 'gpc:' and the user).
--       A dedup key that begins with '~' and 31 is of a key of scope write: what others sent under
--       the rest of it makes the event known, never the other way round.
-- Answers for each event '+id' (new), '-id' (new and not kept: the last entry before it), '=id'
-- (known), 'x' (its user is erased), '>owner' (it is
-- to be written for the user the anonymous id belongs to), '!entries' (refused: the log is full) or
-- '?' (refused, it and what follows: since the event was moved the store has lost the note of the
-- anonymous id's owner, or taken the event into the anonymous id's own log).
local call, keys, argv = redis.call, KEYS, ARGV
local names, known, answer, fresh = {}, {}, {}, {}
local count = (#argv - 6) / 6
local profiling = keys[4 + argv[4]]
local told = call('EXISTS', profiling) == 1
local function vouched(name)
  return string.sub(name, 1, 2) == '~\31' and string.sub(name, 3)
end
-- Whether it is not certain any more that a moved event belongs here alone.
local function strayed(name, sender)
  local key, anonymous = string.match(sender, '^(%d+) (.+)$')
  if not key then
    return false
  end
  local lost = (call('HGET', keys[tonumber(key)], anonymous) or '') == ''
  for k = key + 1, key + argv[4] do
    lost = lost or call('HEXISTS', keys[k], name) == 1
      or vouched(name) and call('HEXISTS', keys[k], vouched(name)) == 1
  end
  return lost
end
local function profiled(user)
  local said = told and call('HGET', profiling, user)
  if said and string.sub(said, 1, 1) == '0' then
    return false
  end
  return argv[5] == '1' or said and (said == '-1' or tonumber(said) > tonumber(argv[6]))
end
local function last()
  if call('EXISTS', keys[1]) == 1 then
    local about = call('XINFO', 'STREAM', keys[1])
    for k = 1, #about, 2 do
      if about[k] == 'last-generated-id' then
        return about[k + 1]
      end
    end
  end
  return '0-0'
end
for n = 1, count do
  names[n] = argv[6 * n + 1]
end
for n = 1, count do
  names[#names + 1] = vouched(names[n]) or nil
end
for k = 4, 3 + argv[4] do
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
local lost = false
for n = 1, count do
  local name, user, sender = names[n], argv[6 * n + 2], argv[6 * n + 4]
  local owner = sender == '1' and call('HGET', keys[3], user)
  lost = lost or strayed(name, sender)
  known[name] = known[name] or known[vouched(name)]
  if erasing and call('SISMEMBER', keys[2], user) == 1 then
    answer[n] = 'x'
  elseif known[name] then
    answer[n] = '=' .. known[name]
  elseif lost then
    answer[n] = '?'
  elseif owner and owner ~= '' then
    answer[n] = '>' .. (string.match(owner, '>(.+)') or string.sub(owner, 1, #user))
  elseif argv[6 * n + 6] == 'once' and call('HEXISTS', profiling, 'gpc:' .. user) == 1 then
    answer[n] = '=' .. last()
  elseif length >= bound then
    answer[n] = '!' .. length
  else
    local record, kept, id = argv[6 * n + 3], argv[6 * n + 5], nil
    if kept ~= '=' and not profiled(user) then
      record = kept
    end
    if record == '' then
      id = last()
      answer[n] = '-' .. id
    else
      id = call('XADD', keys[1], '*', 'e', record)
      if owner ~= '' and sender == '1' then
        call('HSET', keys[3], user, '')
      end
      if argv[6 * n + 6] == '0' then
        call('HSET', profiling, user, '0:' .. id)
        told = true
      elseif argv[6 * n + 6] == 'once' then
        call('HSET', profiling, 'gpc:' .. user, '1')
      end
      length = length + 1
      answer[n] = (record == kept and '-' or '+') .. id
    end
    known[name] = id
    fresh[#fresh + 1] = name
    fresh[#fresh + 1] = id
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
