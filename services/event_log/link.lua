-- An anonymous id becomes a known user's, unless it is another's: the first one keeps it, but for
-- one that only claims it, whom a link that is vouched for corrects.
-- KEYS: erased users, owners of anonymous ids, row of the anonymous id; all in one slot.
-- ARGV: the anonymous id, the user, '~' if the link is only claimed, by a key of scope write.
-- Answers 'x' (the anonymous id is erased), or the note of its owner as `owners_key` describes it,
-- with '!' before it if this call made the link.
-- From then on the append script takes no event for it.
local call, keys, argv = redis.call, KEYS, ARGV
if call('SISMEMBER', keys[1], argv[1]) == 1 then
  return 'x'
end
local owner = call('HGET', keys[2], argv[1])
if not owner or owner == '' then
  local own = owner or call('EXISTS', keys[3]) == 1
  owner = argv[2] .. (own and '+' or '') .. argv[3]
  call('HSET', keys[2], argv[1], owner)
  return '!' .. owner
elseif argv[3] == '' and string.sub(owner, -1) == '~' then
  owner = string.sub(owner, 1, -2)
  if string.sub(owner, 1, #argv[2]) ~= argv[2] then
    owner = owner .. '>' .. argv[2]
  end
  call('HSET', keys[2], argv[1], owner)
end
return owner
