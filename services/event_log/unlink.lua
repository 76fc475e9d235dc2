-- A link that was made for nothing is taken back: its user had been erased.
-- KEYS: owners of anonymous ids. ARGV: the anonymous id, the user.
local note = redis.call('HGET', KEYS[1], ARGV[1])
if note == ARGV[2] or note == ARGV[2] .. '~' then
  redis.call('HDEL', KEYS[1], ARGV[1])
elseif note == ARGV[2] .. '+' or note == ARGV[2] .. '+~' then
  redis.call('HSET', KEYS[1], ARGV[1], '')
end
