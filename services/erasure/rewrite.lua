-- Part of a stream copied into another without some entries; with the last part the other stands in
-- its place.
-- KEYS: stream, the new one in the making, in one slot. ARGV: start and end of the part ('+': the
--       last), then the entries left out.
local call, gone = redis.call, {}
for n = 3, #ARGV do
  gone[ARGV[n]] = true
end
local found = call('XRANGE', KEYS[1], ARGV[1], ARGV[2])
for n = 1, #found do
  if not gone[found[n][1]] then
    call('XADD', KEYS[2], found[n][1], unpack(found[n][2]))
  end
end
if ARGV[2] == '+' then
  if call('EXISTS', KEYS[2]) == 1 then
    call('RENAME', KEYS[2], KEYS[1])
  else
    call('DEL', KEYS[1])
  end
end
