-- Tombstones of one partition: nothing of these users is taken any more, and their rows are gone.
-- KEYS: erased users, cursor, then one row per user; all in one slot. ARGV: the users.
-- Answers how many rows there were. An updater that had read one is told by the count of rebuilds.
-- The rows go first: a server that is full lets a script go on that has written something.
local rows = 0
for n = 1, #ARGV do
  rows = rows + redis.call('DEL', KEYS[n + 2])
end
for n = 1, #ARGV do
  redis.call('SADD', KEYS[1], ARGV[n])
end
if rows > 0 then
  redis.call('HINCRBY', KEYS[2], 'rebuilt', rows)
end
return rows
