-- An anonymous id is a user's no more: its note becomes what it would be if they had never named it.
-- KEYS: owners of anonymous ids. ARGV: the anonymous id, the user.
-- Answers '1' if the note named the user, else '0'; nothing is changed then.
local call, key = redis.call, KEYS[1]
local note = call('HGET', key, ARGV[1])
local first, own, now = string.match(note or '', '^([^+>~]+)(%+?)~?>?([^~]*)')
if first == ARGV[2] and now ~= '' then  -- another corrected the claim
  call('HSET', key, ARGV[1], now .. own)
elseif first == ARGV[2] and own == '' then
  call('HDEL', key, ARGV[1])
elseif first == ARGV[2] then
  call('HSET', key, ARGV[1], '')
elseif now == ARGV[2] then  -- whom they had corrected has claimed it, as before
  call('HSET', key, ARGV[1], first .. own .. '~')
else
  return 0
end
return 1
