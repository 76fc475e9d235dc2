-- An anonymous id becomes a known user's, unless it is another's: the first one keeps it.
-- KEYS: erased users, owners of anonymous ids, row of the anonymous id; all in one slot.
-- ARGV: the anonymous id, the user.
-- Answers 'x' (the anonymous id is erased), or its owner, with a '+' behind if the anonymous id
-- had events of its own. From then on the append script takes no event for it.
local call, keys, argv = redis.call, KEYS, ARGV
if call('SISMEMBER', keys[1], argv[1]) == 1 then
  return 'x'
end
local owner = call('HGET', keys[2], argv[1])
if not owner or owner == '' then
  local own = owner or call('EXISTS', keys[3]) == 1
  owner = argv[2] .. (own and '+' or '')
  call('HSET', keys[2], argv[1], owner)
end
return owner
